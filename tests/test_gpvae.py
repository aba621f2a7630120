"""The Transformer GP-VAE: kernel, KL and sampling against independent oracles."""

import math

import pytest
import torch
from sklearn.gaussian_process.kernels import RationalQuadratic
from torch.distributions import MultivariateNormal, kl_divergence

from dfa import gpvae
from dfa.gpvae import CrossModalEncoder, TransformerGPVAE, cauchy_kernel


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def sequences(n: int = 3, T: int = 300) -> list[torch.Tensor]:
    """Smooth motion in six channels; in the other eight a blink every few seconds."""
    out = []
    for k in range(n):
        g = seeded(k)
        t = torch.arange(T) / 25
        phase = 6.3 * torch.rand(6, generator=g)
        pose = 0.1 * torch.sin(2 * math.pi * t[:, None] * torch.linspace(0.1, 0.4, 6) + phase)
        lid = torch.zeros(T)
        for start in range(20 + 7 * k, T - 8, 70):
            lid[start : start + 6] = torch.tensor([0.5, 1, 1, 0.75, 0.5, 0.25])
        eyes = lid[:, None] * torch.linspace(-1, 2, 8)
        out.append(torch.cat([pose, eyes + 0.02 * torch.randn(T, 8, generator=g)], 1))
    return out


@pytest.fixture(scope="module")
def vae():
    torch.manual_seed(0)
    model = TransformerGPVAE()
    model.fit_scale(sequences())
    return model.eval()


@pytest.fixture(scope="module")
def cme(vae):
    torch.manual_seed(1)
    return CrossModalEncoder(vae).eval()


def gaussians(T: int = 9, D: int = 3, B: int = 2):
    g = seeded()
    factor = gpvae.posterior_factor(
        torch.randn(B, T, D, generator=g).double(), torch.randn(B, T, D, generator=g).double()
    )
    prior = torch.linalg.cholesky(torch.stack([cauchy_kernel(T, ell) for ell in (2.0, 5.0, 20.0)]))
    return torch.randn(B, T, D, generator=g).double(), factor, prior


@pytest.mark.parametrize("ell", [2.0, 16.0, 60.0])
def test_cauchy_is_scikit_learns_rational_quadratic(ell):
    oracle = RationalQuadratic(length_scale=ell / math.sqrt(2), alpha=1.0)
    t = torch.arange(40.0)[:, None]
    expected = torch.from_numpy(1.7 * oracle(t.numpy())).double()
    torch.testing.assert_close(cauchy_kernel(40, ell, 1.7, jitter=0.0), expected, atol=1e-6, rtol=0)


def test_posterior_precision_is_tridiagonal():
    _, factor, _ = gaussians()
    precision = torch.linalg.inv(factor @ factor.mT)
    assert precision.triu(2).abs().max() < 1e-8 * precision.abs().max()


def test_kl_is_torchs():
    mean, factor, prior = gaussians()
    mean_p = torch.randn(mean.shape, generator=seeded(5)).double()
    scale = torch.rand(mean.shape, generator=seeded(6)).double() + 0.5
    for kl, centre, spread in (
        (gpvae.gaussian_kl(mean, factor, prior), torch.zeros_like(mean), torch.ones_like(mean)),
        (gpvae.gaussian_kl(mean, factor, prior, mean_p, scale), mean_p, scale),
    ):
        for b in range(2):
            for d in range(3):
                q = MultivariateNormal(mean[b, :, d], scale_tril=factor[b, d])
                L = spread[b, :, d, None] * prior[d]
                p = MultivariateNormal(centre[b, :, d], scale_tril=L)
                torch.testing.assert_close(kl[b, d], kl_divergence(q, p), rtol=1e-8, atol=1e-8)


