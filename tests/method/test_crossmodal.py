"""The cross-modal encoder and generation: conditionals, scores, joints, errors."""

import pytest
import torch
from conftest import seeded, sequences

from dfa.media import InputError
from dfa.method import crossmodal, gpvae
from dfa.method.crossmodal import BOP, CrossModalEncoder
from dfa.method.gpvae import WINDOW, AttributeVAE, cauchy_kernel


def made(variant: str) -> tuple[AttributeVAE, CrossModalEncoder]:
    torch.manual_seed(0)
    vae = AttributeVAE(*gpvae.VARIANTS[variant])
    vae.fit_scale(sequences())
    return vae.eval(), CrossModalEncoder(vae).eval()


@pytest.fixture(scope="module", params=gpvae.VARIANTS)
def models(request):
    return made(request.param)


@pytest.fixture(scope="module")
def ours():
    return made("Trans GP-VAE")


def test_generation_of_any_length_is_repeatable_and_joins_without_a_step(models):
    vae, cme = models
    bop, f_a = sequences()[0][:25], torch.rand(230, 64)
    for n, sound in ((230, f_a), (40, f_a[:40]), (310, None)):
        a, b = (crossmodal.generate(vae, cme, bop, sound, n, seeded(7)) for _ in range(2))
        assert a.shape == (n, 14) and torch.equal(a, b)
        step = (torch.cat([bop[-1:], a]).diff(dim=0) / vae.std)[:, :6].abs().amax(1)
        joints = torch.arange(0, n, WINDOW - BOP)
        inside = torch.ones(n, dtype=torch.bool)
        inside[joints] = False
        assert step[joints].max() <= 1.5 * step[inside].max()
    other = crossmodal.generate(vae, cme, bop, f_a, 230, seeded(8))
    assert not torch.allclose(a[:230], other)


def test_longer_is_the_same_beginning(ours):
    """The windows of a long sequence but its last are those of a shorter one."""
    bop = sequences()[0]
    long, short = (crossmodal.generate(*ours, bop, None, n, seeded(1)) for n in (400, 200))
    assert torch.equal(long[:150], short[:150])


def test_predictions_are_what_generation_draws(models):
    """`predict` and the first window of `generate`, with the same noise."""
    vae, cme = models
    bop, f_a = sequences()[0][:BOP], torch.rand(WINDOW, 64)
    _, draws = crossmodal.predict(vae, cme, bop[None], f_a[None], 1, seeded(4))
    first = crossmodal.generate(vae, cme, bop, f_a[BOP:], 75, seeded(4))
    torch.testing.assert_close(draws[0, 0], first, atol=1e-5, rtol=1e-4)
    mean, draws = crossmodal.predict(vae, cme, bop[None], f_a[None], 20, seeded(5))
    assert mean.shape == (1, 75, 14) and draws.shape == (20, 1, 75, 14)
    assert (draws.std(0)[..., :6] > 0).all()
    same, _ = crossmodal.predict(vae, cme, bop[None], f_a[None], 2, seeded(6))
    torch.testing.assert_close(mean, same)  # no draw has part in it


def test_the_gaussian_conditional(ours):
    vae, cme = ours
    with torch.no_grad():
        W, L = cme.conditional(60, 25)
    K = cauchy_kernel(60, float(vae.length_scales[3]), 1 - gpvae.JITTER)
    joint = K.clone()
    joint[:25, :25] += crossmodal.UNSURE * torch.eye(25)
    expected = torch.linalg.solve(joint[:25, :25], K[:25]).T
    torch.testing.assert_close(W[3].double(), expected, atol=1e-4, rtol=1e-3)
    covariance = (L[3] @ L[3].T).double()
    torch.testing.assert_close(covariance, K - expected @ K[:25], atol=1e-4, rtol=1e-3)


def test_the_loss_reaches_everything_and_scores_a_distribution(models):
    vae, cme = models
    x = torch.stack([s[:WINDOW] for s in sequences()])
    cme.zero_grad()
    loss, parts = cme.loss(vae, x, torch.rand(3, WINDOW, 64), BOP, seeded())
    loss.backward()
    unused = {"log_scales", "log_variances"} if not vae.gp else set()
    assert {n for n, p in cme.named_parameters() if p.grad is None} == unused
    assert set(parts) == {"crps", "kl"}
    silent, _ = cme.loss(vae, x, None, BOP, seeded())
    assert torch.isfinite(silent)


def test_the_score_of_two_draws_is_the_fair_crps(ours):
    """For two draws the fair estimator is mean |x_i - y| - ½ |x_1 - x_2|: `motion.crps` says so."""
    from dfa.evaluation.motion import crps

    vae, cme = ours
    x = torch.stack([s[:WINDOW] for s in sequences()])
    _, parts = cme.loss(vae, x, None, BOP, seeded(2))
    g = seeded(2)
    torch.rand(3, generator=g)
    with torch.no_grad():
        f_h = vae.encode(x[:, :BOP])[0]
        mean, s, _ = cme(vae, f_h, None, WINDOW)
        L = cme.conditional(WINDOW, BOP, jitter=crossmodal.SMOOTH)[1]
        eps = torch.randn(2, 3, WINDOW, 10, generator=g)
        z = mean + s * torch.einsum("dts,nbsd->nbtd", L, eps)
        draws = torch.stack([vae.decode(z[i]) for i in range(2)])[..., :6]
    total = 0.0
    for order, unit, weight in ((0, vae.std, 1.0), (1, vae.std_velocity, 0.25)):
        a, y = (w.diff(n=order, dim=-2)[..., -75:, :] / unit[:6] for w in (draws, x[..., :6]))
        total += weight * crps(a.numpy(), y.numpy()).mean()
    assert parts["crps"] == pytest.approx(total, rel=1e-4)


def test_blinks_are_the_persons(ours):
    """Somebody with many frames keeps their own rate, somebody with few mostly the corpus's."""
    vae, cme = ours
    xs = sequences()
    usual = gpvae.rice_length(1.0) / float(vae.length_scales[0])
    often = [torch.cat([s[s.shape[0] // 2 - 60 :] for s in xs] * 20)]
    rate = vae.blinks(often) / len(often[0])
    for some, expected in ((often, rate), ([xs[0][:30]], usual)):
        cme.count_blinks(vae, some)
        assert gpvae.rice_length(1.0) / float(cme.blink_length) == pytest.approx(expected, rel=0.2)


def test_too_short_a_beginning_or_sound_is_one_line(ours):
    bop = sequences()[0]
    for call in (
        lambda: crossmodal.generate(*ours, bop[:24], None, 50, seeded()),
        lambda: crossmodal.predict(*ours, bop[None, :24], None, 2, seeded()),
    ):
        with pytest.raises(InputError, match="24 frames is too short: give 25"):
            call()
    with pytest.raises(InputError, match="sound has 30 frames, too few for 50"):
        crossmodal.generate(*ours, bop, torch.rand(30, 64), 50, seeded())


def test_poses_stay_within_a_persons_reach():
    own = torch.linspace(-1, 1, 201)[:, None].expand(-1, 6)  # 1 % to 99 %: -0.98 to 0.98
    h = torch.linspace(-3, 3, 601)[:, None].expand(-1, 6)
    near = crossmodal.limit_poses(h, own)
    inside = h.abs() <= 0.98
    torch.testing.assert_close(near[inside], h[inside])
    assert near.abs().max() <= 0.98 + 0.2 * 1.96 + 1e-5
    assert (near.diff(dim=0) >= 0).all() and (near.diff(dim=0) <= 0.0101).all()  # no step, no turn
