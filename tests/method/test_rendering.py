"""Volume rendering against analytic integrals, rays against projection."""

import numpy as np
import torch
from scipy.integrate import quad

from dfa.method import rendering
from dfa.method.face import project


def test_compositing_converges_to_the_volume_integral():
    """σ(s) and c(s) smooth along a ray; scipy integrates what the sum approximates."""
    sigma, colour = (
        (lambda s: 4 * np.exp(-((s - 0.5) ** 2) / 0.02)),
        (lambda s: 0.5 + 0.5 * np.sin(9 * s)),
    )
    integrand = lambda s: np.exp(-quad(sigma, 0, s)[0]) * sigma(s) * colour(s)  # noqa: E731
    exact, clear = quad(integrand, 0, 1)[0], np.exp(-quad(sigma, 0, 1)[0])
    s = (torch.arange(400, dtype=torch.float64) + 0.5) / 400
    w, left = rendering.compositing_weights(
        torch.from_numpy(sigma(s.numpy())), torch.full((400,), 1 / 400.0)
    )
    assert abs(float((w * torch.from_numpy(colour(s.numpy()))).sum()) - exact) < 1e-4
    assert abs(float(left) - clear) < 1e-4


def test_weights_and_what_is_left_sum_to_one():
    w, left = rendering.compositing_weights(torch.rand(7, 12) * 50, torch.rand(7, 12) * 0.1)
    assert (w >= 0).all()
    torch.testing.assert_close(w.sum(-1) + left, torch.ones(7))


def test_strata_are_sampled_once_each():
    edges = rendering.even_intervals((torch.tensor(1.0), torch.tensor(2.0)), 5)
    middle, delta = rendering.stratified(edges)
    torch.testing.assert_close(middle, torch.tensor([1.1, 1.3, 1.5, 1.7, 1.9]))
    torch.testing.assert_close(delta, torch.full((5,), 0.2))
    g = torch.Generator().manual_seed(0)
    anywhere, _ = rendering.stratified(edges.expand(500, 2, -1), g)
    stratum = (anywhere - 1) / 0.2
    assert (stratum.floor() == torch.arange(5)).all()
    assert abs(float((stratum % 1).mean()) - 0.5) < 0.02


def test_intervals_with_equal_shares_are_quantiles():
    """Of a histogram, by numpy; also where one interval holds nearly all of the weight."""
    edges, g = torch.tensor([1.0, 1.1, 1.4, 1.5, 1.9]), torch.Generator().manual_seed(0)
    weight = torch.rand(3, 4, generator=g, dtype=torch.float64) + 1e-3
    weight[2, 1] = 1e4
    found = rendering.equal_shares(edges.double(), weight, 6)
    for row, w in zip(found, weight, strict=True):
        cumulative = np.concatenate([[0], np.cumsum(w)]) / float(w.sum())
        expected = np.interp(np.linspace(0, 1, 7), cumulative, edges)
        np.testing.assert_allclose(row, expected, atol=1e-6)


def test_rays_pass_through_their_pixels():
    rays = rendering.cast_rays(8)
    uv = project(rays * 1.7).reshape(8, 8, 2)
    centres = (torch.arange(8) + 0.5) / 8
    torch.testing.assert_close(uv[3, :, 0], centres)
    torch.testing.assert_close(uv[:, 3, 1], centres)
    moved = project(rendering.cast_rays(8, (0.25, -0.125))).reshape(8, 8, 2) - uv
    torch.testing.assert_close(moved, torch.tensor([0.25, -0.125]).expand(8, 8, 2))