def test_samples_have_the_covariance_they_should():
    """20,000 draws: an entry's standard error is at most sqrt(2 / 20000) of the variances."""
    n, T = 20_000, 9
    mean, factor, prior = gaussians(T)
    for L in (factor[0].float(), prior.float()):
        z = gpvae.gaussian_sample(torch.zeros(n, T, 3), L, seeded(2))
        for d in range(3):
            K = L[d] @ L[d].T
            spread = K.diagonal().sqrt()
            error = (torch.cov(z[..., d].T) - K) / (spread[:, None] * spread)
            assert error.abs().max() < 5 * math.sqrt(2 / n)


def test_rate_of_zero_crossings_is_rices():
    """Dimension 0 has its length scale from the blink rate: its crossings must come as often."""
    rate, T = 0.35, 1500
    ell = 25 / (math.sqrt(2) * math.pi * rate)
    L = torch.linalg.cholesky(cauchy_kernel(T, ell, jitter=1e-6)).float()
    z = gpvae.gaussian_sample(torch.zeros(100, T, 1), L[None], seeded(3))[..., 0]
    crossings = ((z[:, 1:] > 0) & (z[:, :-1] <= 0)).sum() / z.numel() * 25
    assert float(crossings) == pytest.approx(rate, rel=0.08)


def test_fit_scale_finds_the_blinks(vae):
    x = sequences()[0]
    shut = vae.shut(x[None])[0]
    assert int((shut.diff() > 0).sum()) == 4
    blinks = sum(int((vae.shut(s[None])[0].diff() > 0).sum()) for s in sequences())
    assert float(vae.length_scales[0]) == pytest.approx(900 / blinks / math.sqrt(2) / math.pi)


def test_any_length_and_gradients_reach_mean_and_covariance(vae):
    for T in (25, 60, 100):
        x = torch.stack([s[:T] for s in sequences()])
        mean, factor = vae.encode(x)
        assert vae.decode(mean).shape == x.shape
        assert factor.shape == (3, 10, T, T)
    vae.zero_grad()
    loss, parts = vae.loss(x, seeded())
    loss.backward()
    grad = vae.encoder.head.weight.grad
    assert (grad.view(3, 10, -1).abs().amax((1, 2)) > 0).all()  # mean, sigma, phi
    assert set(parts) == {"rec", "kl"} and parts["kl"] > 0


def test_a_short_training_lowers_the_loss():
    torch.manual_seed(0)
    model, data = TransformerGPVAE(), sequences()
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


def test_generation_of_any_length_is_repeatable_and_joins_without_a_step(vae, cme):
    bop, f_a = sequences()[0][:25], torch.rand(230, 64)
    for n, sound in ((230, f_a), (40, f_a[:40]), (310, None)):
        a, b = (gpvae.generate(vae, cme, bop, sound, n, seeded(7)) for _ in range(2))
        assert a.shape == (n, 14) and torch.equal(a, b)
        step = (torch.cat([bop[-1:], a]).diff(dim=0) / vae.std)[:, :6].abs().amax(1)
        joints = torch.arange(0, n, 75)
        inside = torch.ones(n, dtype=torch.bool)
        inside[joints] = False
        assert step[joints].max() <= 1.5 * step[inside].max()
    other = gpvae.generate(vae, cme, bop, f_a, 230, seeded(8))
    assert not torch.allclose(a[:230], other)


def test_cross_modal_loss_and_the_gaussian_conditional(vae, cme):
    x = torch.stack([s[:100] for s in sequences()])
    cme.zero_grad()
    loss, _ = cme.loss(vae, x, torch.rand(3, 100, 64), 25, seeded())
    loss.backward()
    assert all(p.grad is not None for p in cme.parameters())
    with torch.no_grad():
        W, L = cme.conditional(vae, 60, 25)
    K = cauchy_kernel(60, float(vae.length_scales[3]), 1 - gpvae.JITTER)
    joint = K.clone()
    joint[:25, :25] += 0.02 * torch.eye(25)
    expected = torch.linalg.solve(joint[:25, :25], K[:25]).T
    torch.testing.assert_close(W[3].double(), expected, atol=1e-4, rtol=1e-3)
    covariance = (L[3] @ L[3].T).double()
    torch.testing.assert_close(covariance, K - expected @ K[:25], atol=1e-4, rtol=1e-3)
