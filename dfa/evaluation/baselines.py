"""Simple baselines that a model of head motion must beat (section 4.3, table 4).

A baseline is a function baseline(bop, n). It takes a beginning of pose (τ, C) and returns a
forecast of the next n frames, (n, C). Wrong shapes, empty arrays and values that are not finite
raise ValueError.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.fft import irfft, next_fast_len, rfft
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize

from ..method.gpvae import cauchy
from .motion import checked


def hold_last(bop: ArrayLike, n: int) -> np.ndarray:
    """The last pose of the beginning (τ, C), repeated n times: (n, C)."""
    return np.repeat(_beginning(bop, n)[-1:], n, axis=0)


def mean_pose(mean: ArrayLike) -> Callable[[ArrayLike, int], np.ndarray]:
    """A baseline whose every frame is the training mean (C,)."""
    mean = checked(mean, "mean", None)

    def baseline(bop: ArrayLike, n: int) -> np.ndarray:
        _beginning(bop, n, len(mean))
        return np.tile(mean, (n, 1))

    return baseline


@dataclass(frozen=True)
class ChannelGP:
    """C independent Gaussian processes in time, one per channel, around the training mean.

    k(i, j) = σ² / (1 + (i - j)²/ℓ²) + σ_n² δ_ij. The first term is the Cauchy kernel of the paper's
    latent space (section 3.4; a rational quadratic with α = 1). The second is white noise: the
    tracker's error.
    """

    mean: np.ndarray  # (C,), in the data's units
    variance: np.ndarray  # (C,) σ²
    length_scale: np.ndarray  # (C,) ℓ, frames
    noise_variance: np.ndarray  # (C,) σ_n²

    @classmethod
    def fit(cls, sequences: list[ArrayLike], window: int = 100) -> ChannelGP:
        """Fit by maximum likelihood to sequences (T, C).

        The sequences are cut into windows of `window` frames, which are treated as independent.
        """
        y = _windows(sequences, window)
        mean = np.concatenate(sequences).mean(0)
        return cls(mean, *np.transpose([_most_likely(c) for c in y - mean[:, None, None]]))

    def log_likelihood(self, sequences: list[ArrayLike], window: int = 100) -> np.ndarray:
        """log p in nats of sequences (T, C), summed over their windows, for each channel: (C,)."""
        y = _windows(sequences, window, len(self.mean)) - self.mean[:, None, None]  # (C, window, N)
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
        """Mean (n, C) and covariance (C, n, n) of the n frames after a beginning of pose (τ, C).

        With noise=True the covariance is that of the tracked pose, with noise=False that of the
        motion itself.
        """
        mean, tau = self(bop, n), len(bop)
        cross = self._kernel(tau + n, tau)[:, tau:]
        return mean, self._kernel(n, n, noise) - self._gain(tau, n) @ cross.transpose(0, 2, 1)

    def sample(
        self, bop: ArrayLike | None, n: int, k: int, rng: np.random.Generator, noise: bool = True
    ) -> np.ndarray:
        """k samples (k, n, C) of the n frames after a beginning of pose (τ, C).

        If `bop` is None, the samples are drawn from the prior. Otherwise samples of the prior are
        conditioned on the beginning by Matheron's rule (Wilson et al. 2021), which works for any n.
        """
        C, sigma = len(self.mean), np.sqrt(self.noise_variance)
        empty = _beginning(self.mean[None], n, C)[:0]  # (0, C)
        bop = empty if bop is None else _beginning(bop, n, C)
        tau = len(bop)
        # Circulant samples are periodic. The circle is 16 length scales longer than what is used,
        # so that its two ends hardly correlate.
        size = 1 + next_fast_len(tau + n + int(16 * self.length_scale.max()), real=True)
        f = [circulant_samples(row, k, rng)[:, : tau + n] for row in self._kernel(size, 1)[..., 0]]
        f = self.mean + np.stack(f, -1)  # (k, τ + n, C)
        residual = bop - f[:, :tau] - sigma * rng.normal(size=(k, tau, C))
        f = f[:, tau:] + np.einsum("cnt,ktc->knc", self._gain(tau, n), residual)  # (k, n, C)
        return f + noise * sigma * rng.normal(size=f.shape)

    def _kernel(self, rows: int, columns: int, noise: bool = False) -> np.ndarray:
        """The covariance of frames 0..rows-1 with frames 0..columns-1, (C, rows, columns)."""
        lag = np.subtract.outer(np.arange(rows), np.arange(columns))
        variance, ell, white = (
            p[:, None, None] for p in (self.variance, self.length_scale, self.noise_variance)
        )
        return cauchy(lag, ell, variance) + noise * white * (lag == 0)

    def _gain(self, tau: int, n: int) -> np.ndarray:
        """(C, n, τ): the weight of each frame of the beginning in each predicted frame."""
        cross = self._kernel(tau + n, tau)[:, tau:].transpose(0, 2, 1)
        return np.linalg.solve(self._kernel(tau, tau, noise=True), cross).transpose(0, 2, 1)


def circulant_samples(autocovariance: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """k samples (k, m) of a stationary Gaussian process of mean 0.

    Circulant embedding (Dietrich & Newsam 1997): white noise is filtered with the square root of
    the power spectrum of the autocovariance (m,) at lags 0, 1, ..., m - 1.

    Raises ValueError if the spectrum has negative power of more than 1e-4 of the total.
    """
    power = rfft(np.concatenate([autocovariance, autocovariance[-2:0:-1]])).real
    if -power.clip(max=0).sum() > 1e-4 * power.sum():
        raise ValueError("no stationary process has this autocovariance: give more lags of it")
    m = len(autocovariance)
    white = rng.normal(size=(k, 2 * m - 2))
    return irfft(rfft(white) * np.sqrt(power.clip(0)), 2 * m - 2)[:, :m]


def _windows(sequences: list[ArrayLike], window: int, C: int | None = None) -> np.ndarray:
    """All N whole windows of sequences (T, C), as columns: (C, window, N)."""
    xs = [checked(s, "sequence", None, C or np.shape(sequences[0])[-1]) for s in sequences]
    if not xs or not 2 <= window <= max(map(len, xs)):
        raise ValueError(f"no window of {window} frames (2 or more) in {[len(x) for x in xs]}")
    cut = [x[i : i + window] for x in xs for i in range(0, len(x) - window + 1, window)]
    return np.stack(cut).transpose(2, 1, 0)


def _most_likely(y: np.ndarray) -> tuple[float, float, float]:
    """The maximum-likelihood σ², ℓ (frames) and σ_n² of one channel's windows (T, N) of mean 0.

    With σ_n² = r σ² the best σ² follows from ℓ and r, so the search is over two numbers only.
    """
    T, N = y.shape
    if np.ptp(y) == 0:
        raise ValueError("a channel is constant: a Gaussian process cannot be fitted to it")
    lag, identity = np.subtract.outer(np.arange(T), np.arange(T)), np.eye(T)

    def solved(theta: np.ndarray) -> tuple:
        ell, r = np.exp(theta)
        R = cauchy(lag, ell)
        factor = cho_factor(R + r * identity, lower=True)
        a = cho_solve(factor, y)
        return ell, r, R, factor, a, np.sum(y * a) / (T * N)

    def loss(theta: np.ndarray) -> tuple[float, np.ndarray]:
        """-log p per value, up to a constant, and its gradient in log ℓ and log r."""
        ell, r, R, factor, a, variance = solved(theta)
        d_R = cho_solve(factor, identity) / T - a @ a.T / (variance * T * N)  # d(2 loss) / dR
        slope = 2 * (lag / ell) ** 2 * R**2  # dR / d log ℓ
        gradient = np.array([np.sum(d_R * slope), r * np.trace(d_R)]) / 2
        return np.log(variance) / 2 + np.log(np.diag(factor[0])).sum() / T, gradient

    starts = [np.log([ell, r]) for ell in (4, 16, 48) for r in (1e-4, 1e-1)]
    bounds = np.log([(0.5, 2 * T), (1e-6, 1e2)])  # below r = 1e-6 rounding errors dominate
    found = [minimize(loss, start, jac=True, bounds=bounds) for start in starts]
    ell, r, *_, variance = solved(min(found, key=lambda result: result.fun).x)
    return variance, ell, r * variance


def _beginning(bop: ArrayLike, n: int, C: int | None = None) -> np.ndarray:
    """`bop` as a checked array (τ, C); n must be 1 or more."""
    if n < 1:
        raise ValueError(f"a forecast needs 1 frame or more, not {n}")
    return checked(bop, "beginning of pose", None, C)
