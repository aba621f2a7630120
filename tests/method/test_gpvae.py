"""The Transformer GP-VAE: kernel, KL and sampling against independent oracles."""

import math

import pytest
import torch
from conftest import seeded, sequences
from sklearn.gaussian_process.kernels import RationalQuadratic
from torch.distributions import MultivariateNormal, kl_divergence

from dfa.method import gpvae
from dfa.method.gpvae import AttributeVAE, cauchy_kernel


@pytest.fixture(scope="module")
def vae():
    torch.manual_seed(0)
    model = AttributeVAE()
    model.fit_scale(sequences())
    return model.eval()


def gaussians(T: int = 9, D: int = 3, B: int = 2):
    g = seeded()
    mean, log_sigma, phi = (torch.randn(B, T, D, generator=g).double() for _ in range(3))
    prior = torch.linalg.cholesky(torch.stack([cauchy_kernel(T, ell) for ell in (2.0, 5.0, 20.0)]))
    return mean, log_sigma.exp(), gpvae.posterior_decay(phi), prior


def dense(sigma: torch.Tensor, P: torch.Tensor) -> torch.Tensor:
    """L_q = P diag(σ), (B, D, T, T)."""
    return P * sigma.transpose(1, 2)[..., None, :]


@pytest.mark.parametrize("ell", [2.0, 16.0, 60.0])
def test_cauchy_is_scikit_learns_rational_quadratic(ell):
    oracle = RationalQuadratic(length_scale=ell / math.sqrt(2), alpha=1.0)
    t = torch.arange(40.0)[:, None]
    expected = torch.from_numpy(1.7 * oracle(t.numpy())).double()
    torch.testing.assert_close(cauchy_kernel(40, ell, 1.7, jitter=0.0), expected, atol=1e-6, rtol=0)


def test_posterior_is_the_autoregression_and_its_precision_tridiagonal():
    """P against the recursion z_t = φ_t z_{t-1} + σ_t ε_t, a step at a time."""
    g = seeded(1)
    sigma, phi = (
        torch.rand(2, 9, 3, generator=g).double(),
        torch.randn(2, 9, 3, generator=g).double(),
    )
    P = gpvae.posterior_decay(phi)
    z = gpvae.posterior_sample(torch.zeros_like(sigma), sigma, P, seeded(2))
    eps = torch.randn(2, 9, 3, generator=seeded(2)).to(sigma)
    expected = [sigma[:, 0] * eps[:, 0]]
    for t in range(1, 9):
        expected.append(phi[:, t].sigmoid() * expected[-1] + sigma[:, t] * eps[:, t])
    torch.testing.assert_close(z, torch.stack(expected, 1))
    L = dense(sigma, P)
    precision = torch.linalg.inv(L @ L.mT)
    assert precision.triu(2).abs().max() < 1e-8 * precision.abs().max()


def test_kl_is_torchs():
    mean, sigma, P, prior = gaussians()
    mean_p = torch.randn(mean.shape, generator=seeded(5)).double()
    scale = torch.rand(mean.shape, generator=seeded(6)).double() + 0.5
    L_q = dense(sigma, P)
    for kl, centre, spread in (
        (gpvae.gaussian_kl(mean, sigma, P, prior), torch.zeros_like(mean), torch.ones_like(mean)),
        (gpvae.gaussian_kl(mean, sigma, P, prior, mean_p, scale), mean_p, scale),
    ):
        for b in range(2):
            for d in range(3):
                q = MultivariateNormal(mean[b, :, d], scale_tril=L_q[b, d])
                L = spread[b, :, d, None] * prior[d]
                p = MultivariateNormal(centre[b, :, d], scale_tril=L)
                torch.testing.assert_close(kl[b, d], kl_divergence(q, p), rtol=1e-8, atol=1e-8)


def test_kl_in_single_precision_of_a_whole_window():
    """What training computes, against double precision, for the smoothest and roughest kernels."""
    g = seeded(3)
    mean, phi = (torch.randn(4, 100, 2, generator=g) for _ in range(2))
    sigma = torch.full_like(mean, 0.3)
    prior = torch.linalg.cholesky(torch.stack([cauchy_kernel(100, ell) for ell in (5.0, 60.0)]))
    single = gpvae.gaussian_kl(mean, sigma, gpvae.posterior_decay(phi), prior.float())
    P = gpvae.posterior_decay(phi.double())
    double = gpvae.gaussian_kl(mean.double(), sigma.double(), P, prior)
    torch.testing.assert_close(single.double(), double, rtol=1e-3, atol=0)


def test_kl_of_frames_by_themselves_is_the_same_with_no_memory():
    mean, sigma, _, _ = gaussians()
    none = torch.full_like(mean, -40.0)
    identity = torch.eye(9).double().expand(3, 9, 9)
    centre, scale = 0.3 * torch.ones_like(mean), 1.7 * torch.ones_like(mean)
    alone = gpvae.gaussian_kl(mean, sigma, None, None, centre, scale)
    P = gpvae.posterior_decay(none)
    torch.testing.assert_close(gpvae.gaussian_kl(mean, sigma, P, identity, centre, scale), alone)


def test_samples_have_the_covariance_they_should():
    """20,000 draws: an entry's standard error is at most sqrt(2 / 20000) of the variances."""
    n, T = 20_000, 9
    _, sigma, P, _ = gaussians(T)
    draws = gpvae.posterior_sample(
        torch.zeros(n, T, 3), sigma[:1].float(), P[:1].float(), seeded(2)
    )
    L = dense(sigma, P)[0].float()
    for d in range(3):
        K = L[d] @ L[d].T
        spread = K.diagonal().sqrt()
        error = (torch.cov(draws[..., d].T) - K) / (spread[:, None] * spread)
        assert error.abs().max() < 5 * math.sqrt(2 / n)


