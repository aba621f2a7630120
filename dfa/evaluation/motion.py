"""Measures of generated head motion and blinks (section 4.3, table 4).

Poses h (T, 6) are pitch, yaw, roll in radians and x, y, z in metres, at 25 frames a second. Future
motion is uncertain. So samples are scored as probabilistic forecasts of the real motion, and long
sequences by their dynamics. Wrong shapes, empty arrays and values that are not finite raise
ValueError.
"""

from __future__ import annotations

from types import EllipsisType
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.ndimage import binary_opening
from scipy.signal import welch
from torch import Tensor

from ..media import FPS
from ..method.disentangle import DIM_M, Disentangler
from ..method.face import LEFT_EYE, LOWER_LIDS, RIGHT_EYE, UPPER_LIDS
from .statistics import clips

BLINK_CLIP = 1.2  # seconds in which blinks are counted: a generated sentence has about 10 s
FLOOR = 1e-12  # rad²/Hz or m²/Hz, added to power spectra: far below visible motion


def checked(x: ArrayLike, what: str, *shape: int | None | EllipsisType) -> np.ndarray:
    """`x` as a float array, after a check of its shape and values.

    Args:
        what: its name in error messages.
        shape: the expected lengths; None is any length, a leading ... any number of axes.

    Raises ValueError for another shape, an empty array or values that are not finite.
    """
    x = np.asarray(x, float)
    any_axes = shape[:1] == (...,)
    expected = shape[any_axes:]
    given = x.shape[max(x.ndim - len(expected), 0) :] if any_axes else x.shape
    fits = all(e in (None, g) for e, g in zip(expected, given, strict=False))
    if len(given) != len(expected) or not fits:
        wanted = ", ".join({None: "any", ...: "..."}.get(n, str(n)) for n in shape)
        raise ValueError(f"{what} should have the shape ({wanted}), not {x.shape}")
    if not x.size or not np.isfinite(x).all():
        raise ValueError(f"{what}: {'values that are not finite' if x.size else 'no values'}")
    return x


def _ensemble(samples: ArrayLike, real: ArrayLike, *shape) -> tuple[np.ndarray, np.ndarray]:
    """Checked samples (n, ...) and real (...), n at least 2."""
    samples = checked(samples, "samples", ..., *shape)
    if samples.shape[:1] < (2,):
        raise ValueError(f"two samples or more are needed, not an array {samples.shape}")
    return samples, checked(real, "real", *samples.shape[1:])


# --- forecasts against the real motion ------------------------------------------------------------


def reach_of(h: ArrayLike) -> np.ndarray:
    """The range of a sequence (T, C): 99th minus 1st percentile of each channel, (C,)."""
    return np.subtract(*np.percentile(checked(h, "sequence", None, None), [99, 1], axis=0))


def pose_errors(predicted: ArrayLike, real: ArrayLike, reach: ArrayLike) -> dict[str, np.ndarray]:
    """D-Rot and D-Pos (Zhou et al. 2020; table 4).

    Args:
        predicted, real: windows (..., T, 6), radians and metres.
        reach: (6,), `reach_of` of the real sequence.

    Returns mean absolute errors (...) over frames and the three angles or coordinates: `d_rot` and
    `d_pos` in per cent of `reach`, `d_rot_deg` in degrees and `d_pos_mm` in millimetres.

    Raises ValueError if the shapes differ, a value is not finite or a reach is not positive.
    """
    real = checked(real, "real", ..., None, 6)
    predicted, reach = checked(predicted, "predicted", *real.shape), checked(reach, "reach", 6)
    if (reach <= 0).any():
        raise ValueError(f"every reach must be more than 0, not {reach}")
    error = np.abs(predicted - real).mean(-2)  # (..., T, 6) -> (..., 6)
    percent = 100 * error / reach
    return dict(
        d_rot=percent[..., :3].mean(-1),
        d_pos=percent[..., 3:].mean(-1),
        d_rot_deg=np.degrees(error[..., :3]).mean(-1),
        d_pos_mm=1e3 * error[..., 3:].mean(-1),
    )


