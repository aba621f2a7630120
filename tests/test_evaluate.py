"""The metrics against independent implementations."""

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from dfa import evaluate


def pictures(n: int = 3, size: int = 48):
    rng = np.random.default_rng(0)
    a = rng.integers(0, 256, (n, size, size, 3), dtype=np.uint8)
    noise = rng.normal(0, 12, a.shape)
    return a, np.clip(a + noise, 0, 255).astype(np.uint8)


def test_psnr_and_ssim_are_scikit_images():
    a, b = pictures()
    for ours, x, y in zip(evaluate.psnr(b, a), a, b, strict=True):
        assert ours == pytest.approx(peak_signal_noise_ratio(x, y), rel=1e-4)
    theirs = [
        structural_similarity(
            x, y, channel_axis=-1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        )
        for x, y in zip(a, b, strict=True)
    ]
    np.testing.assert_allclose(evaluate.ssim(b, a), theirs, atol=5e-3)
    np.testing.assert_allclose(evaluate.ssim(a, a), 1, atol=1e-6)


def test_lmd_ignores_where_the_head_is_and_counts_pixels_of_256():
    rng = np.random.default_rng(0)
    points = rng.random((5, 68, 2))
    np.testing.assert_allclose(evaluate.lmd(points + [0.1, -0.2], points), 0, atol=1e-9)
    opened = points.copy()
    opened[:, 48:58, 1] += 0.01  # ten points down by 2.56 pixels: half of that after centring
    np.testing.assert_allclose(evaluate.lmd(opened, points), 1.28, rtol=1e-6)
    opened[2] = np.nan
    assert np.isnan(evaluate.lmd(opened, points)[2])


def test_blinks_are_counted_once():
    ear = np.full(250, 0.3)
    for onset in (20, 90, 200):
        ear[onset : onset + 5] = [0.2, 0.08, 0.07, 0.1, 0.2]
    ear[92] = 0.25  # a flutter within one blink
    threshold = evaluate.blink_threshold(ear)
    assert 0.08 < threshold < 0.25
    assert len(evaluate.blink_onsets(ear, threshold)) == 3
    still = 0.3 + 0.003 * np.random.default_rng(0).normal(size=250)
    assert len(evaluate.blink_onsets(still, evaluate.blink_threshold(still))) == 0


def test_interval_covers_the_mean_about_95_times_in_100():
    rng, hits = np.random.default_rng(0), 0
    for k in range(200):
        value, low, high = evaluate.interval(rng.normal(3, 1, 40), seed=k, n=400)
        assert low <= value <= high
        hits += low <= 3 <= high
    assert 0.88 <= hits / 200 <= 0.99


def tracked_truth(T: int = 750):
    """A truth of T frames, and readings that are wrong by what is known."""
    rng = np.random.default_rng(0)
    h = np.cumsum(rng.normal(0, 0.003, (T, 6)), 0)
    blink = np.zeros(T)
    for onset, depth in ((50, 1), (150, 1), (300, 0.5), (500, 1), (600, 1)):
        blink[onset : onset + 6] = depth
    jaw = np.clip(np.sin(np.arange(T) / 7), 0, 1)
    truth = dict(h=h, blink=blink, actions=jaw[:, None], action_names=np.array(["jawOpen"]))
    return truth, h, jaw, 0.3 * (1 - 0.7 * blink)


def test_perfect_tracking_has_no_error_and_a_constant_is_none():
    truth, h, jaw, ear = tracked_truth()
    rows = evaluate.tracking_errors(h + [0.1, 0, -0.05, 0.01, 0, 0.2], 3 * jaw, ear, truth)
    value = rows.set_index("metric").value
    for metric in ("pitch_deg", "yaw_deg", "roll_deg", "translation_mm", "jitter_deg"):
        assert value[metric] == pytest.approx(0, abs=1e-9)
    assert value[["mouth_corr", "blink_recall", "blink_precision"]].to_numpy() == pytest.approx(1)


def test_tracking_errors_are_counted_in_degrees_millimetres_and_blinks():
    truth, h, jaw, ear = tracked_truth()
    away = np.where(np.arange(len(h)) % 2, 1.0, -1.0)[:, None]  # to and fro, its median about 0
    off = away * np.r_[np.radians([1, 2, 3]), 0.001, 0.002, 0.003]
    ear[148:160] = 0.3  # one of four full blinks is missed,
    ear[400:406] = 0.08  # and one is seen that was not there
    rows = evaluate.tracking_errors(h + off, jaw, ear, truth)
    value, n = rows.set_index("metric").value, rows.set_index("metric").n
    found = value[["pitch_deg", "yaw_deg", "roll_deg", "rotation_deg", "translation_mm"]]
    assert found.to_numpy() == pytest.approx([1, 2, 3, 2, 2], rel=0.01)
    assert value["jitter_deg"] == pytest.approx(2 * np.sqrt((1 + 4 + 9) / 3), rel=0.01)
    assert (value["blink_recall"], n["blink_recall"]) == (0.75, 4)
    assert n["blink_precision"] in (4, 5)  # the half blink may count, and may not be missed
    assert value["blink_precision"] == pytest.approx(1 - 1 / n["blink_precision"])
    assert (rows.ci_low <= rows.value).all() and (rows.value <= rows.ci_high).all()
