"""E_a, eq. 3, the expert, and SyncNet's confidence."""

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss
from sklearn.metrics.pairwise import cosine_similarity

from dfa import sync


def test_contrastive_loss_is_sklearns_log_loss():
    g = torch.Generator().manual_seed(0)
    f_a, f_m = torch.nn.functional.normalize(torch.rand(2, 3, 30, 64, generator=g), dim=-1)
    s = int(torch.randint(2, 20, (), generator=torch.Generator().manual_seed(5)))
    pairs = [
        (f_a, f_m),
        (f_a[:, s:], f_m[:, :-s]),
        (f_a[:, :-s], f_m[:, s:]),
        (f_a, f_m.roll(1, 0)),
    ]
    d = [np.diag(cosine_similarity(a.flatten(0, 1), m.flatten(0, 1))) for a, m in pairs]
    positive = log_loss(np.ones(len(d[0])), d[0], labels=[0, 1])
    d = np.concatenate(d[1:])
    expected = positive + log_loss(np.zeros(len(d)), d, labels=[0, 1])
    assert float(
        sync.contrastive_loss(f_a, f_m, torch.Generator().manual_seed(5))
    ) == pytest.approx(expected, rel=1e-4)


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