def _pair_distance(samples: np.ndarray) -> np.ndarray:
    """Mean |x_i - x_j| over pairs i ≠ j of the first axis, (n, ...) -> (...).

    Of sorted values this is a weighted sum, so no pair has to be formed.
    """
    n = len(samples)
    weights = (2 * np.arange(n) + 1 - n) / (n * (n - 1) / 2)
    return np.tensordot(weights, np.sort(samples, axis=0), 1)


def crps(samples: ArrayLike, real: ArrayLike) -> np.ndarray:
    """Continuous ranked probability score of each value: samples (n, ...), real (...) -> (...).

    The fair estimator (Ferro 2014), mean |x_i - y| - ½ mean |x_i - x_j| over i ≠ j, is unbiased for
    any n >= 2. It has the data's unit. If all samples are equal, it is the absolute error.
    """
    samples, real = _ensemble(samples, real)
    return np.abs(samples - real).mean(0) - _pair_distance(samples) / 2


def energy_score(samples: ArrayLike, real: ArrayLike) -> np.ndarray:
    """Energy score (Gneiting & Raftery 2007): samples (n, ..., T, C), real (..., T, C) -> (...).

    The fair CRPS with Euclidean distances of whole windows, so correlations in time count too. The
    distance adds up all channels: bring them to one unit first (divide by the reach).
    """
    samples, real = _ensemble(samples, real, None, None, None)
    n = len(samples)
    pairs = sum(np.linalg.norm(samples[:i] - samples[i], axis=(-2, -1)).sum(0) for i in range(1, n))
    return np.linalg.norm(samples - real, axis=(-2, -1)).mean(0) - pairs / (n * (n - 1))


def spread_skill(samples: ArrayLike, real: ArrayLike) -> np.ndarray:
    """Ensemble spread divided by the error of the ensemble's mean, for each channel: (C,).

    1 is calibrated; below 1 the ensemble is overconfident.

    samples (n, ..., C), real (..., C). Both terms are root mean squares over the axes in between;
    the variance is multiplied by (n + 1)/n (Fortin et al. 2014). nan for a channel without error.
    """
    samples, real = _ensemble(samples, real)
    over = tuple(range(real.ndim - 1))
    variance = (1 + 1 / len(samples)) * samples.var(0, ddof=1).mean(over)
    error = np.square(samples.mean(0) - real).mean(over)
    return np.sqrt(variance / np.where(error > 0, error, np.nan))


# --- dynamics ------------------------------------------------------------------------------------


def _activity(h: np.ndarray) -> dict[str, np.ndarray]:
    """Speeds, acceleration per frame and range of a sequence (T, 6)."""
    step = np.diff(h, axis=0)
    return dict(
        speed=np.linalg.norm(step[:, :3], axis=1),
        speed_pos=np.linalg.norm(step[:, 3:], axis=1),
        acceleration=np.linalg.norm(np.diff(step[:, :3], axis=0), axis=1),
        range=reach_of(h[:, :3]),
    )


