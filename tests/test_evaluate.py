"""The metrics against independent implementations."""

import numpy as np
import pytest
import torch
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
    np.testing.assert_allclose(evaluate.mouth_opening(points), opening)
    deep = np.concatenate([points, np.full((60, 68, 1), 3.0)], -1)
    np.testing.assert_allclose(evaluate.mouth_opening(7 * deep + 1), opening)
    points[5] = np.nan
    assert np.flatnonzero(np.isnan(evaluate.mouth_opening(points))).tolist() == [5]
    assert np.isnan(evaluate.mouth_opening(np.full((4, 68, 2), np.nan))).all()


def test_lip_motion_compares_openings():
    real = 0.2 + 0.1 * np.sin(np.arange(100) / 4)
    quiet = np.arange(100) < 20
    made = speaking(0.05 + 0.6 * real)
    made[3] = np.nan  # an untracked frame counts nowhere
    found = evaluate.lip_motion(made, speaking(real), quiet, ~quiet)
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
    found = evaluate.lip_motion(made, still, quiet, vowel)
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
    found = evaluate.lip_motion(lips, lips, everywhere, ~everywhere)
    assert found["jitter_silence"] == pytest.approx(rms, rel=0.01)
    assert np.isnan(found["jitter_vowel"]) and np.isnan(found["jitter_vowel_real"])


def test_lip_motion_is_nan_where_there_is_nothing():
    mouth = speaking(np.full(10, 0.1))
    alternate = np.arange(10) % 2 == 0  # no three frames in a row
    found = evaluate.lip_motion(np.full_like(mouth, np.nan), mouth, alternate, np.zeros(10, bool))
    assert found.pop("silent_opening_real") == pytest.approx(0.1)
    assert len(found) == 7 and np.isnan(list(found.values())).all()
    opens = speaking(np.linspace(0, 0.2, 10))
    frozen = evaluate.lip_motion(mouth, opens, alternate, alternate)
    assert np.isnan(frozen["opening_corr"])
    assert frozen["opening_slope"] == pytest.approx(0, abs=1e-9)


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


def test_video_confidence_wants_one_offset_of_the_whole_video():
    distances = torch.full((300, 31), 10.0)
    distances[:, 15] = 4
    value, low, high = evaluate.video_confidence(distances)
    assert (value, low, high) == pytest.approx((6, 6, 6))
    distances[150:] = distances[150:].roll(4, 1)  # half of it elsewhere: 6 in each clip,
    value, low, high = evaluate.video_confidence(distances)
    assert value == pytest.approx(3) and 0 <= low < value < high <= 6  # and 3 in all
    assert np.isnan(evaluate.video_confidence(torch.full((60, 31), torch.nan))).all()


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


def test_interval_over_seeds_and_clips():
    """As many seeds as one cares to have of the same clips say nothing more about other clips."""
    clips = np.random.default_rng(0).normal(3, 1, 12)
    one = evaluate.interval(clips)
    assert evaluate.interval(np.stack([clips] * 5)) == pytest.approx(one, rel=0.05)
    value, low, high = evaluate.interval(np.stack([clips, clips + 4.0]))  # seeds that disagree
    assert value == pytest.approx(clips.mean() + 2)
    assert high - low > 2 * (one[2] - one[1])
    assert evaluate.interval([[1.0, np.nan], [3.0, np.nan]])[0] == 2.0
    assert np.isnan(evaluate.interval([np.nan])).all()


def test_a_difference_is_marked_where_its_interval_leaves_out_zero():
    assert evaluate.difference(np.full(9, 2.0)) == "+2.00 [+2.00, +2.00] *"
    assert evaluate.difference(np.full(9, -2.0)).endswith("*")
    assert not evaluate.difference(np.array([-1.0, 1.0] * 9)).endswith("*")
    assert not evaluate.difference(np.array([np.nan])).endswith("*")


def test_regions_are_scored_within_their_boxes():
    """Against scikit-image's map and plain means; eyes above the mouth above the neck."""
    a, b = pictures(2, 64)
    rng = np.random.default_rng(1)
    points = rng.uniform(0.3, 0.7, (2, 68, 2))
    points[:, 36:48] = rng.uniform((0.3, 0.3), (0.7, 0.38), (2, 12, 2))
    points[:, 48:68] = rng.uniform((0.4, 0.6), (0.6, 0.66), (2, 20, 2))
    points[:, 33], points[:, 8] = (0.5, 0.5), (0.5, 0.7)
    points[:, 4], points[:, 12] = (0.3, 0.6), (0.7, 0.6)
    boxes, found = evaluate.region_boxes(points, 64), evaluate.by_region(b, a, points)
    assert tuple(found) == evaluate.REGIONS
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
    np.testing.assert_array_equal(found["whole"]["ssim"], evaluate.ssim(b, a))
    row = evaluate.over_clips(np.arange(60.0))
    assert row["n"] == 2 and row["value"] == pytest.approx(29.5)
    assert row["ci_low"] <= row["value"] <= row["ci_high"]
