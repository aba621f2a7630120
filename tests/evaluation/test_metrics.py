"""The metrics against independent implementations."""

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from dfa.evaluation import metrics, statistics


def pictures(n: int = 3, size: int = 48):
    rng = np.random.default_rng(0)
    a = rng.integers(0, 256, (n, size, size, 3), dtype=np.uint8)
    noise = rng.normal(0, 12, a.shape)
    return a, np.clip(a + noise, 0, 255).astype(np.uint8)


def test_psnr_and_ssim_are_scikit_images():
    a, b = pictures()
    for ours, x, y in zip(metrics.psnr(b, a), a, b, strict=True):
        assert ours == pytest.approx(peak_signal_noise_ratio(x, y), rel=1e-4)
    theirs = [
        structural_similarity(
            x, y, channel_axis=-1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        )
        for x, y in zip(a, b, strict=True)
    ]
    np.testing.assert_allclose(metrics.ssim(b, a), theirs, atol=5e-3)
    np.testing.assert_allclose(metrics.ssim(a, a), 1, atol=1e-6)


def test_lmd_ignores_where_the_head_is_and_counts_pixels_of_256():
    rng = np.random.default_rng(0)
    points = rng.random((5, 68, 2))
    np.testing.assert_allclose(metrics.lmd(points + [0.1, -0.2], points), 0, atol=1e-9)
    opened = points.copy()
    opened[:, 48:58, 1] += 0.01  # ten points down by 2.56 pixels: half of that after centring
    np.testing.assert_allclose(metrics.lmd(opened, points), 1.28, rtol=1e-6)
    opened[2] = np.nan
    assert np.isnan(metrics.lmd(opened, points)[2])


def speaking(opening: np.ndarray) -> np.ndarray:
    """(T, 68, 2): a face whose eyes are 0.2 apart and whose inner lips open by so much of that."""
    points = np.random.default_rng(0).random((1, 68, 2)).repeat(len(opening), 0)
    points[:, 36:42], points[:, 42:48] = [0.4, 0.4], [0.6, 0.4]
    for k, (above, below) in enumerate(((61, 67), (62, 66), (63, 65))):
        points[:, above] = points[:, below] = [0.45 + 0.05 * k, 0.6]
        points[:, below, 1] += 0.2 * opening
    return points


def test_mouth_opening_is_a_share_of_the_eyes_distance():
    opening = 0.2 + 0.1 * np.sin(np.arange(60) / 4)
    points = speaking(opening)
    np.testing.assert_allclose(metrics.mouth_opening(points), opening)
    deep = np.concatenate([points, np.full((60, 68, 1), 3.0)], -1)
    np.testing.assert_allclose(metrics.mouth_opening(7 * deep + 1), opening)
    points[5] = np.nan
    assert np.flatnonzero(np.isnan(metrics.mouth_opening(points))).tolist() == [5]
    assert np.isnan(metrics.mouth_opening(np.full((4, 68, 2), np.nan))).all()


def test_lip_motion_compares_openings():
    real = 0.2 + 0.1 * np.sin(np.arange(100) / 4)
    quiet = np.arange(100) < 20
    made = speaking(0.05 + 0.6 * real)
    made[3] = np.nan  # an untracked frame counts nowhere
    found = metrics.lip_motion(made, speaking(real), quiet, ~quiet)
    assert found["opening_corr"] == pytest.approx(1)
    assert found["opening_slope"] == pytest.approx(0.6)
    assert found["silent_opening_real"] == pytest.approx(real[:20].mean())
    expected = np.delete(0.05 + 0.6 * real[:20], 3).mean()
    assert found["silent_opening"] == pytest.approx(expected)