def test_a_covariance_that_is_none_is_an_error():
    K = cauchy_kernel(60, 30.0, jitter=0.0)  # positive definite only to more digits than there are
    for bad in (K, torch.full((3, 3), torch.nan), -torch.eye(3)):
        with pytest.raises(ValueError, match="not positive definite"):
            gpvae.cholesky(bad)
    with pytest.raises(ValueError, match="not finite"):
        AttributeVAE().fit_scale([torch.full((50, 14), torch.nan)])


def test_rate_of_zero_crossings_is_rices():
    """Dimension 0 has its length scale from the blink rate: its crossings must come as often."""
    rate, T = 0.35, 1500
    ell = 25 / (math.sqrt(2) * math.pi * rate)
    assert ell == pytest.approx(gpvae.rice_length(rate / 25))
    L = torch.linalg.cholesky(cauchy_kernel(T, ell, jitter=1e-6)).float()
    z = torch.randn(100, T, generator=seeded(3)) @ L.T
    crossings = ((z[:, 1:] > 0) & (z[:, :-1] <= 0)).sum() / z.numel() * 25
    assert float(crossings) == pytest.approx(rate, rel=0.08)


def test_fit_scale_finds_the_blinks(vae):
    x = sequences()[0]
    shut = vae.shut(x[None])[0]
    assert int((shut.diff() > 0).sum()) == 4
    blinks = sum(int((vae.shut(s[None])[0].diff() > 0).sum()) for s in sequences())
    assert float(vae.length_scales[0]) == pytest.approx(900 / blinks / math.sqrt(2) / math.pi)


def test_only_upward_crossings_are_read(vae):
    z = torch.zeros(1, 60, 10)
    z[..., 0] = torch.linspace(-3, 3, 60)
    with torch.no_grad():
        up, down, high = (vae.decode(w)[0, :, 6:] for w in (z, z.flip(1), z + 4))
    torch.testing.assert_close(down, high)
    assert (up - high).abs().amax(1).argmax() == pytest.approx(29.5, abs=6)


def test_side_of_zero_changes_where_the_eyes_are_shut(vae):
    x = torch.stack([s[:150] for s in sequences()])
    side, shut = vae.blink_target(x), vae.shut(x)
    rises = (side[:, 1:] > 0) & (side[:, :-1] <= 0)
    assert rises.sum() == (shut.diff(dim=1) > 0).sum() == 6
    assert shut[:, 1:][rises].all()
    assert not vae.blink_target(torch.zeros_like(x)).any()


def test_any_length_and_gradients_reach_mean_and_covariance(vae):
    for T in (25, 60, 100):
        x = torch.stack([s[:T] for s in sequences()])
        mean, sigma, P = vae.encode(x)
        assert vae.decode(mean).shape == x.shape
        assert sigma.shape == (3, T, 10) and P.shape == (3, 10, T, T)
    vae.zero_grad()
    loss, parts = vae.loss(x, seeded())
    loss.backward()
    grad = vae.encoder.head.weight.grad
    assert (grad.view(3, 10, -1).abs().amax((1, 2)) > 0).all()  # mean, sigma, phi
    assert set(parts) == {"rec", "kl"} and parts["kl"] > 0


def test_variants_are_of_one_class_and_about_one_size():
    sizes = {}
    for name, switches in gpvae.VARIANTS.items():
        torch.manual_seed(0)
        model = AttributeVAE(*switches)
        model.fit_scale(sequences())
        for T in (25, 100):
            x = torch.stack([s[:T] for s in sequences()])
            assert model.decode(model.encode(x)[0]).shape == x.shape
        loss, _ = model.loss(x, seeded())
        loss.backward()
        assert all(p.grad is not None for p in model.parameters()), name
        assert (model.encode(x)[2] is None) == (model.prior(100) is None) == (not model.gp)
        sizes[name] = sum(p.numel() for p in model.parameters())
    assert max(sizes.values()) < 1.3 * min(sizes.values())


def test_attention_weighs_and_knows_lags_alone(vae):
    block, x = vae.encoder.blocks[0], torch.randn(2, 40, 64, generator=seeded())
    weights, values = block.attention(x)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 4, 40))
    assert values.shape == (2, 4, 40, 16)
    same = block.attention(torch.ones(1, 40, 64))[0][0]  # of equal frames only the lag differs
    torch.testing.assert_close(
        same[:, 20, 15:25] / same[:, 20, 20:21], same[:, 18, 13:23] / same[:, 18, 18:19]
    )


def test_a_short_training_lowers_the_loss():
    torch.manual_seed(0)
    model, data = AttributeVAE(), sequences()
    model.fit_scale(data)
    optimiser = torch.optim.Adam(model.parameters(), 2e-3)
    seen = []
    for step in range(60):
        loss, _ = model.loss(torch.stack([s[:50] for s in data]), seeded(step))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        seen.append(loss.item())
    assert sum(seen[-5:]) < 0.5 * sum(seen[:5])


def test_home_is_the_mean_pose_and_open_eyes():
    x = torch.randn(101, 14)
    around, home = gpvae.centred(x)
    torch.testing.assert_close(around + home, x)
    torch.testing.assert_close(around[:, :6].mean(0), torch.zeros(6), atol=1e-5, rtol=0)
    assert ((around[:, 6:] > 0).sum(0) == 50).all()
