"""Means over clips with their intervals: the frames of a clip are not independent."""

from __future__ import annotations

import numpy as np

from ..media import FPS

CLIP = 5.0  # seconds: length of the clips over which metrics are averaged


def clips(x: np.ndarray, seconds: float = CLIP) -> list[np.ndarray]:
    """Cut per-frame values (T, ...) into whole clips of `seconds`; the rest is left out.

    A sequence shorter than one clip is returned as one shorter clip.
    """
    n = int(seconds * FPS)
    return [x[i : i + n] for i in range(0, len(x) - n + 1, n)] or [x]


def interval(values: np.ndarray, seed: int = 0, n: int = 2000) -> tuple[float, float, float]:
    """The mean and its 95 % percentile bootstrap interval (n resamples) over clips.

    values: (clips,), or (seeds, clips); then seeds are resampled too. Values that are not
    finite are ignored.

    Returns mean, lower and upper end; all nan if there is no finite value.
    """
    values = np.atleast_2d(np.asarray(values, float))
    values = np.where(np.isfinite(values), values, np.nan)
    values = values[:, np.isfinite(values).any(0)]
    if not values.size:
        return (float("nan"),) * 3
    rng, (S, C) = np.random.default_rng(seed), values.shape
    columns, rows = rng.integers(C, size=(n, 1, C)), rng.integers(S, size=(n, S, 1))
    draws = np.nanmean(values[rows, columns], (1, 2))  # (n, S, C) -> (n,)
    return float(np.nanmean(values)), *map(float, np.nanpercentile(draws, [2.5, 97.5]))


def estimate(values: np.ndarray, seed: int = 0) -> dict[str, float]:
    """The columns value, ci_low, ci_high and n of a table, from values (clips,) or (seeds, clips).

    A single value has no interval. n counts the values that are finite.
    """
    n = int(np.isfinite(np.asarray(values, float)).sum())
    value, low, high = interval(values, seed)
    if n == 1:
        low = high = float("nan")
    return dict(value=value, ci_low=low, ci_high=high, n=n)


def over_clips(values: np.ndarray) -> dict[str, float]:
    """`estimate` of per-frame values (T,), averaged over clips of 5 s."""
    return estimate([c.mean() for c in clips(values)])


def difference(values: np.ndarray, seed: int = 0) -> str:
    """`interval` of paired differences (clips,) or (seeds, clips), as text.

    A * marks an interval that excludes zero. A single value has no interval.
    """
    value, low, high, n = estimate(values, seed).values()
    if n < 2:
        return f"{value:+.2f}"
    return f"{value:+.2f} [{low:+.2f}, {high:+.2f}]{' *' if low > 0 or high < 0 else ''}"
