"""The tracker's errors, of readings that are wrong by what is known."""

import numpy as np
import pytest

from dfa.evaluation import tracker


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
    rows = tracker.tracking_errors(h + [0.1, 0, -0.05, 0.01, 0, 0.2], 3 * jaw, ear, truth)
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
    rows = tracker.tracking_errors(h + off, jaw, ear, truth)
    value, n = rows.set_index("metric").value, rows.set_index("metric").n
    found = value[["pitch_deg", "yaw_deg", "roll_deg", "rotation_deg", "translation_mm"]]
    assert found.to_numpy() == pytest.approx([1, 2, 3, 2, 2], rel=0.01)
    assert value["jitter_deg"] == pytest.approx(2 * np.sqrt((1 + 4 + 9) / 3), rel=0.01)
    assert (value["blink_recall"], n["blink_recall"]) == (0.75, 4)
    assert n["blink_precision"] in (4, 5)  # the half blink may count, and may not be missed
    assert value["blink_precision"] == pytest.approx(1 - 1 / n["blink_precision"])
    assert (rows.ci_low <= rows.value).all() and (rows.value <= rows.ci_high).all()


def test_wide_turns_are_told_apart():
    truth, h, jaw, ear = tracked_truth()
    wide = np.arange(len(h)) % 125 >= 75  # two seconds of each clip of five
    truth["h"] = h = np.where(wide, 0.35, 0.0)[:, None] * np.eye(6)[1]  # 20 degrees of yaw
    away = np.where(np.arange(len(h)) % 2, 1.0, -1.0) * np.where(wide, 3.0, 1.0)
    off = np.radians(away)[:, None] * np.r_[1, 1, 1, 0, 0, 0]
    value = tracker.tracking_errors(h + off, jaw, ear, truth).set_index("metric").value
    assert value["rotation_deg"] == pytest.approx(1.8, rel=0.02)  # 3 of 5 seconds 1, 2 of them 3
    assert value["rotation_wide_deg"] == pytest.approx(3, rel=0.02)
    assert value["translation_wide_mm"] == pytest.approx(0, abs=1e-9)
    still = tracker.tracking_errors(0 * h + off, jaw, ear, truth | {"h": 0 * h})
    assert "rotation_wide_deg" not in set(still.metric)
