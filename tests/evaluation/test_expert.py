"""The judge of Sync, and SyncNet's confidence."""

import numpy as np
import pytest
import torch

from dfa.evaluation import expert


def test_offsets_of_clips():
    v = torch.randn(100, 16)
    d = expert.offset_distances(v, v.roll(4, 0))
    assert expert.offsets(d, 2.0) == [4, 4]
    assert expert.offset_hits(d, 2.0) == [False, False]
    assert expert.offset_hits(expert.offset_distances(v, v.roll(1, 0)), 0.8) == [True] * 5


def test_offset_of_a_shifted_clip_is_found():
    v = torch.randn(80, 16)
    for shift in (-7, 0, 4):
        a = torch.randn(80, 16)
        t = torch.arange(max(0, -shift), min(80, 80 - shift))
        a[t + shift] = v[t]
        d = expert.offset_distances(v, a)
        assert d.shape == (80, 31)
        value, offset = expert.confidence(d)
        assert offset == shift
        assert value > 1


def test_confidence_is_median_minus_minimum():
    v, a = torch.randn(2, 60, 8)
    curve = [
        np.mean([np.linalg.norm(v[t] - a[t + k]) for t in range(60) if 0 <= t + k < 60])
        for k in range(-15, 16)
    ]
    value, offset = expert.confidence(expert.offset_distances(v, a))
    assert value == pytest.approx(float(torch.tensor(curve).median()) - min(curve), rel=1e-4)
    assert offset == int(np.argmin(curve)) - 15


def test_no_face_anywhere_is_no_confidence():
    value, offset = expert.confidence(torch.full((50, 31), float("nan")))
    assert np.isnan(value) and offset == 0


def test_expert_windows_are_aligned():
    judge = expert.SyncExpert().eval()
    mouths, mfcc = torch.rand(12, 48, 64), torch.randn(48, 20)
    with torch.no_grad():
        v, a = judge.video(mouths), judge.audio(mfcc)
        assert v.shape == a.shape == (8, 256)
        mouths[11] += torch.rand(48, 64)
        mfcc[44:] += 1  # video frame 11 of 12: only the last window sees it
        changed_v = (judge.video(mouths) - v).abs().amax(1).nonzero()[:, 0].tolist()
        changed_a = (judge.audio(mfcc) - a).abs().amax(1).nonzero()[:, 0].tolist()
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
    a, b = expert.mouth_crops(picture[None], points), expert.mouth_crops(turned[None], moved)
    assert a.shape == (1, 48, 64)
    assert np.corrcoef(a.flatten(), b.flatten())[0, 1] > 0.97


def test_video_confidence_wants_one_offset_of_the_whole_video():
    distances = torch.full((300, 31), 10.0)
    distances[:, 15] = 4
    value, low, high = expert.video_confidence(distances)
    assert (value, low, high) == pytest.approx((6, 6, 6))
    distances[150:] = distances[150:].roll(4, 1)  # half of it elsewhere: 6 in each clip,
    value, low, high = expert.video_confidence(distances)
    assert value == pytest.approx(3) and 0 <= low < value < high <= 6  # and 3 in all
    assert np.isnan(expert.video_confidence(torch.full((60, 31), torch.nan))).all()
