"""The radiance field: volume rendering against analytic integrals, geometry against projection."""

import numpy as np
import torch
from scipy.integrate import quad

from dfa import nerf
from dfa.face import euler_to_matrix, project


def poses(n: int = 20) -> torch.Tensor:
    g = torch.Generator().manual_seed(0)
    spread = torch.tensor([0.1, 0.2, 0.05, 0.01, 0.01, 0.01])
    return torch.randn(n, 6, generator=g) * spread + torch.tensor([0, 0, 0, 0.01, 0.02, 1.3])


def conditions(n: int = 20) -> torch.Tensor:
    g = torch.Generator().manual_seed(1)
    return nerf.conditions(poses(n), torch.rand(n, 64, generator=g), torch.randn(n, 8, generator=g))


def test_compositing_converges_to_the_volume_integral():
    """σ(s) and c(s) smooth along a ray; scipy integrates what the sum approximates."""
    sigma, colour = (
        (lambda s: 4 * np.exp(-((s - 0.5) ** 2) / 0.02)),
        (lambda s: 0.5 + 0.5 * np.sin(9 * s)),
    )
    integrand = lambda s: np.exp(-quad(sigma, 0, s)[0]) * sigma(s) * colour(s)  # noqa: E731
    exact, clear = quad(integrand, 0, 1)[0], np.exp(-quad(sigma, 0, 1)[0])
    s = (torch.arange(400, dtype=torch.float64) + 0.5) / 400
    w, left = nerf.compositing_weights(
        torch.from_numpy(sigma(s.numpy())), torch.full((400,), 1 / 400.0)
    )
    assert abs(float((w * torch.from_numpy(colour(s.numpy()))).sum()) - exact) < 1e-4
    assert abs(float(left) - clear) < 1e-4


def test_weights_and_what_is_left_sum_to_one():
    w, left = nerf.compositing_weights(torch.rand(7, 12) * 50, torch.rand(7, 12) * 0.1)
    assert (w >= 0).all()
    torch.testing.assert_close(w.sum(-1) + left, torch.ones(7))


def test_rays_pass_through_their_pixels():
    rays = nerf.cast_rays(8)
    uv = project(rays * 1.7).reshape(8, 8, 2)
    centres = (torch.arange(8) + 0.5) / 8
    torch.testing.assert_close(uv[3, :, 0], centres)
    torch.testing.assert_close(uv[:, 3, 1], centres)


def test_a_point_of_the_head_is_found_again_from_any_pose():
    """x -> X = R x + t by hand; the field must look the same x up, whatever the pose."""
    h = poses()
    field = nerf.RadianceField(conditions())
    x = torch.tensor([0.03, -0.02, -0.07])
    X = euler_to_matrix(h[:, :3]) @ x + h[:, 3:]
    ray, depth = X / X[:, 2:], X[:, 2]
    found = field.canonical(depth[:, None, None], ray[:, None], h, torch.zeros(len(h), 12))[:, 0, 0]
    expected = (x - field.lo) * 2 / (field.hi - field.lo) - 1
    torch.testing.assert_close(found, expected.expand(len(h), 3), atol=0.02, rtol=0)


def test_the_torso_does_not_turn_with_the_head():
    h = poses()
    field = nerf.RadianceField(conditions())
    X = torch.tensor([0.08, 0.19, 1.32])  # well below the chin
    depth, ray = torch.full((len(h), 1, 1), float(X[2])), (X / X[2]).expand(len(h), 1, 3)
    with torch.no_grad():
        at = field.canonical(depth, ray, h, torch.zeros(len(h), 12))[:, 0, 0]
    R = euler_to_matrix(h[:, :3])
    from_the_head = ((X - h[:, 3:])[:, None] @ R)[:, 0] * 2 / (field.hi - field.lo)
    assert float(at.std(0).norm()) < 0.2 * float(from_the_head.std(0).norm())


def test_conditions_hold_what_they_say():
    h, f_a, f_e = poses(60), torch.rand(60, 64), torch.randn(60, 8)
    cond = nerf.conditions(h, f_a, f_e)
    assert cond.shape == (60, nerf.DIM_C)
    torch.testing.assert_close(cond[:, :6], h)
    torch.testing.assert_close(cond[:, 12:20], f_e)
    torch.testing.assert_close(cond[30, 20:].view(5, 64), f_a[28:33])
    constant = nerf.conditions(h[:1].expand(60, 6), f_a, f_e)
    torch.testing.assert_close(constant[:, 6:12], constant[:, :6], atol=1e-5, rtol=1e-5)


