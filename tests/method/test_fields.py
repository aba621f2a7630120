"""The two radiance fields: one interface, held against each other and against plain formulas."""

import numpy as np
import pytest
import torch
from conftest import ball, conditions, poses
from torch.nn import functional as F

from dfa.method import fast_field, field_training, mlp_field
from dfa.method import field as fields

KINDS = sorted(field_training.FIELDS)
# of tests that train: the paper's field takes a quarter of a minute
SLOW_PAPER = ["fast", pytest.param("paper", marks=pytest.mark.slow)]


def test_gather_is_grid_sample_and_so_are_its_gradients():
    """Against torch's own bilinear lookup, composited by einsum, in double precision."""
    g = torch.Generator().manual_seed(0)
    rand = lambda *s: torch.rand(*s, generator=g, dtype=torch.float64)  # noqa: E731
    x = (rand(1, 30, 5, 2) * 2.4 - 1.2).requires_grad_()  # some outside: the border counts
    plane, w = rand(1, 7, 9, 9).requires_grad_(), rand(1, 30, 5).requires_grad_()
    seen = F.grid_sample(plane, x, padding_mode="border", align_corners=True)
    expected = torch.einsum("bcmk,bmk->bmc", seen, w)[0]
    rows, share = fast_field.bilinear(x[..., 0], x[..., 1], 9)
    table = plane[0].flatten(1).T.contiguous()
    bag = lambda t: t.reshape(30, -1)  # noqa: E731
    found = fast_field.Gather.apply(table, bag(rows), bag(share * w[..., None]))
    torch.testing.assert_close(found, expected)
    up = rand(30, 7)
    for a, b in zip(
        torch.autograd.grad(found, (x, plane, w), up),
        torch.autograd.grad(expected, (x, plane, w), up),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


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


def test_a_larger_frame_is_woven_from_frames_of_a_moved_camera():
    """Every second pixel is the small frame as seen a quarter of a pixel aside."""
    torch.manual_seed(0)
    field, cond = fast_field.FastField(conditions(), 32).eval(), conditions(2)
    with torch.no_grad():
        small, large, told = field.image(cond, 32), field.image(cond, 64), field.condition(cond)
        bounds = field.bounds(told, 16)
        for i, v in enumerate((-0.25, 0.25)):
            for j, u in enumerate((-0.25, 0.25)):
                moved = field.decode(field.composite(told, bounds, (u / 32, v / 32)), told)
                torch.testing.assert_close(large[:, :, i::2, j::2], moved)
        torch.testing.assert_close(F.avg_pool2d(large, 2), small, atol=0.05, rtol=0)
        half, huge = field.image(cond, 16), field.image(cond, 128)
    torch.testing.assert_close(half, F.avg_pool2d(small, 2), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(F.avg_pool2d(huge, 2), large, atol=0.05, rtol=0)


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
    psnr = {k: -10 * torch.log10((v - frames).square().mean()) for k, v in made.items()}
    between = -10 * torch.log10((made["fast"] - made["paper"]).square().mean())
    assert min(psnr.values()) > 22 and between > 21, (psnr, between)


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
    assert 0 < float((half - exact).abs().max()) < 0.05


def test_any_audio_feature_conditions_the_fast_field():
    """As table 5 asks: other widths, more frames around; a unit of each is its training spread."""
    g = torch.Generator().manual_seed(2)
    heard = 50 * torch.randn(20, 80, generator=g) + 7
    cond = fields.conditions(poses(), heard, torch.randn(20, 8, generator=g), context=6)
    assert cond.shape == (20, 12 + 8 + 14 * 80)
    torch.testing.assert_close(cond[10, 20:-80].view(13, 80), heard[4:17])
    torch.manual_seed(0)
    field = fast_field.FastField(cond, 32, 6).eval()
    torch.manual_seed(0)
    other = fast_field.FastField(torch.cat([cond[:, :20], cond[:, 20:] / 50 - 3], 1), 32, 6).eval()
    with torch.no_grad():
        image = field.image(cond[:2], 32)
        same = other.image(torch.cat([cond[:2, :20], cond[:2, 20:] / 50 - 3], 1), 32)
    torch.testing.assert_close(image, same, atol=1e-4, rtol=1e-3)
