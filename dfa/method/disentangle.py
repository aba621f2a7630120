"""Face attribute disentanglement F_d (section 3.2, eq. 2): landmarks -> f_m (mouth), f_e (eyes)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ..recipe import Recipe, digest
from ..training import pick_device, train
from .face import BROWS, EYES, JAW, LIPS, NOSE_BASE, NOSE_BRIDGE

_POINTS = torch.arange(68)
MOUTH_POINTS = torch.cat([_POINTS[part] for part in (JAW, NOSE_BRIDGE, NOSE_BASE, LIPS)])
EYE_POINTS = torch.cat([_POINTS[part] for part in (BROWS, EYES)])
DIM_M, DIM_E = 32, 8  # sizes of f_m and f_e


class Disentangler(nn.Module):
    """F_d (figure 3): an autoencoder l -> (f_m, f_e) -> l of the 68 frontal landmarks of a face.

    Args:
        mean: (68, 3) mean landmarks of the corpus, metres.
        scale: (68, 1) metres per unit of the network's input.
        width: units of each hidden layer.
    """

    def __init__(self, mean: Tensor | None = None, scale: Tensor | None = None, width: int = 128):
        super().__init__()
        self.register_buffer("mean", torch.zeros(68, 3) if mean is None else mean.clone())
        self.register_buffer("scale", torch.ones(68, 1) if scale is None else scale.clone())
        self.encoder = nn.Sequential(  # E_L
            nn.Linear(204, width), nn.GELU(), nn.Linear(width, width), nn.GELU(),
            nn.Linear(width, DIM_M + DIM_E),
        )  # fmt: skip
        self.decoder = nn.Sequential(  # D_L
            nn.Linear(DIM_M + DIM_E, width), nn.GELU(), nn.Linear(width, width), nn.GELU(),
            nn.Linear(width, 204),
        )  # fmt: skip

    @classmethod
    def for_landmarks(cls, landmarks: Tensor) -> Disentangler:
        """An untrained F_d with mean and scale of the training landmarks (N, 68, 3), metres.

        Mouth and eyes have a scale each: eyes move ten times less, so that an L1 loss in metres
        would ignore them.
        """
        mean = landmarks.mean(0)
        scale = torch.ones(68, 1)
        for points in (MOUTH_POINTS, EYE_POINTS):
            scale[points] = (landmarks - mean)[:, points].std().clamp_min(1e-5)
        return cls(mean, scale)

    def encode(self, landmarks: Tensor) -> tuple[Tensor, Tensor]:
        """E_L: landmarks (..., 68, 3) in metres -> f_m (..., 32), f_e (..., 8)."""
        z = self.encoder(((landmarks - self.mean) / self.scale).flatten(-2))  # (..., 40)
        return z[..., :DIM_M], z[..., DIM_M:]

    def decode(self, f_m: Tensor, f_e: Tensor) -> Tensor:
        """D_L: f_m (..., 32), f_e (..., 8) -> landmarks (..., 68, 3) in metres."""
        out = self.decoder(torch.cat([f_m, f_e], -1)).unflatten(-1, (68, 3))
        return out * self.scale + self.mean


def swap(l_mouth: Tensor, l_eyes: Tensor) -> Tensor:
    """The face l_me: mouth points of `l_mouth`, eye points of `l_eyes`, each (..., 68, 3), metres.

    Both faces are frontal and have no identity, so their points fit together.
    """
    out = l_mouth.clone()
    out[..., EYE_POINTS, :] = l_eyes[..., EYE_POINTS, :]
    return out


def swap_loss(f_d: Disentangler, l_a: Tensor, l_b: Tensor) -> Tensor:
    """L_rec of eq. 2 plus the plain reconstructions: mean L1 error in units of `scale`, a scalar.

    l_a, l_b: (B, 68, 3), metres. Decoding f_m of A with f_e of B must give the mouth of A and the
    eyes of B. If this holds for all pairs, f_m controls only the mouth and f_e only the eyes.
    """
    m_a, e_a = f_d.encode(l_a)  # (B, 32), (B, 8)
    m_b, e_b = f_d.encode(l_b)
    decoded = f_d.decode(torch.cat([m_a, m_b, m_a, m_b]), torch.cat([e_b, e_a, e_a, e_b]))
    target = torch.cat([swap(l_a, l_b), swap(l_b, l_a), l_a, l_b])  # (4B, 68, 3)
    return ((decoded - target) / f_d.scale).abs().mean()  # eq. 2


def plain_loss(f_d: Disentangler, l_a: Tensor, l_b: Tensor) -> Tensor:
    """`swap_loss` without swaps, the control: reconstruction of faces (B, 68, 3), a scalar."""
    l = torch.cat([l_a, l_b])
    return ((f_d.decode(*f_d.encode(l)) - l) / f_d.scale).abs().mean()


@dataclass(frozen=True)
class DisentanglementRecipe(Recipe):
    """Settings of the training of F_d."""

    batch: int = 256  # pairs of faces per step
    swapped: bool = True  # False: the control, a plain autoencoder


def train_disentangler(
    landmarks: Tensor, recipe: DisentanglementRecipe, path: Path, seed: int, device: str = "auto"
) -> tuple[Disentangler, list[dict]]:
    """Train F_d (eq. 2) on frontal landmarks (N, 68, 3), metres, of all corpus subjects.

    Returns F_d, on the CPU, and the history. Arguments, history and errors as in `training.train`.
    """
    torch.manual_seed(seed)
    where = pick_device(device)
    f_d = Disentangler.for_landmarks(landmarks).to(where)
    reconstruction = swap_loss if recipe.swapped else plain_loss

    def loss(g: torch.Generator) -> tuple[Tensor, dict]:
        i = torch.randint(len(landmarks), (2, recipe.batch), generator=g)
        a, b = landmarks[i].to(where)
        return reconstruction(f_d, a, b), {}  # a, b (batch, 68, 3)

    data, label = digest(landmarks), "F_d" if recipe.swapped else "F_d without swaps"
    history = train(f_d, loss, recipe, path=path, seed=seed, data=data, label=label)
    return f_d.cpu(), history
