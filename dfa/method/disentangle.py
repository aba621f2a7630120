"""Face attribute disentanglement F_d (section 3.2, eq. 2): landmarks -> f_m (mouth), f_e (eyes)."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn

from .face import MP_68, FaceModel

MOUTH_POINTS = torch.tensor([*range(0, 17), *range(27, 36), *range(48, 68)])  # jaw, nose, lips
EYE_POINTS = torch.tensor([*range(17, 27), *range(36, 48)])  # brows, eyes
DIM_M, DIM_E = 32, 8


class Disentangler(nn.Module):
    """F_d: an autoencoder l -> (f_m, f_e) -> l over the 68 frontal landmarks of a face.

    Args:
        mean: (68, 3) mean landmarks of the corpus, metres.
        scale: (68, 1) metres to which one unit of the network's input corresponds.
    """

    def __init__(self, mean: Tensor | None = None, scale: Tensor | None = None, width: int = 128):
        super().__init__()
        self.register_buffer("mean", torch.zeros(68, 3) if mean is None else mean.clone())
        self.register_buffer("scale", torch.ones(68, 1) if scale is None else scale.clone())
        self.encoder = nn.Sequential(
            nn.Linear(204, width),
            nn.GELU(),
            nn.Linear(width, width),
            nn.GELU(),
            nn.Linear(width, DIM_M + DIM_E),
        )
        self.decoder = nn.Sequential(  # D_L
            nn.Linear(DIM_M + DIM_E, width),
            nn.GELU(),
            nn.Linear(width, width),
            nn.GELU(),
            nn.Linear(width, 204),
        )

    @classmethod
    def for_landmarks(cls, landmarks: Tensor) -> Disentangler:
        """An F_d whose units suit (N, 68, 3) training landmarks: one scale for mouth, one for eyes,
        because eyes move ten times less and an L1 loss in metres would not see them."""
        mean = landmarks.mean(0)
        scale = torch.ones(68, 1)
        for points in (MOUTH_POINTS, EYE_POINTS):
            scale[points] = (landmarks - mean)[:, points].std().clamp_min(1e-5)
        return cls(mean, scale)

    def encode(self, landmarks: Tensor) -> tuple[Tensor, Tensor]:
        """(..., 68, 3) metres -> f_m (..., 32), f_e (..., 8)."""
        z = self.encoder(((landmarks - self.mean) / self.scale).flatten(-2))
        return z[..., :DIM_M], z[..., DIM_M:]

    def decode(self, f_m: Tensor, f_e: Tensor) -> Tensor:
        """f_m (..., 32), f_e (..., 8) -> landmarks (..., 68, 3) in metres."""
        out = self.decoder(torch.cat([f_m, f_e], -1)).unflatten(-1, (68, 3))
        return out * self.scale + self.mean


def swap(l_mouth: Tensor, l_eyes: Tensor) -> Tensor:
    """The face l_me with the mouth points of one and the eye points of the other, (..., 68, 3).

    Both are frontal and free of identity, so the points of two faces fit together.
    """
    out = l_mouth.clone()
    out[..., EYE_POINTS, :] = l_eyes[..., EYE_POINTS, :]
    return out


def swap_loss(f_d: Disentangler, l_a: Tensor, l_b: Tensor) -> Tensor:
    """L_rec of eq. 2, and the plain reconstructions, as L1 in the network's units.

    l_a, l_b: (B, 68, 3). Decoding (f_m of A, f_e of B) must give A's mouth under B's eyes: the
    only way to satisfy this for all pairs is to decode the mouth from f_m and the eyes from f_e.
    """
    m_a, e_a = f_d.encode(l_a)
    m_b, e_b = f_d.encode(l_b)
    decoded = f_d.decode(torch.cat([m_a, m_b, m_a, m_b]), torch.cat([e_b, e_a, e_a, e_b]))
    target = torch.cat([swap(l_a, l_b), swap(l_b, l_a), l_a, l_b])
    return ((decoded - target) / f_d.scale).abs().mean()


def plain_loss(f_d: Disentangler, l_a: Tensor, l_b: Tensor) -> Tensor:
    """`swap_loss` without the crossings, for the control: an autoencoder of (B, 68, 3) faces."""
    l = torch.cat([l_a, l_b])
    return ((f_d.decode(*f_d.encode(l)) - l) / f_d.scale).abs().mean()


# --- what F_d is held against -------------------------------------------------------------------


@cache
def _expression_basis() -> tuple[Tensor, Tensor]:
    """S_mean (204,) and B_exp (204, 40) of eq. 1 at the 68 points, metres."""
    mean, _, B_exp = FaceModel.load().at_mediapipe()
    return torch.from_numpy(mean[MP_68]).flatten(), torch.from_numpy(B_exp[MP_68]).flatten(0, 1)


def expression(landmarks: Tensor, sigma: float = 1e-5) -> Tensor:
    """The likeliest F_exp (..., 40) of eq. 1 for frontal landmarks (..., 68, 3) of the mean head.

    Each coordinate is known within `sigma` metres and F_exp is N(0, 1): a regularised least
    squares in closed form. The landmarks that `track` makes give back their own F_exp.
    """
    mean, B = (x.double() for x in _expression_basis())
    inverse = torch.linalg.solve(B.T @ B + sigma**2 * torch.eye(B.shape[1]), B.T)
    return ((landmarks.flatten(-2) - mean) @ inverse.T).to(landmarks.dtype)


def expression_landmarks(F_exp: Tensor) -> Tensor:
    """Eq. 1 at the 68 points for the mean head: F_exp (..., 40) -> landmarks (..., 68, 3)."""
    mean, B = _expression_basis()
    return (mean + F_exp @ B.T).unflatten(-1, (68, 3))


class Assigned:
    """A code that was never told what is mouth and what eyes, parted in the way that favours it.

    The code is turned to its principal axes on the corpus. The 8 axes that move the eyes most and
    the mouth least become f_e, the others f_m; of all choices of 8 axes, this one makes the sum of
    both leakages smallest (as squares, and where each axis moves the face for itself).

    Args:
        encode: landmarks (N, 68, 3) -> code (N, 40). decode: the way back.
        landmarks: (N, 68, 3) of the corpus. scale: `Disentangler.scale`, which makes the motion of
            eyes and mouth comparable.
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
            some = (z[:: max(len(z) // 1000, 1)] - self.mean) @ self.axes
            gain = [self._eyes_less_mouth(some, k, scale) for k in range(some.shape[1])]
        order = torch.tensor(gain).argsort(descending=True)
        self.e, self.m = order[:DIM_E], order[DIM_E:]

    def _eyes_less_mouth(self, code: Tensor, axis: int, scale: Tensor) -> float:
        """How much more a swap along one axis moves the eyes than the mouth (mean squares)."""
        other = code.clone()
        other[:, axis] = code[:, axis].roll(len(code) // 2)
        moved = ((self._face(other) - self._face(code)) / scale).square()
        return float(moved[:, EYE_POINTS].mean() - moved[:, MOUTH_POINTS].mean())

    def _face(self, code: Tensor) -> Tensor:
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
    """The control of an autoencoder that learnt by `plain_loss` on corpus landmarks (N, 68, 3)."""

    def decode(z: Tensor) -> Tensor:
        return plain.decode(z[..., :DIM_M], z[..., DIM_M:])

    return Assigned(lambda l: torch.cat(plain.encode(l), -1), decode, landmarks, plain.scale)


def pca(landmarks: Tensor) -> Assigned:
    """The control that learns nothing: F_exp of eq. 1 on its principal axes over the corpus."""
    scale = Disentangler.for_landmarks(landmarks).scale
    return Assigned(expression, expression_landmarks, landmarks, scale)


# --- measures -----------------------------------------------------------------------------------


@torch.inference_mode()
def separation(
    model: Disentangler | Assigned, landmarks: Tensor, generator: torch.Generator
) -> dict[str, np.ndarray]:
    """How well a model parts mouth from eyes on (T, 68, 3) landmarks of one face, in per cent.

    Each frame is paired with another, drawn at random. `reconstruction_iod`: mean distance of the
    decoded points, as a share of the inter-ocular distance. `leak_eyes`: how far the eye points
    move when only f_m is swapped, as a share of how far they really move between two frames;
    `leak_mouth`: the other way round. Each is (T,): a frame's distance over the mean of all real
    ones, so that the mean over frames is the ratio of means.
    """
    other = landmarks[torch.randperm(len(landmarks), generator=generator)]
    (m, e), (m_other, e_other) = model.encode(landmarks), model.encode(other)
    plain = model.decode(m, e)
    eyes = landmarks[:, 36:42].mean(1) - landmarks[:, 42:48].mean(1)

    def moved(a: Tensor, b: Tensor, points: Tensor) -> Tensor:
        return (a - b)[:, points].norm(dim=-1).mean(-1)

    shares = {
        "reconstruction_iod": (moved(plain, landmarks, torch.arange(68)), eyes.norm(dim=-1)),
        "leak_eyes": (
            moved(model.decode(m_other, e), plain, EYE_POINTS),
            moved(other, landmarks, EYE_POINTS),
        ),
        "leak_mouth": (
            moved(model.decode(m, e_other), plain, MOUTH_POINTS),
            moved(other, landmarks, MOUTH_POINTS),
        ),
    }
    return {name: (100 * got / real.mean()).numpy() for name, (got, real) in shares.items()}


def probe(code: np.ndarray, truth: np.ndarray, blocks: int = 5) -> np.ndarray:
    """What a ridge regression reads of `truth` (T,) in a code (T, D): (T,) whose mean is R².

    Each of `blocks` contiguous stretches is predicted from the others. Inputs are standardised: a
    probe rescales, so that a trace too small to move any point counts like a large one. R² is
    below 0 where the mean of the truth would have been the better guess; nan for constant truth.
    """
    from sklearn.linear_model import Ridge
    from sklearn.model_selection import KFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    truth = np.asarray(truth, float)
    if np.ptp(truth) == 0:
        return np.full(len(truth), np.nan)
    ridge = make_pipeline(StandardScaler(), Ridge())
    told = cross_val_predict(ridge, np.asarray(code, float), truth, cv=KFold(blocks))
    return 1 - (truth - told) ** 2 / truth.var()