def test_jitter_is_the_noise_of_the_mouth_and_not_the_heads_way():
    rng, T, sigma = np.random.default_rng(0), 4000, 0.5
    still = speaking(np.full(T, 0.1))
    quiet, vowel = np.arange(T) < T // 2, np.arange(T) >= T // 2
    made = still + rng.normal(0, 0.01, (T, 1, 2))  # the whole head shakes
    made[quiet] += rng.normal(0, sigma / 256, (T // 2, 68, 2))
    found = metrics.lip_motion(made, still, quiet, vowel)
    # white noise: variance 1 + 4 + 1, of which the centroid of 20 takes a twentieth
    assert found["jitter_silence"] == pytest.approx(sigma * np.sqrt(6 * 19 / 20), rel=0.02)
    for name in ("jitter_vowel", "jitter_silence_real", "jitter_vowel_real"):
        assert found[name] == pytest.approx(0, abs=1e-9)
    # a sinusoid of the lip: 2 (1 - cos w) of its amplitude
    w, T = 0.9, 1000
    lips = speaking(0.3 + 0.1 * np.sin(w * np.arange(T)))
    rms = 256 * 0.2 * 0.1 * 2 * (1 - np.cos(w)) / np.sqrt(2)
    rms *= np.sqrt((3 / 20 - (3 / 20) ** 2) / 2)  # three of twenty points, one of two coordinates
    everywhere = np.ones(T, bool)
    found = metrics.lip_motion(lips, lips, everywhere, ~everywhere)
    assert found["jitter_silence"] == pytest.approx(rms, rel=0.01)
    assert np.isnan(found["jitter_vowel"]) and np.isnan(found["jitter_vowel_real"])


def test_lip_motion_is_nan_where_there_is_nothing():
    mouth = speaking(np.full(10, 0.1))
    alternate = np.arange(10) % 2 == 0  # no three frames in a row
    found = metrics.lip_motion(np.full_like(mouth, np.nan), mouth, alternate, np.zeros(10, bool))
    assert found.pop("silent_opening_real") == pytest.approx(0.1)
    assert len(found) == 7 and np.isnan(list(found.values())).all()
    opens = speaking(np.linspace(0, 0.2, 10))
    frozen = metrics.lip_motion(mouth, opens, alternate, alternate)
    assert np.isnan(frozen["opening_corr"])
    assert frozen["opening_slope"] == pytest.approx(0, abs=1e-9)


def test_regions_are_scored_within_their_boxes():
    """Against scikit-image's map and plain means; eyes above the mouth above the neck."""
    a, b = pictures(2, 64)
    rng = np.random.default_rng(1)
    points = rng.uniform(0.3, 0.7, (2, 68, 2))
    points[:, 36:48] = rng.uniform((0.3, 0.3), (0.7, 0.38), (2, 12, 2))
    points[:, 48:68] = rng.uniform((0.4, 0.6), (0.6, 0.66), (2, 20, 2))
    points[:, 33], points[:, 8] = (0.5, 0.5), (0.5, 0.7)
    points[:, 4], points[:, 12] = (0.3, 0.6), (0.7, 0.6)
    boxes, found = metrics.region_boxes(points, 64), metrics.by_region(b, a, points)
    assert tuple(found) == ("whole", "mouth", "eyes", "neck")
    np.testing.assert_array_equal(boxes["neck"][0], np.round(np.array([0.3, 0.7, 0.7, 0.9]) * 64))
    assert (boxes["eyes"][:, 3] < boxes["mouth"][:, 1]).all()
    for name, at in boxes.items():
        for t, (x0, y0, x1, y1) in enumerate(at):
            mse = ((a[t] / 255.0 - b[t] / 255.0) ** 2)[y0:y1, x0:x1].mean()
            assert found[name]["psnr"][t] == pytest.approx(-10 * np.log10(mse), rel=1e-4)
            _, likeness = structural_similarity(
                a[t], b[t], channel_axis=-1, gaussian_weights=True, sigma=1.5,
                use_sample_covariance=False, full=True,
            )  # fmt: skip
            expected = likeness[y0:y1, x0:x1].mean()
            assert found[name]["ssim"][t] == pytest.approx(expected, abs=0.01)
    np.testing.assert_array_equal(found["whole"]["ssim"], metrics.ssim(b, a))
    row = statistics.over_clips(np.arange(260.0))
    assert row["n"] == 2 and row["value"] == pytest.approx(124.5)
    assert row["ci_low"] <= row["value"] <= row["ci_high"]


def test_seam_is_the_step_across_the_jaw():
    """Half an ellipse of jaw; skin that is 30 grey levels lighter than the real one within it."""
    size, points = 256, np.zeros((1, 68, 2))
    angle = np.linspace(0, np.pi, 17)
    points[0, :17] = np.stack([0.5 - 0.2 * np.cos(angle), 0.5 + 0.25 * np.sin(angle)], 1)
    points[0, 33] = [0.5, 0.5]
    v, u = np.mgrid[:size, :size] / size
    inside = ((u - 0.5) / 0.2) ** 2 + ((v - 0.5) / 0.25) ** 2 < 1
    real = np.random.default_rng(0).integers(60, 120, (1, size, size, 3), dtype=np.uint8)
    parted = real + 30 * inside[None, ..., None].astype(np.uint8)
    assert metrics.seam(parted, real, points)[0] == pytest.approx(30, abs=1.5)
    assert metrics.seam(real + 20, real, points)[0] == pytest.approx(0, abs=1e-3)
    assert metrics.seam(real, real, points)[0] == 0
