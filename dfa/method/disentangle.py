"""Face attribute disentanglement F_d (section 3.2, eq. 2): landmarks -> f_m (mouth), f_e (eyes)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ..recipe import Recipe, digest
from ..training import train
from .face import BROWS, EYES, JAW, LIPS, NOSE_BASE, NOSE_BRIDGE

_POINTS = torch.arange(68)
MOUTH_POINTS = torch.cat([_POINTS[part] for part in (JAW, NOSE_BRIDGE, NOSE_BASE, LIPS)])
EYE_POINTS = torch.cat([_POINTS[part] for part in (BROWS, EYES)])
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


@dataclass(frozen=True)
class DisentanglementRecipe(Recipe):
    """F_d's training."""

    batch: int = 256  # pairs of faces a step
    swapped: bool = True  # False: the control, an autoencoder that never sees two faces crossed


def train_disentangler(
    landmarks: Tensor, recipe: DisentanglementRecipe, path: Path, seed: int
) -> tuple[Disentangler, list[dict]]:
    """F_d on (N, 68, 3) frontal landmarks of all corpus subjects (eq. 2), and its history."""
    torch.manual_seed(seed)
    f_d, rec = Disentangler.for_landmarks(landmarks), swap_loss if recipe.swapped else plain_loss

    def loss(g: torch.Generator) -> tuple[Tensor, dict]:
        a, b = landmarks[torch.randint(len(landmarks), (2, recipe.batch), generator=g)]
        return rec(f_d, a, b), {}  # a, b (batch, 68, 3)

    label = "F_d" if recipe.swapped else "F_d without swaps"
    return f_d, train(f_d, loss, recipe, path=path, seed=seed, data=digest(landmarks), label=label)
