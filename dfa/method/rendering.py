"""Volume rendering (section 3.5): rays, samples and their weights, as pure functions."""

from __future__ import annotations

import torch
from torch import Tensor

from .face import FOCAL


def cast_rays(
    size: int, shift: tuple[float, float] = (0.0, 0.0), device: torch.device | str = "cpu"
) -> Tensor:
    """Directions (size * size, 3) through the pixel centres of a size x size image, row by row.

    They have z = 1, so the distance along a ray is the depth. `shift` moves the centres right and
    down, in image sides.
    """
    at = (torch.arange(size, device=device) + 0.5) / size - 0.5
    v, u = torch.meshgrid(at + shift[1], at + shift[0], indexing="ij")
    return torch.stack([u / FOCAL, v / FOCAL, torch.ones_like(u)], -1).reshape(-1, 3)


def stratified(
    near: Tensor, far: Tensor, samples: int, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Depths (..., K) of K `samples` between near and far (...), one in each of K equal strata.

    The middle of the stratum, or with a generator a random place in it. Returns the depths and the
    length (..., 1) of a stratum, both in metres. Eq. 2 of NeRF (Mildenhall et al. 2020).
    """
    delta = ((far - near) / samples)[..., None]
    offset: Tensor | float = 0.5
    if generator is not None:
        offset = torch.rand(*near.shape, samples, generator=generator).to(near.device)
    return near[..., None] + (torch.arange(samples, device=near.device) + offset) * delta, delta


def compositing_weights(sigma: Tensor, delta: Tensor) -> tuple[Tensor, Tensor]:
    """Quadrature of the volume-rendering integral (Max 1995; eq. 3 of NeRF).

    Args:
        sigma: (..., K) densities >= 0 along a ray, front to back, 1/m.
        delta: (..., K) lengths in m.

    Returns (weights (..., K), transmittance behind the last sample (...)):
    w_k = T_k (1 - exp(-σ_k δ_k)), T_k = exp(-Σ_{j<k} σ_j δ_j).
    """
    optical_depth = torch.cumsum(sigma * delta, -1)
    after = torch.exp(-optical_depth)  # (..., K), transmittance behind each sample
    before = torch.cat([torch.ones_like(after[..., :1]), after[..., :-1]], -1)  # T_k
    return before - after, after[..., -1]
