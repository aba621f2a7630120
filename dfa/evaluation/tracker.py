"""The known truth of the sample captures: how accurate the tracker is, and when nobody speaks."""

from __future__ import annotations

import numpy as np
import pandas as pd

from .. import captures
from ..media import FPS
from .motion import blink_matches, blink_onsets, blink_threshold
from .statistics import clips, estimate

VOWELS = set("aɑæʌɐəᵻɨeɛɪiɒɔoɤuʊyʏøœɜɝɚ")
HELD = 0.12  # seconds; a longer vowel counts as held
WIDE = 15.0  # degrees of yaw; beyond it a turn is wide


def tracking_errors(
    h: np.ndarray, opening: np.ndarray, ear: np.ndarray, truth: dict[str, np.ndarray]
) -> pd.DataFrame:
    """Errors of the tracked pose, mouth and eyes of a sample capture.

    Args:
        h: (T, 6) tracked pose, radians and metres. opening: (T,) mouth opening.
        ear: (T,) eye-aspect ratio.
        truth: the actor's `h` (T, 6), `blink` (T,) in 0..1, `actions` (T, A) and `action_names`.

    The median error of each angle and coordinate is subtracted first, because the tracker knows
    neither the actor's size nor the origin of its head. Returns rows metric, value, ci_low,
    ci_high, n:

    - pitch_deg, yaw_deg, roll_deg: mean absolute errors in degrees; rotation_deg is their mean;
    - translation_mm: mean absolute error in millimetres, mean over the three coordinates;
    - rotation_wide_deg, translation_wide_mm: the last two, of the frames that turn beyond WIDE
      alone; these rows exist if there are such frames for a whole second;
    - jitter_deg: error of the step from frame to frame in degrees (root mean square over the
      angles), in the quarter of the frames in which the head moves least;
    - blink_recall: fraction of the true closures beyond 3/4 that are found;
    - blink_precision: fraction of the found blinks with a true closure beyond 1/4;
    - mouth_corr: correlation of the opening with the action jawOpen.
    """
    T = len(h)
    real = truth["h"][:T].astype(float)
    error = h - real
    error = np.abs(error - np.median(error, 0)) * np.r_[np.full(3, 180 / np.pi), np.full(3, 1e3)]
    per_frame = dict(zip(("pitch_deg", "yaw_deg", "roll_deg"), error[:, :3].T, strict=True))
    per_frame |= {"rotation_deg": error[:, :3].mean(1), "translation_mm": error[:, 3:].mean(1)}
    wide = np.abs(real[:, 1]) > np.radians(WIDE)
    values = {m: np.array([c.mean() for c in clips(e)]) for m, e in per_frame.items()}
    if wide.sum() >= FPS:
        for what, unit in (("rotation", "deg"), ("translation", "mm")):
            turns = zip(clips(per_frame[f"{what}_{unit}"]), clips(wide), strict=True)
            of_clips = [e[w].mean() for e, w in turns if w.any()]
            values[f"{what}_wide_{unit}"] = np.array(of_clips)

    step = np.diff(real[:, :3], axis=0)
    step_error = np.degrees(np.diff(h[:, :3], axis=0) - step)
    speed = np.linalg.norm(step, axis=1)
    slow = speed <= np.percentile(speed, 25)
    values["jitter_deg"] = np.sqrt((step_error[slow] ** 2).mean(1))

    lid = truth["blink"][:T].astype(float)
    closed, partly_closed = (blink_onsets(1 - lid, 1 - x) for x in (0.75, 0.25))
    found = blink_onsets(ear, blink_threshold(ear))
    values["blink_recall"] = blink_matches(closed, found).astype(float)
    values["blink_precision"] = blink_matches(found, partly_closed).astype(float)
    rows = [dict(metric=m) | estimate(v) for m, v in values.items()]

    jaw = truth["actions"][:T, list(truth["action_names"]).index("jawOpen")].astype(float)
    pairs = clips(np.stack([opening, jaw], 1))
    rng = np.random.default_rng(0)
    draws = [
        np.corrcoef(np.concatenate([pairs[i] for i in rng.integers(len(pairs), size=len(pairs))]).T)
        for _ in range(500)
    ]
    low, high = np.percentile([d[0, 1] for d in draws], [2.5, 97.5])
    corr = float(np.corrcoef(opening, jaw)[0, 1])
    rows.append(dict(metric="mouth_corr", value=corr, ci_low=low, ci_high=high, n=len(pairs)))
    return pd.DataFrame(rows)


def quiet_and_held(name: str, T: int, second: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Which of the first T frames are silent, and which are in a held vowel: (T,) bool each.

    Silent frames are at least two frames from any phoneme. second: of the second recording.
    """
    actor = captures.truth(name, second)
    quiet, held = np.ones(T, bool), np.zeros(T, bool)
    for (start, end), phone in zip(actor["phonemes"] * FPS, actor["phoneme_names"], strict=True):
        quiet[max(0, int(start) - 2) : int(np.ceil(end)) + 2] = False
        if end - start >= HELD * FPS and VOWELS & set(str(phone)):
            held[int(np.ceil(start)) : int(end)] = True
    return quiet, held
