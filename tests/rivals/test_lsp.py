"""LSP's parts against independent solutions, and what it may not look at."""

import numpy as np
import pytest
import torch
from conftest import speaker
from sklearn.manifold import _locally_linear as sklearn_lle
from torch.distributions import Normal

from dfa.evaluation import paper
from dfa.rivals import lsp


def test_manifold_projection_is_scikit_learns():
    rng = np.random.default_rng(0)
    bank, f = rng.standard_normal((40, 6)), rng.standard_normal((5, 6))
    ours = lsp.project_on(torch.from_numpy(bank), torch.from_numpy(f), k=4, reg=1e-3)
    near = np.linalg.norm(f[:, None] - bank, axis=-1).argsort(1)[:, :4]
    weights = sklearn_lle.barycenter_weights(f, bank, near, reg=1e-3)
    np.testing.assert_allclose(ours, (weights[..., None] * bank[near]).sum(1), rtol=1e-6)
    np.testing.assert_allclose(
        lsp.project_on(*map(torch.from_numpy, (bank, bank[:3])), k=1), bank[:3]
    )


def test_gaussian_nll_is_torchs():
    g = torch.Generator().manual_seed(0)
    x, mean, log_sigma = torch.randn(3, 4, 6, generator=g)
    theirs = -Normal(mean, log_sigma.exp()).log_prob(x).mean() - 0.5 * np.log(2 * np.pi)
    torch.testing.assert_close(lsp.gaussian_nll(x, mean, log_sigma), theirs.float())


def test_apc_predicts_what_comes_later_from_what_was():
    torch.manual_seed(0)
    apc, c = lsp.APC(8), torch.randn(1, 40, 20)
    changed = c.clone()
    changed[:, 24:] += 1
    before, after = apc(c), apc(changed)
    torch.testing.assert_close(before[:, :12], after[:, :12])
    assert not torch.equal(before[:, 12:], after[:, 12:])


def test_the_next_pose_depends_on_the_past_alone():
    torch.manual_seed(0)
    net = lsp.HeadNet(10).eval()
    T = lsp.PAST + 6
    x, c = torch.randn(1, T, 12), torch.randn(1, T, 10)
    mean, _ = net(x, c)
    assert mean.shape == (1, 7, 6)
    later = x.clone()
    later[:, lsp.PAST + 2 :] += 1
    other, _ = net(later, c)
    torch.testing.assert_close(mean[:, :3], other[:, :3])
    assert (mean[:, 3:] != other[:, 3:]).any()


def test_slow_pose_is_the_mean_of_the_second_before():
    h = np.random.default_rng(0).standard_normal((60, 6)).astype(np.float32)
    np.testing.assert_allclose(lsp.slow_poses(h)[40], h[16:41].mean(0), atol=1e-5)
    assert lsp.slow_poses(h).shape == h.shape


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    method = lsp.LSP(tmp_path_factory.mktemp("lsp"), 0.005)
    method.fit([speaker(80, 64, 1)], speaker(140, 64))
    return method


def test_lsp_reads_as_in_table_1(fitted):
    assert fitted.aspects() == paper.reported_aspects()["LSP"]
    assert set(fitted.curves) == set(fitted.seconds) == {"sound", "mouth", "head", "painter"}


def test_lsp_looks_at_pose_and_eyes_but_not_at_the_mouth(fitted):
    audio, shown = speaker(seed=1).audio[: 640 * 12], speaker(20, 64, 2)
    frames = np.stack(list(fitted.render(audio, shown, shown)))
    assert frames.shape == (12, 64, 64, 3)
    np.testing.assert_array_equal(frames, np.stack(list(fitted.render(audio, shown, shown))))
    a = shown.attributes
    a.landmarks[:, [*range(17), *range(48, 68)]] += 0.01
    a.points[:, 48:68] += 0.05
    shown.frames[:] = 0
    np.testing.assert_array_equal(frames, np.stack(list(fitted.render(audio, shown, shown))))
    a.landmarks[:, 36:48] += 0.01
    assert (frames != np.stack(list(fitted.render(audio, shown, shown)))).any()


def test_lsp_samples_its_own_motion_within_reach(fitted):
    audio = speaker(50, 64, 3).audio
    h = fitted.sample_head(fitted.audio_features(audio))
    own = fitted.subject.attributes.h
    assert h.shape == (50, 6) and np.isfinite(h).all()
    span = np.ptp(own, 0) + 1e-3
    assert (h > own.min(0) - 2 * span).all() and (h < own.max(0) + 2 * span).all()
    fitted.seed = 5
    assert (fitted.sample_head(fitted.audio_features(audio)) != h).any()
    fitted.seed = 0
