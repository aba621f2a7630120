"""The two radiance fields: one interface, held against each other and against plain formulas."""

import numpy as np
import pytest
import torch
from conftest import ball, conditions, poses
from scipy.interpolate import interpn
from torch.nn import functional as F

from dfa.method import fast_field, field_training, mlp_field
from dfa.method import field as fields
from dfa.method.face import euler_to_matrix
from dfa.method.rendering import Camera
from dfa.training import make_optimiser


def turn(yaw):
    return euler_to_matrix(torch.tensor([[0.0, yaw, 0.0]]))[0]


KINDS = sorted(field_training.FIELDS)
# of tests that train: the paper's field takes a quarter of a minute
SLOW_PAPER = ["fast", pytest.param("paper", marks=pytest.mark.slow)]


def test_positional_encoding_is_the_formula():
    x = torch.tensor([[0.3, -0.7]])
    p = mlp_field.positional_encoding(x, 3)[0]
    expected = [*x[0]]
    for f in (torch.sin, torch.cos):
        expected += [f(2**l * np.pi * v) for l in range(3) for v in x[0]]
    torch.testing.assert_close(p, torch.stack(expected))


def test_the_paper_field_has_the_sizes_of_the_authors_code():
    field = mlp_field.PaperField(conditions())
    shapes = [tuple(layer.weight.shape) for layer in field.trunk]
    asked = 63 + 64 + 32  # γ(x), f_a, f_e widened
    assert shapes == [(256, asked)] + [(256, 256)] * 4 + [(256, 256 + asked)] + [(256, 256)] * 2
    assert tuple(field.view.weight.shape) == (128, 256 + 42)
    assert (field.RAYS, field.SAMPLES, field.frames_per_step) == (2048, 64, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_c_and_sigma_are_a_fields_only_of_what_eq_10_names(kind):
    """(x, h, f_c) in, (c, σ) out: another f_c another answer, another frame's company the same."""
    torch.manual_seed(0)
    field = field_training.FIELDS[kind](conditions(), 32).eval()
    cond = conditions(3)
    x = torch.rand(3, 40, 3, generator=torch.Generator().manual_seed(0)) * 1.6 - 0.8
    with torch.no_grad():
        c, sigma = field.query(x, cond)
        alone, sigma_alone = field.query(x[1:2], cond[1:2])
        other = cond.clone()
        other[:, 12:20] += 3
        changed, _ = field.query(x, other)
        outside = field.query(x + 4, cond)[1]
    assert c.shape[:2] == sigma.shape == (3, 40) and c.shape[2] >= 3
    assert (sigma >= 0).all() and (outside == 0).all()
    torch.testing.assert_close(alone[0], c[1], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(sigma_alone[0], sigma[1], atol=1e-4, rtol=1e-4)
    assert (changed - c).abs().max() > 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_rendering_is_the_same_twice_and_fits_any_size(kind, monkeypatch):
    monkeypatch.setattr(mlp_field.PaperField, "SAMPLES", 4)
    torch.manual_seed(0)
    field, cond = field_training.FIELDS[kind](conditions(), 32).eval(), conditions(3)
    for size in (16, 32, 48, 96):
        a, b = (list(fields.render(field, cond, size)) for _ in range(2))
        assert a[0].shape == (size, size, 3) and a[0].dtype == np.uint8
        assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def test_a_smaller_picture_is_the_mean_of_the_rays_of_training():
    torch.manual_seed(0)
    field, cond = fast_field.FastField(conditions(), 64).eval(), conditions(2)
    with torch.no_grad():
        whole, half, large = (field.image(cond, size) for size in (64, 32, 128))
    torch.testing.assert_close(half, F.avg_pool2d(whole, 2), atol=0.02, rtol=0)
    torch.testing.assert_close(F.avg_pool2d(large, 2), whole, atol=0.1, rtol=0)


def test_sigma_and_c_are_the_sums_of_bases():
    """Point by point, in numpy, from the grids and planes of one frame (trilinear by scipy)."""
    torch.manual_seed(0)
    field, cond = fast_field.FastField(conditions(), 32).eval(), conditions(1)
    x = torch.rand(1, 20, 3, generator=torch.Generator().manual_seed(1)) * 1.8 - 0.9
    with torch.no_grad():
        c, sigma = field.query(x, cond)
        told = field.condition(cond)
        poses, f_a, f_e = field.split(cond)
        f_c = torch.cat([field.lips(f_a), f_e], 1)
        a, b = field.a(f_c)[0], field.b(torch.cat([poses, f_c], 1))[0]
    a_s, a_u = a[: field.BASES_S].numpy(), a[field.BASES_S :].numpy()
    s, v = field.s.detach().numpy(), field.v.detach().numpy()
    G, L = field.GRID, field.COARSE
    density = (s[0] + a_s @ s[1:]).reshape(G, G, G)
    rows = np.linspace(float(field.lo[1]), float(field.hi[1]), L)[:, None] < field.NECK
    shade = v[0].reshape(3, 2, L, L) + rows * (b.numpy() @ v[1:]).reshape(3, 2, L, L)

    def look(array, *axes):  # nodes at -1 .. 1 along each axis
        nodes = [np.linspace(-1, 1, n) for n in array.shape]
        return interpn(nodes, array, np.stack(axes, -1))

    u = x[0].numpy()
    at = u[:, 2], u[:, 1], u[:, 0]
    expected = field.DENSITY * np.log1p(np.exp(look(density, *at)))
    np.testing.assert_allclose(sigma[0], expected, rtol=1e-3)
    detail = told.detail[0].numpy()
    for channel in range(3):
        seen = look(detail[channel], *at[1:]) + look(shade[channel], *at)
        np.testing.assert_allclose(c[0, :, channel], seen, atol=1e-4)
    assert a_u.shape == (field.BASES_U,)


def test_the_torso_looks_the_same_wherever_the_head_turns():
    """d := h is the direction from which the head is seen, not the torso."""
    field = fast_field.FastField(conditions(), 32).eval()
    with torch.no_grad():
        field.v[1:].normal_(generator=torch.Generator().manual_seed(0))
        one, other = field.condition(conditions(2)).shade
    y = torch.linspace(float(field.lo[1]), float(field.hi[1]), field.COARSE)
    torch.testing.assert_close(one[:, :, y > field.NECK], other[:, :, y > field.NECK])
    assert (one - other)[:, :, y < field.NECK].abs().mean() > 0.01


@pytest.mark.parametrize("size", [32, 48])
def test_few_samples_cover_the_ray(size):
    """Intervals partition the box, whatever is in it, and hold equal shares of the weight."""
    torch.manual_seed(0)
    field, cond = fast_field.FastField(conditions(), size).eval(), conditions(2)
    edges, opacity = field.intervals(field.condition(cond))
    near, far = field.depth_range(cond[:, :6], field.torso_pose(cond))
    assert edges.shape == (2, field.CELLS**2, field.SAMPLES + 1)
    assert (edges.diff(dim=-1) > 0).all() and 0 <= opacity.min() and opacity.max() <= 1
    torch.testing.assert_close(edges[..., 0], near[:, None].expand(2, field.CELLS**2))
    torch.testing.assert_close(edges[..., -1], far[:, None].expand(2, field.CELLS**2))


@pytest.mark.slow
def test_both_fields_learn_the_same_scene_and_agree_on_it(monkeypatch):
    """Trained apart on the same frames, they show the same pictures, and put the ball's front
    where it is."""
    monkeypatch.setattr(mlp_field.PaperField, "RAYS", 64)
    monkeypatch.setattr(mlp_field.PaperField, "SAMPLES", 24)
    cond, frames = ball(16)
    made = {}
    for kind, steps, rate in (("fast", 250, 1.0), ("paper", 400, 2.0)):
        torch.manual_seed(0)
        field = field_training.FIELDS[kind](cond, 16)
        groups = [g | {"lr": g["lr"] * rate} for g in field.parameter_groups()]
        optimiser = torch.optim.Adam(groups)
        for step in range(steps):
            g = torch.Generator().manual_seed(step)
            i = torch.randint(len(cond), (field.frames_per_step,), generator=g)
            loss, _ = field.loss(cond[i], frames[i], torch.ones(len(i), 1, 16, 16), g)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        field.eval()
        with torch.no_grad():
            made[kind] = field.image(cond, 16)
            if kind == "fast":
                field.SAMPLES = 128  # of this field, not of the class
                made["128 samples"] = field.image(cond, 16)
    psnr = {k: -10 * torch.log10((v - frames).square().mean()) for k, v in made.items()}
    between = -10 * torch.log10((made["fast"] - made["paper"]).square().mean())
    assert min(psnr.values()) > 22 and between > 21, (psnr, between)
    # 48 dB from each other: if a picture is 36 dB from the truth, 128 samples change that by 0.3 dB
    few = -10 * torch.log10((made["fast"] - made["128 samples"]).square().mean())
    assert few > 48, few


@pytest.mark.parametrize("kind", SLOW_PAPER)
def test_a_few_steps_learn_a_picture(kind, monkeypatch):
    """The whole path is differentiable: 60 steps on 4 frames gain several dB."""
    monkeypatch.setattr(mlp_field.PaperField, "RAYS", 128)
    monkeypatch.setattr(mlp_field.PaperField, "SAMPLES", 8)
    torch.manual_seed(0)
    field, cond = field_training.FIELDS[kind](conditions(), 32), conditions(4)
    y, x = torch.meshgrid(torch.linspace(0, 1, 32), torch.linspace(0, 1, 32), indexing="ij")
    frames = torch.stack([x, y, 0.5 + 0.3 * torch.sin(9 * x)]).expand(4, 3, 32, 32)
    optimiser = torch.optim.Adam(field.parameter_groups())
    seen = []
    for step in range(60):
        g = torch.Generator().manual_seed(step)
        loss, parts = field.loss(cond, frames, torch.ones(4, 1, 32, 32), g)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        seen.append(parts["psnr"])
    assert np.mean(seen[-5:]) > seen[0] + 4
    assert all(p.grad is not None and p.grad.isfinite().all() for p in field.parameters())


@pytest.mark.parametrize("kind", SLOW_PAPER)
def test_half_precision_touches_the_networks_alone(kind):
    """Under autocast the picture stays within what bfloat16 rounds; rays and grids are exact."""
    torch.manual_seed(0)
    field, cond = field_training.FIELDS[kind](conditions(), 32).eval(), conditions(1)
    with torch.no_grad():
        exact = field.image(cond, 32)
        with torch.autocast("cpu", torch.bfloat16):
            half = field.image(cond, 32)
    difference = float((half - exact).abs().max())
    assert difference < 0.05 and (difference > 0) == (kind == "paper")  # the fast one has no layers


def test_any_audio_feature_conditions_the_fast_field():
    """As table 5 asks: other widths, more frames around; a unit of each is its training spread."""
    g = torch.Generator().manual_seed(2)
    heard = 50 * torch.randn(20, 80, generator=g) + 7
    cond = fields.conditions(poses(), heard, torch.randn(20, 8, generator=g), context=6)
    assert cond.shape == (20, 12 + 8 + 13 * 80)
    torch.testing.assert_close(cond[10, 20:].view(13, 80), heard[4:17])
    torch.manual_seed(0)
    field = fast_field.FastField(cond, 32, 6).eval()
    torch.manual_seed(0)
    other = fast_field.FastField(torch.cat([cond[:, :20], cond[:, 20:] / 50 - 3], 1), 32, 6).eval()
    with torch.no_grad():
        image = field.image(cond[:2], 32)
        same = other.image(torch.cat([cond[:2, :20], cond[:2, 20:] / 50 - 3], 1), 32)
    torch.testing.assert_close(image, same, atol=1e-4, rtol=1e-3)


def test_cells_that_are_hardly_seen_do_not_become_noise():
    """With Adam's usual eps, noise of 1e-8 as a gradient would move a cell as far as a picture."""
    g = torch.Generator().manual_seed(0)
    field = fast_field.FastField(conditions(), 32)
    before = field.u[0].detach().clone()
    optimiser = make_optimiser(field.parameter_groups(), field_training.FieldRecipe(200))
    seen = torch.arange(field.P) < field.P // 2  # rows
    for _ in range(200):
        noise = 1e-8 * torch.randn(field.u[0].shape, generator=g)
        field.u[0].grad = torch.where(seen[:, None], 1e-5, noise)
        optimiser.step()
    moved = (field.u[0] - before).detach().abs()
    assert moved[:, :, ~seen].max() < 0.05 and moved[:, :, seen].min() > 1


def lump(size=64):
    """A field with an opaque lump beside the middle and random colours, and its conditions."""
    torch.manual_seed(0)
    cond = conditions()
    cond[:, 6:12] = cond[:, :6]
    field = fast_field.FastField(cond, size).eval()
    x, y, z = field._grid().unbind(-1)
    inside = 0.07 - ((x - 0.05) ** 2 + (y + 0.04) ** 2 + z**2).sqrt()
    with torch.no_grad():
        field.s[0] = (inside * 200).clamp(-20, 6).flatten()  # thin air is empty
        for level in field.u[1:]:
            level.normal_(std=0.3)
        field.background.uniform_()
    return field, cond[:2]


@pytest.mark.parametrize("camera", [None, Camera(turn(0.3), torch.tensor([-0.4, 0.02, 0.1]))])
def test_the_coarse_pass_changes_nothing_but_the_time(camera):
    """The same rays with 300 even samples: no cell is missed, none is exchanged for another."""
    field, cond = lump()
    with torch.no_grad():
        quick = field.look(cond, 64, camera)
        field.SAMPLES = 300
        whole = fields.Field.look(field, cond, 64, camera)
    assert 0.02 < whole.opacity.mean() < 0.5
    assert fields.decibels((quick.picture - whole.picture) ** 2) > 35
    assert float((quick.opacity - whole.opacity).abs().mean()) < 0.012
    solid = whole.opacity > 0.9
    assert float((quick.depth - whole.depth)[solid].abs().mean()) < 0.005


def test_thin_fog_is_not_left_out():
    field, cond = lump()
    with torch.no_grad():
        field.s[0] = -4.5
        fog = field.look(cond, 32).opacity[..., 12:20, 12:20]
        field.SAMPLES = 50
        whole = fields.Field.look(field, cond, 32).opacity[..., 12:20, 12:20]
    assert 0.1 < whole.mean() < 0.5 and float((fog - whole).abs().mean()) < 0.04


def test_depth_of_a_small_picture_is_that_of_what_is_opaque():
    field, cond = lump()
    with torch.no_grad():
        small, whole = field.look(cond, 16), field.look(cond, 64)
    edge = (small.opacity > 0.2) & (small.opacity < 0.8)
    solid = whole.depth[whole.opacity > 0.9]
    assert edge.any() and (small.depth[edge] - solid.mean()).abs().max() < 0.1


def test_pictures_behind_are_seen_unchanged_where_nobody_is():
    field, cond = lump()
    with torch.no_grad():
        field.s[0] = -20.0
        behind = torch.rand(2, 3, 32, 32)
        seen = field.look(cond, 32, behind=behind).picture
    torch.testing.assert_close(seen, behind, atol=0.02, rtol=0)


def test_the_window_of_the_mouth_is_where_the_face_is():
    """u_j, j > 0, change the picture in the window of the face, and nowhere else."""
    field, cond = lump()
    with torch.no_grad():
        field.u_full.normal_()
        one, other = field.condition(cond).detail
    changed = (one - other).abs().amax(0) > 1e-3
    rows, columns = changed.any(1).nonzero(), changed.any(0).nonzero()
    x, y = (float(v) for v in field.lo[:2] + (field.hi - field.lo)[:2] * torch.tensor([
        float(columns.float().mean()), float(rows.float().mean())]) / (field.P - 1))  # fmt: skip
    assert abs(x - field.MIDDLE[0]) < 0.01 and abs(y - field.MIDDLE[1]) < 0.01
    assert 0.9 * field.face[0] <= len(rows) <= field.face[0]


def test_the_loss_has_a_part_for_the_person_and_one_for_the_room():
    field, cond = lump()
    g, one = torch.Generator(), torch.ones(2, 1, 64, 64)
    with torch.no_grad():
        look = field.look(cond, 64)
        picture = look.picture.clamp(0, 1)

        def loss(frames, masks=None, weight=one):
            return float(field.loss(cond, frames, weight, g.manual_seed(0), masks)[0])

        plain = loss(picture)
        assert plain < 0.01
        apart = loss(picture, look.opacity), loss(picture, 1 - look.opacity)
        assert apart[0] - plain < 0.05 * field.MASK < 0.3 * field.MASK < apart[1] - plain
        cells = field.intervals(field.condition(cond)).opacity  # (2, 32 * 32)
        nobody = (cells < field.EMPTY)[:, field.cell(torch.arange(64**2), 64)]  # no ray goes there
        nobody = nobody.view(2, 1, 64, 64)
        unlike = torch.where(nobody, 1 - picture, picture)  # another room
        apart_there = float((2 * picture - 1).pow(2).mean())
        assert loss(unlike) - plain > 0.1 * field.BACKGROUND * apart_there
        solid = look.opacity > 0.9
        wrong = torch.where(solid, 1 - picture, picture)
        assert loss(wrong, weight=one * ~solid + 1e-12) < 0.2 * loss(wrong)  # drawn by weight
