"""A model of the tracker: what it makes of an actor's true facial actions and head poses.

It is learnt from the tracked captures, whose truth is known. With it, speech and motion of new
people become attributes as the tracker would give them, without a picture: F_exp is linear in the
actions, the pose has a constant error, and both have correlated noise.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .. import captures
from ..method.face import FOCAL, LOWER_LIDS, LOWER_LIP, UPPER_LIDS, UPPER_LIP, FaceModel, in_image
from ..method.tracking import eye_aspect_ratio
from ..recording import Attributes

POOLED, OWN = 1.0, 10.0  # ridge, in frames x action²: of the map of all actors, of an actor's own
POSE = 6  # numbers of a pose: the first of an error


class Take(NamedTuple):
    """The truth of a capture of T frames, and what the tracker found."""

    actions: np.ndarray  # (T, 52)
    h: np.ndarray  # (T, 6) true pose, as the tracker's camera sees it
    F_exp: np.ndarray  # (T, K)
    tracked: np.ndarray  # (T, 6) tracked pose


def filmed(h: np.ndarray, camera: np.ndarray) -> np.ndarray:
    """Poses h (T, 6) as they look to the tracker, which knows neither zoom nor shift.

    camera: (T, 3) as of `captures.truth`.
    """
    zoom, shift = camera[:, :1], camera[:, 1:]
    z = h[:, 5:] / zoom
    return np.concatenate([h[:, :3], h[:, 3:5] + z * shift / FOCAL, z], axis=1)


def take(name: str, runs: str | Path) -> Take:
    """The `Take` of a sample capture, tracked by notebook 01 in the folder `runs`.

    All of it is of the picture: a sound that is late changes nothing. Raises InputError if the
    attributes do not exist.
    """
    (file,) = captures.tracks([name], runs)
    found, truth = Attributes.load(file), captures.truth(name)
    true = {key: truth[key][: len(found)].astype(float) for key in ("actions", "h")}
    h = filmed(true["h"], truth["camera"][: len(found)].astype(float))
    return Take(true["actions"], h, found.F_exp.astype(float), found.h.astype(float))


def ridge(x: np.ndarray, y: np.ndarray, penalty: float) -> np.ndarray:
    """(D, K) the linear map from x (n, D) to y (n, K) with the least squares and small entries."""
    return np.linalg.solve(x.T @ x + penalty * np.eye(x.shape[1]), x.T @ y)


@dataclass(frozen=True)
class TrackerModel:
    """The tracker's view of n actors, with C = 6 + K errors of [h ; F_exp].

    F_exp = offset + actions @ map + error and h = true + bias + error, where the error is the
    process error_t = error_{t-1} @ memory + innovation.
    """

    offsets: np.ndarray  # (n, K)
    maps: np.ndarray  # (n, 52, K)
    biases: np.ndarray  # (n, 6) radians and metres
    memory: np.ndarray  # (C, C) of the errors of the frame before
    spread: np.ndarray  # (C, C) covariance of the errors
    innovation: np.ndarray  # (C, C) covariance of what is new in a frame

    @classmethod
    def fit(cls, takes: list[Take]) -> "TrackerModel":
        """Learn it from the captures of n actors.

        An actor's map is that of all actors plus what the own capture says beyond it.
        """
        centred = [(t.actions - t.actions.mean(0), t.F_exp - t.F_exp.mean(0)) for t in takes]
        pooled = ridge(*(np.concatenate(each) for each in zip(*centred, strict=True)), POOLED)
        maps = np.stack([pooled + ridge(x, y - x @ pooled, OWN) for x, y in centred])
        offsets = np.stack(
            [t.F_exp.mean(0) - t.actions.mean(0) @ m for t, m in zip(takes, maps, strict=True)]
        )
        biases = np.stack([(t.tracked - t.h).mean(0) for t in takes])
        errors = [
            np.concatenate([t.tracked - t.h - b, t.F_exp - o - t.actions @ m], axis=1)
            for t, m, o, b in zip(takes, maps, offsets, biases, strict=True)
        ]
        before, after = (np.concatenate([e[s] for e in errors]) for s in (np.s_[:-1], np.s_[1:]))
        memory = np.linalg.lstsq(before, after, rcond=None)[0]
        spread = np.cov(np.concatenate(errors).T)
        innovation = np.cov((after - before @ memory).T)
        return cls(offsets, maps, biases, memory, spread, innovation)

    def error(self, T: int, rng: np.random.Generator) -> np.ndarray:
        """(T, C) random errors of [h ; F_exp], correlated in time and with each other."""
        zero = np.zeros(len(self.memory))
        new = rng.multivariate_normal(zero, self.innovation, T, method="eigh")
        errors = np.empty_like(new)
        errors[0] = rng.multivariate_normal(zero, self.spread, method="eigh")
        for t in range(1, T):
            errors[t] = errors[t - 1] @ self.memory + new[t]
        return errors

    def track(
        self, actions: np.ndarray, h: np.ndarray, weights: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Pose (T, 6) and F_exp (T, K) of actions (T, 52) and true poses h (T, 6).

        weights: (n,), sum 1, of the actors whose map, offset and bias are mixed.
        """
        error = self.error(len(h), rng)
        offset, map_, bias = (
            np.tensordot(weights, each, 1) for each in (self.offsets, self.maps, self.biases)
        )
        return h + bias + error[:, :POSE], offset + actions @ map_ + error[:, POSE:]

    def attributes(
        self, actions: np.ndarray, h: np.ndarray, weights: np.ndarray, rng: np.random.Generator
    ) -> Attributes:
        """`track`, as the tracker's Attributes of T frames of a person of random identity."""
        model, T = FaceModel.load(), len(h)
        pose, F_exp = self.track(actions, h, weights, rng)
        F_id = rng.standard_normal(model.B_id.shape[-1])
        points = in_image(pose, model.landmarks(F_id, F_exp))
        arrays = dict(
            h=pose, F_exp=F_exp, F_id=F_id, landmarks=model.landmarks(0 * F_id, F_exp),
            points=points, ear=eye_aspect_ratio(points), h_raw=pose,
        )  # fmt: skip
        arrays = {name: a.astype(np.float32) for name, a in arrays.items()}
        return Attributes(lost=np.zeros(T, bool), crop=np.array([0, 0, 256]), **arrays)


