"""How generated head motion and blinks are judged (section 4.3, table 4), and the simple baselines
that a learned model has to beat.

Poses h (T, 6) are pitch, yaw, roll in radians and x, y, z in metres, 25 frames a second. Nobody's
motion can be foretold: samples are scored as forecasts of what really came, and long sequences by
how they move. Wrong shapes, no data and values that are not finite raise ValueError.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import EllipsisType
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.fft import irfft, next_fast_len, rfft
from scipy.linalg import cho_factor, cho_solve
from scipy.ndimage import binary_opening
from scipy.optimize import minimize
from scipy.signal import welch

from .evaluate import blink_onsets, blink_threshold
from .media import FPS

FLOOR = 1e-12  # a microradian or micrometre per root hertz: nobody sees less


def _checked(x: ArrayLike, what: str, *shape: int | None | EllipsisType) -> np.ndarray:
    """x as finite floats of this shape: None is any length, a leading ... any axes."""
    x = np.asarray(x, float)
    free = shape[:1] == (...,)
    asked = shape[free:]
    given = x.shape[max(x.ndim - len(asked), 0) :] if free else x.shape
    fits = all(a in (None, g) for a, g in zip(asked, given, strict=False))
    if len(given) != len(asked) or not fits:
        told = ", ".join({None: "any", ...: "..."}.get(n, str(n)) for n in shape)
        raise ValueError(f"{what} should have the shape ({told}), not {x.shape}")
    if not x.size or not np.isfinite(x).all():
        raise ValueError(f"{what}: {'values that are not finite' if x.size else 'no values'}")
    return x


def _ensemble(samples: ArrayLike, real: ArrayLike, *shape) -> tuple[np.ndarray, np.ndarray]:
    samples = _checked(samples, "samples", ..., *shape)
    if samples.shape[:1] < (2,):
        raise ValueError(f"two samples or more are needed, not {samples.shape[:1]}")
    return samples, _checked(real, "real", *samples.shape[1:])


# --- against what really came --------------------------------------------------------------------


def reach_of(h: ArrayLike) -> np.ndarray:
    """How far a sequence (T, C) reaches: 1st to 99th percentile of each channel, (C,)."""
    return np.subtract(*np.percentile(_checked(h, "sequence", None, None), [99, 1], axis=0))


def pose_errors(predicted: ArrayLike, real: ArrayLike, reach: ArrayLike) -> dict[str, np.ndarray]:
    """D-Rot and D-Pos (Zhou et al. 2020, table 4) of windows (..., T, 6), each value (...).

    Mean absolute errors over frames and the three angles or coordinates: `d_rot` and `d_pos` in per
    cent of `reach` (6,), the real sequence's `reach_of`; `d_rot_deg` in degrees and `d_pos_mm` in
    millimetres.
    """
    real = _checked(real, "real", ..., None, 6)
    predicted, reach = _checked(predicted, "predicted", *real.shape), _checked(reach, "reach", 6)
    if (reach <= 0).any():
        raise ValueError(f"a share of no range is nothing: {reach}")
    error = np.abs(predicted - real).mean(-2)
    share = 100 * error / reach
    return dict(
        d_rot=share[..., :3].mean(-1),
        d_pos=share[..., 3:].mean(-1),
        d_rot_deg=np.degrees(error[..., :3]).mean(-1),
        d_pos_mm=1e3 * error[..., 3:].mean(-1),
    )


def _pair_distance(samples: np.ndarray) -> np.ndarray:
    """Mean |x_i - x_j| over pairs i ≠ j of the first axis: once sorted, a weighted sum."""
    n = len(samples)
    weights = (2 * np.arange(n) + 1 - n) / (n * (n - 1) / 2)
    return np.tensordot(weights, np.sort(samples, axis=0), 1)


def crps(samples: ArrayLike, real: ArrayLike) -> np.ndarray:
    """Continuous ranked probability score of each value: samples (n, ...), real (...) -> (...).

    The fair estimator (Ferro 2014), mean |x_i - y| - ½ mean |x_i - x_j| over i ≠ j: unbiased for
    any n >= 2. In the data's unit; for one certain forecast it would be the absolute error.
    """
    samples, real = _ensemble(samples, real)
    return np.abs(samples - real).mean(0) - _pair_distance(samples) / 2


def energy_score(samples: ArrayLike, real: ArrayLike) -> np.ndarray:
    """Energy score (Gneiting & Raftery 2007): samples (n, ..., T, C), real (..., T, C) -> (...).

    The fair CRPS with Euclidean distances of whole windows: it sees whether a window hangs
    together. Channels add up, so bring them to one unit first (divide by the reach).
    """
    samples, real = _ensemble(samples, real, None, None, None)
    n = len(samples)
    apart = sum(np.linalg.norm(samples[:i] - samples[i], axis=(-2, -1)).sum(0) for i in range(1, n))
    return np.linalg.norm(samples - real, axis=(-2, -1)).mean(0) - apart / (n * (n - 1))


def spread_skill(samples: ArrayLike, real: ArrayLike) -> np.ndarray:
    """Ensemble spread by the error of the ensemble's mean, of each channel (C,): 1 is calibrated,
    less is too sure of itself.

    samples (n, ..., C), real (..., C); root mean squares over all axes between, the variance times
    (n + 1)/n (Fortin et al. 2014). nan for a channel without error.
    """
    samples, real = _ensemble(samples, real)
    over = tuple(range(real.ndim - 1))
    variance = (1 + 1 / len(samples)) * samples.var(0, ddof=1).mean(over)
    error = np.square(samples.mean(0) - real).mean(over)
    return np.sqrt(variance / np.where(error > 0, error, np.nan))


# --- how it moves --------------------------------------------------------------------------------


def _activity(h: np.ndarray) -> dict[str, np.ndarray]:
    step = np.diff(h, axis=0)
    return dict(
        speed=np.linalg.norm(step[:, :3], axis=1),
        speed_pos=np.linalg.norm(step[:, 3:], axis=1),
        acceleration=np.linalg.norm(np.diff(step[:, :3], axis=0), axis=1),
        range=reach_of(h[:, :3]),
    )


def dynamics(h: ArrayLike, reference: ArrayLike) -> dict[str, float]:
    """How a generated sequence h (T, 6) moves beside a real one (T', 6), each a second or longer.

    `speed_ratio`, `speed_pos_ratio`: mean speed of the angles (norm of their three steps from frame
    to frame) and of the coordinates, generated by real; `acceleration_ratio`: the same of the
    angles' second differences; `range_ratio`: of the angles' mean `reach_of`. `freeze`: per cent of
    steps below 5 % of the real median speed, five or more on end (fewer are the turning points of a
    smooth motion). All nan where the real one does not move. `spectral_db`: mean absolute
    difference of the power spectral densities (Welch, 10 s) over channels and frequencies up to 8
    Hz; it has no absolute zero, so hold it against another part of the real sequence, as long as h.
    """
    h, reference = _checked(h, "generated", None, 6), _checked(reference, "real", None, 6)
    if min(len(h), len(reference)) < FPS:
        raise ValueError(f"{len(h)} and {len(reference)} frames: give a second or more of each")
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
    """How far the mean pose of the last tenth of h (T, 6), five seconds at least, lies from the
    middle of a real sequence's range (`reach_of`), in halves of it, of the worst channel: below 1
    is within it. nan where the real one does not move."""
    h, reference = _checked(h, "generated", None, 6), _checked(reference, "real", None, 6)
    low, high = np.percentile(reference, [1, 99], axis=0)
    if not (high > low).all():
        return float("nan")
    last = h[-max(len(h) // 10, 5 * FPS) :].mean(0)
    return float(np.abs((2 * last - low - high) / (high - low)).max())


def diversity(samples: ArrayLike) -> float:
    """How far samples (n, T, 6) from one start lie apart: mean absolute difference of the angles
    in degrees, over pairs of samples, frames and angles."""
    samples = _checked(samples, "samples", None, None, 6)
    if len(samples) < 2:
        raise ValueError("one sample has no diversity: give two or more")
    return float(np.degrees(_pair_distance(samples[..., :3]).mean()))


# --- blinks --------------------------------------------------------------------------------------


class Blinks(NamedTuple):
    """n blinks, (n,) each: first frame, frames below half way, lowest opening."""

    onsets: np.ndarray
    durations: np.ndarray
    depths: np.ndarray


def levels_of(opening: ArrayLike) -> tuple[float, float]:
    """(open, shut) of a person's real recording (T,), by eye-aspect ratio or another measure that
    is 0 for lids that touch: its median, and such that half way is its `blink_threshold`."""
    opening = _checked(opening, "lid opening", None)
    wide = float(np.median(opening))
    return wide, 2 * blink_threshold(opening) - wide


def blinks(opening: ArrayLike, open_level: float, shut_level: float) -> Blinks:
    """Blinks of a lid opening (T,): where it is below half way between the two levels.

    Dips one frame apart are one blink, as in `blink_onsets`; one at either end is cut short.
    """
    opening = _checked(opening, "lid opening", None)
    if not np.inf > open_level > shut_level > -np.inf:
        raise ValueError(f"lids are open above where they are shut, not {open_level}, {shut_level}")
    half = (open_level + shut_level) / 2
    onsets = blink_onsets(opening, half)
    ends = len(opening) - blink_onsets(opening[::-1], half)[::-1]  # backwards, ends are onsets
    depths = [opening[a:b].min() for a, b in zip(onsets, ends, strict=True)]
    return Blinks(onsets, ends - onsets, np.array(depths, float))


def blink_statistics(opening: ArrayLike, levels: tuple[float, float]) -> dict[str, float]:
    """The blinks of a lid opening (T,), given the person's own real `levels_of`.

    `blinks_per_s`; `clean_per_min`: those that shut to the last quarter of the way and last 2 to
    15 frames; `blink_frames`: mean duration, nan without a blink; `interval_s`: median from onset
    to onset, nan for fewer than two blinks; `interval_cv`: standard deviation of that by its mean
    (0 for a clock, 1 for a Poisson process), nan for fewer than three.
    """
    onsets, durations, depths = blinks(opening, *levels)
    seconds, intervals = len(np.asarray(opening)) / FPS, np.diff(onsets) / FPS
    shut = depths < levels[1] + 0.25 * (levels[0] - levels[1])
    clean = shut & (durations >= 2) & (durations <= 15)
    cv = intervals.std(ddof=1) / intervals.mean() if len(intervals) > 1 else np.nan
    return dict(
        blinks_per_s=len(onsets) / seconds,
        clean_per_min=60 * float(clean.sum()) / seconds,
        blink_frames=float(durations.mean()) if len(onsets) else np.nan,
        interval_s=float(np.median(intervals)) if len(intervals) else np.nan,
        interval_cv=float(cv),
    )


# --- baselines: baseline(bop (τ, C), n) -> the n frames that follow, (n, C) ----------------------


def _beginning(bop: ArrayLike, n: int, C: int | None = None) -> np.ndarray:
    if n < 1:
        raise ValueError(f"{n} frames cannot follow: ask for one or more")
    return _checked(bop, "beginning of pose", None, C)


def hold_last(bop: ArrayLike, n: int) -> np.ndarray:
    """The head stays where the beginning of pose left it."""
    return np.repeat(_beginning(bop, n)[-1:], n, axis=0)


def mean_pose(mean: ArrayLike) -> Callable[[ArrayLike, int], np.ndarray]:
    """The baseline that is at the training mean (C,) at once."""
    mean = _checked(mean, "mean", None)

    def baseline(bop: ArrayLike, n: int) -> np.ndarray:
        _beginning(bop, n, len(mean))
        return np.tile(mean, (n, 1))

    return baseline


@dataclass(frozen=True)
class ChannelGP:
    """A Gaussian process in time for each of C channels, independent, around the training mean:

    k(i, j) = σ² / (1 + (i - j)²/ℓ²) + σ_n² δ_ij, the Cauchy kernel that the paper gives its latent
    space (a rational quadratic with α = 1), and white noise, which is the tracker's.
    """

    mean: np.ndarray  # (C,), as are the others
    variance: np.ndarray  # σ²
    length_scale: np.ndarray  # ℓ, frames
    noise_variance: np.ndarray  # σ_n²

    @classmethod
    def fit(cls, sequences: list[ArrayLike], window: int = 100) -> ChannelGP:
        """Maximum likelihood on sequences (T, C), cut in windows that count as independent."""
        y = _windows(sequences, window)
        mean = np.concatenate(sequences).mean(0)
        return cls(mean, *np.transpose([_most_likely(c) for c in y - mean[:, None, None]]))

    def log_likelihood(self, sequences: list[ArrayLike], window: int = 100) -> np.ndarray:
        """log p of such windows of sequences (T, C), in nats: the sum for each channel, (C,)."""
        y = _windows(sequences, window, len(self.mean)) - self.mean[:, None, None]
        L = np.linalg.cholesky(self._kernel(window, window, noise=True))
        logdet = np.log(np.diagonal(L, axis1=1, axis2=2)).sum(1) + window / 2 * np.log(2 * np.pi)
        return -0.5 * np.square(np.linalg.solve(L, y)).sum((1, 2)) - y.shape[2] * logdet

    def __call__(self, bop: ArrayLike, n: int) -> np.ndarray:
        """The conditional mean (n, C) after a beginning of pose (τ, C)."""
        bop = _beginning(bop, n, len(self.mean))
        return self.mean + np.einsum("cnt,tc->nc", self._gain(len(bop), n), bop - self.mean)

    def condition(
        self, bop: ArrayLike, n: int, noise: bool = True
    ) -> tuple[np.ndarray, np.ndarray]:
        """Mean (n, C) and covariance (C, n, n) after a beginning of pose (τ, C), of what a tracker
        would measure or, with noise=False, of the motion."""
        mean, tau = self(bop, n), len(bop)
        cross = self._kernel(tau + n, tau)[:, tau:]
        return mean, self._kernel(n, n, noise) - self._gain(tau, n) @ cross.transpose(0, 2, 1)

    def sample(
        self, bop: ArrayLike | None, n: int, k: int, rng: np.random.Generator, noise: bool = True
    ) -> np.ndarray:
        """k samples (k, n, C) of what follows a beginning of pose (τ, C); if that is None, of n
        frames anywhere.

        Samples of the prior, moved to the beginning by Matheron's rule (Wilson et al. 2021): as
        good for an hour as for a second.
        """
        C, sigma = len(self.mean), np.sqrt(self.noise_variance)
        anywhere = _beginning(self.mean[None], n, C)[:0]
        bop = anywhere if bop is None else _beginning(bop, n, C)
        tau = len(bop)
        # so long that the two ways round the circle hardly meet
        size = 1 + next_fast_len(tau + n + int(16 * self.length_scale.max()), real=True)
        f = [circulant_samples(row, k, rng)[:, : tau + n] for row in self._kernel(size, 1)[..., 0]]
        f = self.mean + np.stack(f, -1)
        missed = bop - f[:, :tau] - sigma * rng.normal(size=(k, tau, C))
        f = f[:, tau:] + np.einsum("cnt,ktc->knc", self._gain(tau, n), missed)
        return f + noise * sigma * rng.normal(size=f.shape)

    def _kernel(self, rows: int, columns: int, noise: bool = False) -> np.ndarray:
        lag = np.subtract.outer(np.arange(rows), np.arange(columns))
        variance, ell, white = (
            p[:, None, None] for p in (self.variance, self.length_scale, self.noise_variance)
        )
        return variance / (1 + (lag / ell) ** 2) + noise * white * (lag == 0)

    def _gain(self, tau: int, n: int) -> np.ndarray:
        """(C, n, τ): what each frame of a beginning says about each that follows."""
        cross = self._kernel(tau + n, tau)[:, tau:].transpose(0, 2, 1)
        return np.linalg.solve(self._kernel(tau, tau, noise=True), cross).transpose(0, 2, 1)


def circulant_samples(autocovariance: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """k samples (k, m) of a stationary process of mean 0, from its autocovariance (m,) at lags 0,
    1, ..., by circulant embedding (Dietrich & Newsam 1997): white noise, filtered on a circle.

    ValueError where that circle has no such process, beyond a variance of 1e-4.
    """
    power = rfft(np.concatenate([autocovariance, autocovariance[-2:0:-1]])).real
    if -power.clip(max=0).sum() > 1e-4 * power.sum():
        raise ValueError("no stationary process has this autocovariance: give more lags of it")
    m = len(autocovariance)
    white = rng.normal(size=(k, 2 * m - 2))
    return irfft(rfft(white) * np.sqrt(power.clip(0)), 2 * m - 2)[:, :m]


def _windows(sequences: list[ArrayLike], window: int, C: int | None = None) -> np.ndarray:
    """All whole windows of sequences (T, C) as columns, (C, window, N)."""
    xs = [_checked(s, "sequence", None, C or np.shape(sequences[0])[-1]) for s in sequences]
    if not xs or not 2 <= window <= max(map(len, xs)):
        raise ValueError(f"no window of {window} frames (2 or more) in {[len(x) for x in xs]}")
    cut = [x[i : i + window] for x in xs for i in range(0, len(x) - window + 1, window)]
    return np.stack(cut).transpose(2, 1, 0)


def _most_likely(y: np.ndarray) -> tuple[float, float, float]:
    """σ², ℓ, σ_n² of windows (T, N) of one channel of mean 0.

    With σ_n² = r σ² the best σ² follows from ℓ and r, which leaves two numbers to search.
    """
    T, N = y.shape
    if np.ptp(y) == 0:
        raise ValueError("a channel that does not move has no Gaussian process")
    square, identity = np.subtract.outer(np.arange(T), np.arange(T)) ** 2.0, np.eye(T)

    def solved(theta: np.ndarray) -> tuple:
        ell, r = np.exp(theta)
        R = 1 / (1 + square / ell**2)
        factor = cho_factor(R + r * identity, lower=True)
        a = cho_solve(factor, y)
        return ell, r, R, factor, a, np.sum(y * a) / (T * N)

    def loss(theta: np.ndarray) -> tuple[float, np.ndarray]:
        """-log p of a value but for a constant, and its gradient in log ℓ and log r."""
        ell, r, R, factor, a, variance = solved(theta)
        by_R = cho_solve(factor, identity) / T - a @ a.T / (variance * T * N)
        slope = 2 * square / ell**2 * R**2  # dR / d log ℓ
        gradient = np.array([np.sum(by_R * slope), r * np.trace(by_R)]) / 2
        return np.log(variance) / 2 + np.log(np.diag(factor[0])).sum() / T, gradient

    starts = [np.log([ell, r]) for ell in (4, 16, 48) for r in (1e-4, 1e-1)]
    bounds = np.log([(0.5, 2 * T), (1e-6, 1e2)])  # a smaller r gains only rounding errors
    found = [minimize(loss, start, jac=True, bounds=bounds) for start in starts]
    ell, r, *_, variance = solved(min(found, key=lambda result: result.fun).x)
    return variance, ell, r * variance