def dynamics(h: ArrayLike, reference: ArrayLike) -> dict[str, float]:
    """How a generated sequence h (T, 6) moves, compared with a real one (T', 6).

    Returns a dict; ratios are generated / real, and nan if the real sequence does not move:

    - `speed_ratio`, `speed_pos_ratio`: of the mean speed of the angles (norm of the three steps
      from frame to frame) and of the coordinates;
    - `acceleration_ratio`: of the mean norm of the angles' second differences;
    - `range_ratio`: of the angles' mean `reach_of`;
    - `freeze`: per cent of steps below 5 % of the real median speed, in runs of five or more
      (shorter runs are the turning points of a smooth motion); nan if the real one does not move;
    - `spectral_db`: mean absolute difference in dB of the power spectral densities (Welch, 10 s)
      over channels and frequencies up to 8 Hz. Two real sequences differ too, so compare it with
      the value of another part of the real sequence of the same length.

    Raises ValueError if a sequence is shorter than a second.
    """
    h, reference = checked(h, "generated", None, 6), checked(reference, "real", None, 6)
    if min(len(h), len(reference)) < FPS:
        raise ValueError(
            f"{len(h)} and {len(reference)} frames are too short: give {FPS} or more of each"
        )
    made, real = _activity(h), _activity(reference)
    means = {name: (made[name].mean(), real[name].mean()) for name in made}
    values = {f"{name}_ratio": a / b if b > 0 else np.nan for name, (a, b) in means.items()}
    usual = np.median(real["speed"])
    frozen = binary_opening(made["speed"] < 0.05 * usual, np.ones(5)).mean()
    values["freeze"] = 100 * frozen if usual > 0 else np.nan
    segment = min(10 * FPS, len(h), len(reference))
    (f, a), (_, b) = (welch(x, FPS, nperseg=segment, axis=0) for x in (h, reference))
    db = 10 * np.log10((a + FLOOR) / (b + FLOOR))
    values["spectral_db"] = np.abs(db[(f > 0) & (f <= 8)]).mean()
    return {name: float(value) for name, value in values.items()}