def openings(F_exp: np.ndarray) -> dict[str, np.ndarray]:
    """Mouth and lid opening (T,), metres, of expressions (T, K), and the expressions themselves."""
    model = FaceModel.load()
    l = model.landmarks(np.zeros(model.B_id.shape[-1]), F_exp)
    lips, lids = (
        np.linalg.norm(l[:, upper] - l[:, lower], axis=-1).mean(1)
        for upper, lower in ((UPPER_LIP, LOWER_LIP), (UPPER_LIDS, LOWER_LIDS))
    )
    return {"F_exp": F_exp, "mouth opening": lips, "lid opening": lids}


def explained(takes: list[Take]) -> dict[str, float]:
    """Variance, 0 to 1, that the map explains in captures of actors that it was not learnt from.

    Each actor is left out in turn, and the mean of the others' maps predicts F_exp, up to a
    constant. Returns means over the actors: of F_exp, mouth opening and lid opening.
    """
    parts: dict[str, list[float]] = {}
    for k, left_out in enumerate(takes):
        model = TrackerModel.fit(takes[:k] + takes[k + 1 :])
        predicted = left_out.actions @ model.maps.mean(0)
        predicted += (left_out.F_exp - predicted).mean(0)
        found = openings(predicted)
        for name, true in openings(left_out.F_exp).items():
            rest = (true - found[name]).var(0).sum() / true.var(0).sum()
            parts.setdefault(name, []).append(1 - rest)
    return {name: float(np.mean(each)) for name, each in parts.items()}
