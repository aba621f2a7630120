"""E_a and eq. 3, against scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss
from sklearn.metrics.pairwise import cosine_similarity

from dfa.method import sync
from dfa.method.sync import SyncModel


@pytest.fixture(scope="module")
def aligned():
    """Three aligned clips of non-negative unit vectors, (3, 30, 64) each."""
    g = torch.Generator().manual_seed(0)
    return torch.nn.functional.normalize(torch.rand(2, 3, 30, 64, generator=g), dim=-1)


def cosines(f_a, f_m):
    """By hand: of aligned pairs, and of negatives, each of a clip with a shift or another clip."""
    d = np.stack([[cosine_similarity(a, m) for m in f_m] for a in f_a])  # clip, clip, time, time
    t = range(30)
    positive = [d[b, b, i, i] for b in range(3) for i in t]
    negative = [d[b, b, i, k] for b in range(3) for i in t for k in t if 2 <= abs(i - k) <= 19]
    negative += [d[b, b - 1, i, i] for b in range(3) for i in t]
    return np.array(positive), np.array(negative)


def cross_entropy(positive, negative):
    return log_loss(np.ones(len(positive)), positive, labels=[0, 1]) + log_loss(
        np.zeros(len(negative)), negative, labels=[0, 1]
    )


def test_contrastive_loss_is_sklearns_log_loss(aligned):
    expected = cross_entropy(*cosines(*aligned))
    assert float(sync.contrastive_loss(*aligned)) == pytest.approx(expected, rel=1e-4)


def test_mismatch_is_the_log_loss_of_a_pair(aligned):
    f_a, f_m = (x[0] for x in aligned)
    d = np.diag(cosine_similarity(f_m, f_a))
    found = sync.SyncModel().mismatch(f_m, f_a)
    np.testing.assert_allclose(found, -np.log(d + sync.OUTLIERS), rtol=1e-4)
    model = sync.SyncModel("sigmoid")
    scale, bias = model.scale_bias.tolist()
    chance = 1 / (1 + np.exp(-(np.exp(scale) * d + bias)))
    expected = [log_loss([1], [p], labels=[0, 1]) for p in chance]
    np.testing.assert_allclose(model.mismatch(f_m, f_a).detach(), expected, rtol=1e-4)
    model = sync.SyncModel("infonce")
    expected = torch.nn.functional.cross_entropy(  # moment 0 of f_m among all moments of f_a
        model.scale_bias[0].exp() * f_m[:1] @ f_a.mT, torch.tensor([0])
    )
    all_moments = model.mismatch(f_m[:1].expand_as(f_a), f_a)
    torch.testing.assert_close(all_moments[0] + (-all_moments).logsumexp(0), expected)


def test_the_hardest_negatives_are_the_most_alike(aligned):
    positive, negative = cosines(*aligned)
    hardest = np.sort(negative)[-len(negative) // 10 :][-int(0.1 * len(negative)) :]
    loss = sync.contrastive_loss(*aligned, hardest=0.1)
    assert float(loss) == pytest.approx(cross_entropy(positive, hardest), rel=1e-4)


def test_sigmoid_loss_is_sklearns_log_loss_of_scaled_cosines(aligned):
    model = sync.SyncModel("sigmoid")
    log_scale, bias = model.scale_bias.tolist()
    scale = np.exp(log_scale)
    positive, negative = (1 / (1 + np.exp(-scale * d - bias)) for d in cosines(*aligned))
    expected = cross_entropy(positive, negative)
    assert float(model.loss(*aligned).detach()) == pytest.approx(expected, rel=1e-3)


def test_infonce_picks_the_moment_out_of_its_clip_and_the_next():
    """Sound and mouth alike at one moment only: the likelier it is picked, the smaller the loss."""
    model, once = sync.SyncModel("infonce"), torch.eye(64)[:60].view(2, 30, 64)
    scale = np.exp(model.scale_bias[0].item())
    expected = 2 * -np.log(np.exp(scale) / (np.exp(scale) + 59))
    assert float(model.loss(once, once).detach()) == pytest.approx(expected, rel=1e-4)
    assert model.loss(once, once.roll(3, 1)) > model.loss(once, once)


def test_a_mouth_that_stands_open_says_the_same():
    """The mean of a clip is nothing one can hear, and so falls out."""
    model = sync.SyncModel().eval()
    f_m = torch.randn(1, 40, 32)
    with torch.no_grad():
        torch.testing.assert_close(model.mouth(f_m + 3.0), model.mouth(f_m), atol=1e-4, rtol=1e-3)


def test_features_are_non_negative_unit_vectors_and_local_in_time():
    model = sync.SyncModel().eval()
    mfcc = torch.randn(1, 200, 20)
    with torch.no_grad():
        f_a = model.audio(mfcc)
        assert f_a.shape == (1, 50, 64)
        assert (f_a >= 0).all()
        torch.testing.assert_close(f_a.norm(dim=-1), torch.ones(1, 50))
        changed = mfcc.clone()
        changed[:, 100:104] += 1  # video frame 25
        reach = (model.audio(changed) - f_a).abs().amax(-1)[0].nonzero()[:, 0]
    assert 20 <= reach.min() and reach.max() <= 30


def test_what_ends_in_silence_stays_silent():
    """f_a does not depend on where the file ends: silence goes on, and so does a vowel."""
    torch.manual_seed(0)
    model = SyncModel().eval()
    c = torch.randn(200, 20, generator=torch.Generator().manual_seed(0))
    c[160:], c[:40] = c[160].clone(), c[0].clone()  # constant at both ends
    with torch.no_grad():
        whole, start, end = model.listen(c), model.listen(c[:180]), model.listen(c[20:])
    assert whole.shape == (50, 64)
    torch.testing.assert_close(start, whole[:45])
    torch.testing.assert_close(end, whole[5:])
    with torch.no_grad():
        inside = model.audio(c[None])[0]
    torch.testing.assert_close(whole[4:-4], inside[4:-4])


def test_augmentation_is_noise_gaps_and_drift():
    g = torch.Generator().manual_seed(0)
    c, f_m = torch.ones(200, 80, 20), torch.randn(200, 20, 32, generator=g)
    sound, mouth = sync.augment(c, f_m, g)
    gap = (sound == 0).all(-1)  # (B, 4T)
    assert 0.02 < gap.float().mean() < 0.12 and gap.sum(1).max() <= 11
    noise = (sound - c)[~gap].std()
    assert 0.08 < noise < 0.16  # 0.2 times a uniform number: 0.115
    assert 0.05 < (mouth - f_m).std() / f_m.std() < 0.4
    slow = (mouth - f_m).mean(1).std() * 20**0.5 / (mouth - f_m).std()
    assert slow > 1.3  # white noise alone: 1


def test_training_hears_the_sound_of_the_frames_it_sees(monkeypatch, tmp_path):
    """Frame t says t, and so do its four MFCC vectors; each subject has its own sign."""
    count = torch.arange(60.0)
    f_m = [sign * count[:, None].expand(-1, 32) for sign in (1, -1)]
    sounds = [m[:, :20].repeat_interleave(4, 0) for m in f_m]
    seen = []
    monkeypatch.setattr(sync, "augment", lambda a, m, g: (seen.append((a, m)), (a, m))[1])
    recipe = sync.SyncRecipe(1, batch=8, window=20)
    model, _ = sync.train_sync(f_m, sounds, recipe, tmp_path / "sync.safetensors", 0)
    ((a, m),) = seen
    assert torch.equal(a[:, ::4], m[..., :20]) and torch.equal(a[:, 3::4], m[..., :20])
    assert len({float(x[0, 0]) for x in m}) > 4  # other cuts
    torch.testing.assert_close(model.f_m_std, torch.cat(f_m).std(0))