def drift(h: ArrayLike, reference: ArrayLike) -> float:
    """How far a long sequence h (T, 6) drifts from a real one's (T', 6) range: below 1 is inside.

    The distance of the mean pose of the last tenth of h (at least 5 s) from the middle of the real
    range (`reach_of`), divided by half that range; the maximum over the channels. nan if a channel
    of the real sequence does not move.
    """
    h, reference = checked(h, "generated", None, 6), checked(reference, "real", None, 6)
    low, high = np.percentile(reference, [1, 99], axis=0)
    if not (high > low).all():
        return float("nan")
    last = h[-max(len(h) // 10, 5 * FPS) :].mean(0)
    return float(np.abs((2 * last - low - high) / (high - low)).max())


def diversity(samples: ArrayLike) -> float:
    """How different samples (n, T, 6) from one start are, in degrees.

    The mean absolute difference of the angles over pairs of samples, frames and angles. Raises
    ValueError for fewer than two samples.
    """
    samples = checked(samples, "samples", None, None, 6)
    if len(samples) < 2:
        raise ValueError("one sample has no diversity: give two or more")
    return float(np.degrees(_pair_distance(samples[..., :3]).mean()))


# --- blinks --------------------------------------------------------------------------------------


class Blinks(NamedTuple):
    """n blinks."""

    onsets: np.ndarray  # (n,) first frame
    durations: np.ndarray  # (n,) frames below the middle of open and closed
    depths: np.ndarray  # (n,) smallest opening


@torch.inference_mode()
def lid_opening(f_d: Disentangler, f_e: Tensor) -> np.ndarray:
    """Lid opening (T,) of eye codes (T, 8), in inter-ocular distances."""
    l = f_d.decode(torch.zeros(len(f_e), DIM_M), f_e)  # (T, 68, 3)
    lids = (l[:, UPPER_LIDS] - l[:, LOWER_LIDS]).norm(dim=-1).mean(1)
    return (lids / (l[:, RIGHT_EYE].mean(1) - l[:, LEFT_EYE].mean(1)).norm(dim=-1)).numpy()


def levels_of(opening: ArrayLike) -> tuple[float, float]:
    """The levels (open, closed) of the lid opening (T,) of a person's real recording.

    The opening is the eye-aspect ratio or another measure that is 0 when the lids touch. Open is
    its median; closed is such that the middle of both is its `blink_threshold`.
    """
    opening = checked(opening, "lid opening", None)
    open_level = float(np.median(opening))
    return open_level, 2 * blink_threshold(opening) - open_level


def blinks(opening: ArrayLike, open_level: float, shut_level: float) -> Blinks:
    """The blinks of a lid opening (T,): where it is below the middle of the two levels.

    Two dips with one frame between them are one blink, as in `blink_onsets`. A blink at either end
    of the sequence counts with the frames that are there.

    Raises ValueError if the levels are not finite or the open one is not the larger.
    """
    opening = checked(opening, "lid opening", None)
    if not np.inf > open_level > shut_level > -np.inf:
        raise ValueError(
            f"the open level must be above the closed one, not {open_level} and {shut_level}"
        )
    half = (open_level + shut_level) / 2
    onsets = blink_onsets(opening, half)
    ends = len(opening) - blink_onsets(opening[::-1], half)[::-1]  # onsets of the reversed sequence
    depths = [opening[a:b].min() for a, b in zip(onsets, ends, strict=True)]
    return Blinks(onsets, ends - onsets, np.array(depths, float))


def blink_statistics(opening: ArrayLike, levels: tuple[float, float]) -> dict[str, float]:
    """Statistics of the blinks of a lid opening (T,), given `levels_of` the person's recording.

    - `blinks_per_s`: blinks per second;
    - `clean_per_min`: complete blinks per minute: the lids close by at least three quarters, for 2
      to 15 frames;
    - `blink_frames`: mean duration in frames, nan without a blink;
    - `interval_s`: median seconds from onset to onset, nan for fewer than two blinks;
    - `interval_cv`: standard deviation of the intervals divided by their mean (0 for a clock, 1 for
      a Poisson process), nan for fewer than three blinks.
    """
    onsets, durations, depths = blinks(opening, *levels)
    seconds, intervals = len(np.asarray(opening)) / FPS, np.diff(onsets) / FPS
    closed = depths < levels[1] + 0.25 * (levels[0] - levels[1])
    clean = closed & (durations >= 2) & (durations <= 15)
    cv = intervals.std(ddof=1) / intervals.mean() if len(intervals) > 1 else np.nan
    return dict(
        blinks_per_s=len(onsets) / seconds,
        clean_per_min=60 * float(clean.sum()) / seconds,
        blink_frames=float(durations.mean()) if len(onsets) else np.nan,
        interval_s=float(np.median(intervals)) if len(intervals) else np.nan,
        interval_cv=float(cv),
    )


def blink_threshold(ear: np.ndarray) -> float:
    """The eye-aspect ratio below which this person's eyes count as closed.

    ear: (T,), nan is ignored. The threshold is the middle of open (median) and closed (1st
    percentile), but at most 3/4 of open, for a person who never blinks.
    """
    ear = ear[np.isfinite(ear)]
    return float(min((np.median(ear) + np.percentile(ear, 1)) / 2, 0.75 * np.median(ear)))


def blink_onsets(ear: np.ndarray, threshold: float) -> np.ndarray:
    """The frames at which blinks begin, (n,), of an eye-aspect ratio (T,); nan counts as open.

    Two dips with one frame between them are one blink.
    """
    closed = np.nan_to_num(ear, nan=np.inf) < threshold
    closed[1:-1] |= closed[:-2] & closed[2:]
    return np.flatnonzero(closed & ~np.concatenate([[False], closed[:-1]]))


def blink_matches(onsets: np.ndarray, others: np.ndarray, within: int = 6) -> np.ndarray:
    """Which of `onsets` (n,) have one of `others` (m,) at most `within` frames away: (n,) bool."""
    if not len(others):
        return np.zeros(len(onsets), bool)
    return np.abs(np.subtract.outer(onsets, others)).min(1) <= within


def blink_rates(ear: np.ndarray, threshold: float) -> list[float]:
    """Blinks per second in each clip of BLINK_CLIP seconds of an eye-aspect ratio (T,).

    [nan] if no frame shows a face.
    """
    if not np.isfinite(ear).any():
        return [np.nan]
    onsets = np.zeros(len(ear))
    onsets[blink_onsets(ear, threshold)] = 1
    return [c.mean() * FPS for c in clips(onsets, BLINK_CLIP)]
