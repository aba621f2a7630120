"""Face attribute disentanglement F_d (section 3.2, eq. 2): landmarks -> f_m (mouth), f_e (eyes)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

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
    only way to satisfy this for all pairs is that f_m carries the mouth alone and f_e the eyes.
    """
    m_a, e_a = f_d.encode(l_a)
    m_b, e_b = f_d.encode(l_b)
    decoded = f_d.decode(torch.cat([m_a, m_b, m_a, m_b]), torch.cat([e_b, e_a, e_a, e_b]))
    target = torch.cat([swap(l_a, l_b), swap(l_b, l_a), l_a, l_b])
    return ((decoded - target) / f_d.scale).abs().mean()


@torch.inference_mode()
def separation(
    f_d: Disentangler, landmarks: Tensor, generator: torch.Generator
) -> dict[str, float]:
    """How well f_d parts mouth from eyes on (T, 68, 3) landmarks of one face, in per cent.

    Each frame is paired with another, drawn at random. `reconstruction_iod`: mean distance of the
    decoded points, as a share of the inter-ocular distance. `leak_eyes`: how far the eye points
    move when only f_m is swapped, as a share of how far they really move between the two frames;
    `leak_mouth`: the other way round.
    """
    other = landmarks[torch.randperm(len(landmarks), generator=generator)]
    (m, e), (m_other, e_other) = f_d.encode(landmarks), f_d.encode(other)
    plain = f_d.decode(m, e)
    eyes = landmarks[:, 36:42].mean(1) - landmarks[:, 42:48].mean(1)

    def moved(a: Tensor, b: Tensor, points: Tensor) -> Tensor:
        return (a - b)[:, points].norm(dim=-1).mean()

    ratios = {
        "reconstruction_iod": moved(plain, landmarks, torch.arange(68)) / eyes.norm(dim=-1).mean(),
        "leak_eyes": moved(f_d.decode(m_other, e), plain, EYE_POINTS)
        / moved(other, landmarks, EYE_POINTS),
        "leak_mouth": moved(f_d.decode(m, e_other), plain, MOUTH_POINTS)
        / moved(other, landmarks, MOUTH_POINTS),
    }
    return {name: 100 * float(value) for name, value in ratios.items()}
