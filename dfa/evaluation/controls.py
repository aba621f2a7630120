"""Controls for F_d, and measures of how well a code separates mouth and eyes (section 3.2)."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from torch import Tensor

from ..method.disentangle import DIM_E, DIM_M, EYE_POINTS, MOUTH_POINTS, Disentangler
from ..method.face import LEFT_EYE, MP_68, RIGHT_EYE, FaceModel


class Assigned:
    """A code that was trained without a separation, split afterwards into f_m and f_e.

    The split is the most favourable one for the code. The code is rotated to its principal axes on
    the corpus. The 8 axes that move the eyes most and the mouth least become f_e, the others f_m.
    Of all choices of 8 axes, this one minimises the sum of both squared leakages, if the effects of
    the axes add up.

    Args:
        encode: landmarks (N, 68, 3) in metres -> code (N, 40). decode: the inverse.
        landmarks: (N, 68, 3) of the corpus, metres.
        scale: `Disentangler.scale`, which makes the motion of eyes and mouth comparable.
    """

    def __init__(
        self,
        encode: Callable[[Tensor], Tensor],
        decode: Callable[[Tensor], Tensor],
        landmarks: Tensor,
        scale: Tensor,
    ):
        self._encode, self._decode = encode, decode
        with torch.no_grad():
            z = encode(landmarks)
            self.mean, self.axes = z.mean(0), torch.linalg.eigh(torch.cov(z.T))[1]
            subset = (z[:: max(len(z) // 1000, 1)] - self.mean) @ self.axes  # about (1000, 40)
            gain = [self._eyes_less_mouth(subset, k, scale) for k in range(subset.shape[1])]
        order = torch.tensor(gain).argsort(descending=True)
        self.e, self.m = order[:DIM_E], order[DIM_E:]

    def _eyes_less_mouth(self, code: Tensor, axis: int, scale: Tensor) -> float:
        """Mean squared motion of the eyes minus that of the mouth, if one axis is swapped."""
        swapped = code.clone()
        swapped[:, axis] = code[:, axis].roll(len(code) // 2)  # with a frame half the corpus away
        motion = ((self._face(swapped) - self._face(code)) / scale).square()
        return float(motion[:, EYE_POINTS].mean() - motion[:, MOUTH_POINTS].mean())

    def _face(self, code: Tensor) -> Tensor:
        """Principal components (N, 40) -> landmarks (N, 68, 3)."""
        return self._decode(code @ self.axes.T + self.mean)

    def encode(self, landmarks: Tensor) -> tuple[Tensor, Tensor]:
        """(..., 68, 3) metres -> f_m (..., 32), f_e (..., 8)."""
        code = (self._encode(landmarks) - self.mean) @ self.axes
        return code[..., self.m], code[..., self.e]

    def decode(self, f_m: Tensor, f_e: Tensor) -> Tensor:
        """f_m (..., 32), f_e (..., 8) -> landmarks (..., 68, 3) in metres."""
        code = torch.cat([f_m, f_e], -1)[..., torch.cat([self.m, self.e]).argsort()]
        return self._face(code)


def no_swap(plain: Disentangler, landmarks: Tensor) -> Assigned:
    """The control of an autoencoder trained with `plain_loss`, that is without swapping.

    landmarks: (N, 68, 3) of the corpus, metres.
    """

    def decode(z: Tensor) -> Tensor:
        return plain.decode(z[..., :DIM_M], z[..., DIM_M:])

    return Assigned(lambda l: torch.cat(plain.encode(l), -1), decode, landmarks, plain.scale)


@cache
def _expression_basis() -> tuple[Tensor, Tensor]:
    """S_mean (204,) and B_exp (204, 40) of eq. 1 at the 68 points, metres."""
    mean, _, B_exp = FaceModel.load().at_mediapipe()
    return torch.from_numpy(mean[MP_68]).flatten(), torch.from_numpy(B_exp[MP_68]).flatten(0, 1)


def expression(landmarks: Tensor, sigma: float = 1e-5) -> Tensor:
    """The most probable F_exp (..., 40) of eq. 1 for frontal landmarks (..., 68, 3), metres.

    Regularised least squares in closed form: coordinates have the standard deviation `sigma`
    (metres), F_exp is N(0, 1), identity is the mean head. Inverts `expression_landmarks`.
    """
    mean, B = (x.double() for x in _expression_basis())
    inverse = torch.linalg.solve(B.T @ B + sigma**2 * torch.eye(B.shape[1]), B.T)
    return ((landmarks.flatten(-2) - mean) @ inverse.T).to(landmarks.dtype)


def expression_landmarks(F_exp: Tensor) -> Tensor:
    """Landmarks of the mean head (eq. 1): F_exp (..., 40) -> l (..., 68, 3), metres."""
    mean, B = _expression_basis()
    return (mean + F_exp @ B.T).unflatten(-1, (68, 3))


def pca(landmarks: Tensor) -> Assigned:
    """The control without learning: the principal components of F_exp (eq. 1) over the corpus.

    landmarks: (N, 68, 3) of the corpus, metres.
    """
    scale = Disentangler.for_landmarks(landmarks).scale
    return Assigned(expression, expression_landmarks, landmarks, scale)


@torch.inference_mode()
def separation(
    model: Disentangler | Assigned, landmarks: Tensor, generator: torch.Generator
) -> dict[str, np.ndarray]:
    """How well a model separates mouth and eyes, on landmarks (T, 68, 3) of one face, in per cent.

    Each frame is paired with another frame, drawn at random. Returns three arrays (T,):

    - `reconstruction_iod`: mean distance of the decoded points from the input, relative to the
      inter-ocular distance;
    - `leak_eyes`: motion of the eye points when only f_m is swapped, relative to their real motion
      between the two frames;
    - `leak_mouth`: motion of the mouth points when only f_e is swapped, in the same way.

    Each frame's distance is divided by the mean real distance of all frames. So the mean over the
    frames is the ratio of means.
    """
    other = landmarks[torch.randperm(len(landmarks), generator=generator)]
    (m, e), (m_other, e_other) = model.encode(landmarks), model.encode(other)
    plain = model.decode(m, e)
    eyes = landmarks[:, RIGHT_EYE].mean(1) - landmarks[:, LEFT_EYE].mean(1)

    def distance(a: Tensor, b: Tensor, points: Tensor) -> Tensor:
        return (a - b)[:, points].norm(dim=-1).mean(-1)  # (T, n, 3) -> (T,)

    pairs = {
        "reconstruction_iod": (distance(plain, landmarks, torch.arange(68)), eyes.norm(dim=-1)),
        "leak_eyes": (
            distance(model.decode(m_other, e), plain, EYE_POINTS),
            distance(other, landmarks, EYE_POINTS),
        ),
        "leak_mouth": (
            distance(model.decode(m, e_other), plain, MOUTH_POINTS),
            distance(other, landmarks, MOUTH_POINTS),
        ),
    }
    return {name: (100 * got / real.mean()).numpy() for name, (got, real) in pairs.items()}


def probe(code: np.ndarray, truth: np.ndarray, blocks: int = 5) -> np.ndarray:
    """How well a ridge regression predicts `truth` (T,) from a code (T, D).

    Cross-validation: each of `blocks` contiguous parts is predicted from the others. Inputs are
    standardised, so a component counts even if it is too small to move any point.

    Returns (T,), whose mean is R². R² is below 0 if the mean of the truth is a better prediction;
    nan if the truth is constant.
    """
    from sklearn.linear_model import Ridge
    from sklearn.model_selection import KFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    truth = np.asarray(truth, float)
    if np.ptp(truth) == 0:
        return np.full(len(truth), np.nan)
    ridge = make_pipeline(StandardScaler(), Ridge())
    predicted = cross_val_predict(ridge, np.asarray(code, float), truth, cv=KFold(blocks))
    return 1 - (truth - predicted) ** 2 / truth.var()
