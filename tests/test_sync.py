"""E_a, eq. 3, the expert, and SyncNet's confidence."""

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss
from sklearn.metrics.pairwise import cosine_similarity

from dfa import sync


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


def test_offsets_of_clips():
    v = torch.randn(100, 16)
    d = sync.offset_distances(v, v.roll(4, 0))
    assert sync.offsets(d, 2.0) == [4, 4]
    assert sync.offset_hits(d, 2.0) == [False, False]
    assert sync.offset_hits(sync.offset_distances(v, v.roll(1, 0)), 0.8) == [True] * 5


def test_offset_of_a_shifted_clip_is_found():
    v = torch.randn(80, 16)
    for shift in (-7, 0, 4):
        a = torch.randn(80, 16)
        t = torch.arange(max(0, -shift), min(80, 80 - shift))
        a[t + shift] = v[t]
        d = sync.offset_distances(v, a)
        assert d.shape == (80, 31)
        value, offset = sync.confidence(d)
        assert offset == shift
        assert value > 1


def test_confidence_is_median_minus_minimum():
    v, a = torch.randn(2, 60, 8)
    curve = [
        np.mean([np.linalg.norm(v[t] - a[t + k]) for t in range(60) if 0 <= t + k < 60])
        for k in range(-15, 16)
    ]
    value, offset = sync.confidence(sync.offset_distances(v, a))
    assert value == pytest.approx(float(torch.tensor(curve).median()) - min(curve), rel=1e-4)
    assert offset == int(np.argmin(curve)) - 15


def test_no_face_anywhere_is_no_confidence():
    value, offset = sync.confidence(torch.full((50, 31), float("nan")))
    assert np.isnan(value) and offset == 0


def test_expert_windows_are_aligned():
    expert = sync.SyncExpert().eval()
    mouths, mfcc = torch.rand(12, 48, 64), torch.randn(48, 20)
    with torch.no_grad():
        v, a = expert.video(mouths), expert.audio(mfcc)
        assert v.shape == a.shape == (8, 256)
        mouths[11] += torch.rand(48, 64)
        mfcc[44:] += 1  # video frame 11 of 12: only the last window sees it
        changed_v = (expert.video(mouths) - v).abs().amax(1).nonzero()[:, 0].tolist()
        changed_a = (expert.audio(mfcc) - a).abs().amax(1).nonzero()[:, 0].tolist()
    assert changed_v == changed_a == [7]


def test_mouth_crop_is_upright_whatever_the_head_does():
    """A picture and its copy, turned, scaled and moved, give the same mouth."""
    import cv2

    rng = np.random.default_rng(0)
    picture = cv2.GaussianBlur(rng.integers(0, 255, (256, 256, 3), dtype=np.uint8), (0, 0), 4)
    points = np.zeros((1, 68, 2))
    points[0, 36:42], points[0, 42:48], points[0, 33] = (0.4, 0.4), (0.6, 0.4), (0.5, 0.52)
    matrix = cv2.getRotationMatrix2D((128, 128), 17, 0.9)
    turned = cv2.warpAffine(picture, matrix, (256, 256))
    moved = (np.concatenate([points[0] * 256, np.ones((68, 1))], 1) @ matrix.T / 256)[None]
    a, b = sync.mouth_crops(picture[None], points), sync.mouth_crops(turned[None], moved)
    assert a.shape == (1, 48, 64)
    assert np.corrcoef(a.flatten(), b.flatten())[0, 1] > 0.97