def test_rendering_is_the_same_twice_and_fits_any_size():
    torch.manual_seed(0)
    field, cond = nerf.RadianceField(conditions()).eval(), conditions(3)
    for size in (32, 64, 96):
        a, b = (list(nerf.render(field, cond, size)) for _ in range(2))
        assert a[0].shape == (size, size, 3) and a[0].dtype == np.uint8
        assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def test_a_few_steps_learn_a_picture():
    """The whole path is differentiable: 60 steps on 4 frames gain several dB."""
    torch.manual_seed(0)
    field, cond = nerf.RadianceField(conditions()), conditions(4)
    y, x = torch.meshgrid(torch.linspace(0, 1, 32), torch.linspace(0, 1, 32), indexing="ij")
    frames = torch.stack([x, y, 0.5 + 0.3 * torch.sin(9 * x)]).expand(4, 3, 32, 32)
    optimiser = torch.optim.Adam(field.parameter_groups())
    seen = []
    for step in range(60):
        g = torch.Generator().manual_seed(step)
        loss, parts = nerf.photo_loss(field, cond, frames, torch.ones(4, 1, 32, 32), g)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        seen.append(parts["psnr"])
    assert seen[-1] > seen[0] + 6
    assert all(p.grad is not None and p.grad.isfinite().all() for p in field.parameters())


def test_region_weights_favour_eyes_and_mouth():
    points = torch.zeros(1, 68, 2) + 0.5
    angle = torch.linspace(0, 2 * np.pi, 20)
    points[0, 48:68] = 0.7 + 0.06 * torch.stack([angle.cos(), angle.sin() * 0.4], 1)
    points[0, 36:42, 0] = torch.linspace(0.3, 0.4, 6)
    points[0, 42:48, 0] = torch.linspace(0.6, 0.7, 6)
    w = nerf.region_weights(points, 64)
    assert w.shape == (1, 1, 64, 64)
    assert abs(float(w.mean()) - 1) < 1e-5
    assert w[0, 0, 45, 45] > 3 * w[0, 0, 5, 5]
    assert w[0, 0, 32, 22] > 3 * w[0, 0, 5, 5]


def test_pose_corrections_are_linear_between_knots_and_have_no_mean():
    corrections = nerf.PoseCorrections(nerf.RadianceField(), T=33, every=8)
    assert corrections(torch.arange(33)).abs().max() == 0  # nothing is known at first
    with torch.no_grad():
        corrections.knots[:] = torch.arange(6.0)[:, None]  # knots 0..5 at frames 0, 8, .., 40
    moved = corrections(torch.tensor([0, 4, 8, 32]))[:, 0] / corrections.UNIT
    torch.testing.assert_close(moved, torch.tensor([-2.5, -2.0, -1.5, 1.5]))


def test_poses_that_were_never_seen_do_not_drive_the_networks():
    field = nerf.RadianceField(0.1 * torch.randn(50, nerf.DIM_C, generator=torch.manual_seed(0)))
    far = torch.zeros(2, nerf.DIM_C)
    far[:, :12] = field.h_mean.repeat(2) + torch.tensor([[4.0], [400.0]]) * field.h_std.repeat(2)
    poses, _, _ = field.embed(far)
    torch.testing.assert_close(poses[0], poses[1])


def test_any_audio_feature_conditions_the_field():
    """As table 5 asks: other widths, more frames around; a unit of each is its training spread."""
    g = torch.Generator().manual_seed(2)
    heard = 50 * torch.randn(20, 80, generator=g) + 7
    cond = nerf.conditions(poses(), heard, torch.randn(20, 8, generator=g), context=6)
    assert cond.shape == (20, 12 + 8 + 13 * 80)
    torch.testing.assert_close(cond[10, 20:].view(13, 80), heard[4:17])
    torch.manual_seed(0)
    field = nerf.RadianceField(cond).eval()
    torch.manual_seed(0)
    other = nerf.RadianceField(torch.cat([cond[:, :20], cond[:, 20:] / 50 - 3], 1)).eval()
    with torch.no_grad():
        image, _ = field(cond[:2], 32)
        same, _ = other(torch.cat([cond[:2, :20], cond[:2, 20:] / 50 - 3], 1), 32)
    torch.testing.assert_close(image, same, atol=1e-4, rtol=1e-3)
