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
