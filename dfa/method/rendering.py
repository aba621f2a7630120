"""Volume rendering (section 3.5): rays, samples and their weights, as pure functions."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .face import FOCAL


class Camera(NamedTuple):
    """A camera that sees X' = R X + t, where X are the coordinates of the camera at rest."""

    R: Tensor  # (3, 3)
    t: Tensor  # (3,) metres


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


def stratified(edges: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
    """Depths (..., K), one in each of the K intervals with `edges` (..., K + 1), and their lengths.

    The middle of the interval, or with a generator a random place in it. All in metres. With even
    intervals this is eq. 2 of NeRF (Mildenhall et al. 2020).
    """
    delta = edges[..., 1:] - edges[..., :-1]
    offset: Tensor | float = 0.5
    if generator is not None:
        offset = torch.rand(delta.shape, generator=generator).to(delta.device)
    return edges[..., :-1] + offset * delta, delta


def even_intervals(ends: tuple[Tensor, Tensor], samples: int) -> Tensor:
    """Edges (..., samples + 1) of intervals of equal length between two depths (...), metres."""
    near, far = ends
    share = torch.linspace(0, 1, samples + 1, device=near.device)
    return torch.lerp(near[..., None], far[..., None], share)


def equal_shares(edges: Tensor, weight: Tensor, samples: int) -> Tensor:
    """Edges (..., samples + 1) of intervals that each hold the same share of a ray's weight.

    The inverse of the cumulative weight, as in section 5.2 of NeRF; but its values are edges, so
    the intervals cover the whole ray.

    Args:
        edges: (..., N + 1) of N intervals, metres.
        weight: (..., N) > 0, spread evenly over each interval.
    """
    cumulative = F.pad(weight.cumsum(-1), (1, 0))  # (..., N + 1)
    cumulative = cumulative / cumulative[..., -1:]
    share = torch.linspace(0, 1, samples + 1, device=weight.device)
    share = share.expand(*weight.shape[:-1], -1).contiguous()
    i = torch.searchsorted(cumulative, share, right=True).clamp(1, weight.shape[-1])
    before, after = cumulative.gather(-1, i - 1), cumulative.gather(-1, i)
    within = ((share - before) / (after - before)).clamp(0, 1)
    edges = edges.expand(*weight.shape[:-1], -1)
    return torch.lerp(edges.gather(-1, i - 1), edges.gather(-1, i), within)


def compositing_weights(sigma: Tensor, delta: Tensor) -> tuple[Tensor, Tensor]:
    """Quadrature of the volume-rendering integral (Max 1995; eq. 3 of NeRF).

    Args:
        sigma: (..., K) densities >= 0 along a ray, front to back, 1/m.
        delta: (..., K) lengths of their intervals, metres.

    Returns (weights (..., K), transmittance behind the last sample (...)):
    w_k = T_k (1 - exp(-σ_k δ_k)), T_k = exp(-Σ_{j<k} σ_j δ_j).
    """
    optical_depth = torch.cumsum(sigma * delta, -1)
    after = torch.exp(-optical_depth)  # (..., K), transmittance behind each sample
    before = torch.cat([torch.ones_like(after[..., :1]), after[..., :-1]], -1)  # T_k
    return before - after, after[..., -1]
