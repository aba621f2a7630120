"""What every radiance field shares (section 3.5, eq. 10): its conditions, the canonical space of
head and torso, and `march`, the one renderer."""

from __future__ import annotations

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.signal import lfilter
from torch import Tensor, nn

from .disentangle import DIM_E
from .face import FOCAL, euler_to_matrix
from .rendering import compositing_weights, stratified
from .sync import DIM_A

CONTEXT = 2  # f_a of this many frames either way: the field sees a moment, not an instant
DIM_C = 12 + DIM_E + (2 * CONTEXT + 2) * DIM_A
MEMORY = 50.0  # frames within which what was heard is forgotten: a breath lasts about as long


def conditions(h: Tensor, f_a: Tensor, f_e: Tensor, context: int = CONTEXT) -> Tensor:
    """What the field is told of each frame, (T, 6), (T, 64), (T, 8) -> (T, DIM_C).

    [h ; slow h ; f_e ; f_a of 5 frames ; slow f_a]: f_c = [f_a ; f_e] of the paper; h averaged over
    about a second, which a torso follows more than the moment's head; and what was heard lately,
    which says when a chest breathes. Other features than f_a, and of more or fewer frames
    (`context` either way), give more or fewer columns.
    """
    T = len(h)
    t = torch.arange(-25, 26, dtype=h.dtype)
    kernel = torch.exp(-0.5 * (t / 10) ** 2)
    slow = F.conv1d(
        F.pad(h.T[:, None], (25, 25), mode="replicate"), (kernel / kernel.sum())[None, None]
    )[:, 0].T
    padded = torch.cat([f_a[:1].expand(context, -1), f_a, f_a[-1:].expand(context, -1)])
    windows = torch.cat([padded[k : k + T] for k in range(2 * context + 1)], 1)
    keep = math.exp(-1 / MEMORY)
    heard = lfilter([1 - keep], [1, -keep], f_a.numpy(), 0, keep * f_a[:50].mean(0).numpy()[None])
    return torch.cat([h, slow, f_e, windows, torch.from_numpy(heard[0]).to(h)], 1)


def float32(method):
    """Under mixed precision: positions, grids and transmittance lose what half precision drops."""

    @functools.wraps(method)
    def in_float32(self, *args, **kwargs):
        with torch.autocast(self.h_mean.device.type, enabled=False):
            return method(self, *args, **kwargs)

    return in_float32


def decibels(error: Tensor) -> float:
    """PSNR in dB of squared errors of colours in 0..1."""
    return -10 * math.log10(max(float(error.detach().mean()), 1e-12))


class Field(nn.Module, ABC):
    """F_θ: (x, d := h, f_c) -> (c, σ) of eq. 10, over the canonical space of one person.

    A field has `tell` (conditions -> what its frames are told), `forward` (points -> radiance, σ),
    `loss` (L_photo of eq. 11 in its own batches) and `image` (conditions -> pictures).

    Args:
        cond: (T, DIM_C) training conditions; their poses place the box and the mean pose, and they
            give the units of h and f_a.
        size: side in pixels of the frames it is to learn.
        context: of `conditions`.
    """

    # half extents around the mean head, metres: the box that holds head, hair and shoulders
    DEPTH = (-0.20, 0.20)
    SHARPNESS = 50.0  # 1/m: head turns into torso over some 4 cm of neck
    frames_per_step, warmup = 4, 50

    def __init__(self, cond: Tensor | None = None, size: int = 128, context: int = CONTEXT):
        super().__init__()
        if cond is None:  # to be loaded
            cond = torch.zeros(2, DIM_C)
            cond[:, 5] = 1.2
        h, heard = cond[:, :6], cond[:, 12 + DIM_E :]
        mean = h.mean(0)
        self.register_buffer("size", torch.tensor(size))
        self.register_buffer("context", torch.tensor(context))
        self.dim_a = heard.shape[1] // (2 * context + 2)
        self.register_buffer("h_mean", mean.clone())
        self.register_buffer("h_std", h.std(0).clamp_min(1e-3))
        self.register_buffer("a_mean", heard.mean(0))
        spread = heard.std(0)  # an entry that hardly moves is no message
        self.register_buffer("a_std", spread.clamp_min(0.5 * float(spread.mean()) + 1e-6))
        half = 0.5 * float(mean[5] + self.DEPTH[1]) / FOCAL * 1.05
        centre = -mean[3:5]  # the optical axis, as seen from the head
        lo = torch.tensor([centre[0] - half, centre[1] - half, self.DEPTH[0]])
        hi = torch.tensor([centre[0] + half, centre[1] + half, self.DEPTH[1]])
        self.register_buffer("lo", lo)
        self.register_buffer("hi", hi)
        # how the torso is carried along by h and slow h, and by breath: three small angles and
        # three metres
        self.torso = nn.Linear(12 + self.dim_a, 6, bias=False)
        nn.init.zeros_(self.torso.weight)

    def split(self, cond: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(B, DIM_C) -> poses (B, 12), what carries the torso (B, 12 + 64) and f_a of the moment
        (B, 5 * 64) in units of their spread, eye codes (B, 8)."""
        poses = ((cond[:, :12].unflatten(1, (2, 6)) - self.h_mean) / self.h_std).flatten(1)
        poses = poses.clamp(-4, 4)  # further off nothing was learnt, and colours would drift
        f_e, f_a = cond[:, 12 : 12 + DIM_E], cond[:, 12 + DIM_E :]
        f_a = (f_a - self.a_mean) / self.a_std
        moment, slow = f_a[:, : -self.dim_a], f_a[:, -self.dim_a :].clamp(-4, 4)
        return poses, torch.cat([poses, slow / 8], 1), moment, f_e

    def canonical(self, depth: Tensor, rays: Tensor, h: Tensor, carries: Tensor) -> Tensor:
        """Points at (B, M, K) depths on rays (B or 1, M, 3) -> box coordinates -1..1, (B, M, K, 3).

        Above the neck a point is seen from the head, x = Rᵀ(X - t); below it from the mean head,
        moved a little with the pose and with breath; between, a blend, so that the neck is one
        piece.
        """
        R, t = euler_to_matrix(h[:, :3]), h[:, 3:]
        R0, t0 = euler_to_matrix(self.h_mean[None, :3])[0], self.h_mean[3:]
        scale = 2 / (self.hi - self.lo)

        def seen_from(R: Tensor, origin: Tensor) -> Tensor:
            direction = rays @ R * scale  # Rᵀ d, row-wise
            start = -(origin + self.lo) * scale - 1
            return start[:, None, None] + depth[..., None] * direction[:, :, None]

        carried = self.torso(carries)  # (B, 6)
        R_torso = R0 @ euler_to_matrix(carried[:, :3])
        head = seen_from(R, (t[:, None] @ R)[:, 0])
        rest = seen_from(R_torso, t0 @ R_torso + carried[:, 3:])
        neck = ((0.14 - self.lo[1]) * scale[1] - 1, self.SHARPNESS / scale[1])
        w = torch.sigmoid((neck[0] - rest[..., 1:2]) * neck[1])
        return torch.lerp(rest, head, w)

    def depth_range(self) -> tuple[Tensor, Tensor]:
        """Depths between which the box lies, in m."""
        return self.h_mean[5] + self.DEPTH[0], self.h_mean[5] + self.DEPTH[1]

    @abstractmethod
    def tell(self, cond: Tensor) -> Any:
        """(B, DIM_C) -> a named tuple with h (B, 6), `carries` (B, 76) and the field's own."""

    @abstractmethod
    def forward(self, x: Tensor, told: Any) -> tuple[Callable[[Tensor], Tensor], Tensor]:
        """Points (B, M, K, 3) in box coordinates -> (radiance, σ (B, M, K) in 1/m).

        `radiance(w)` is Σ_k w_k c_k (B, M, C) for weights (B, M, K): a field may gather before it
        decodes, so c of every sample need not be held. The first three of C are red, green, blue.
        """

    def query(self, x: Tensor, cond: Tensor) -> tuple[Tensor, Tensor]:
        """Equation 10 as it is written: points (B, N, 3) -> c (B, N, C), σ (B, N)."""
        radiance, sigma = self(x[:, :, None], self.tell(cond))
        return radiance(torch.ones_like(sigma)), sigma[..., 0]

    @abstractmethod
    def loss(
        self, cond: Tensor, frames: Tensor, weight: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        """L_photo of eq. 11: cond (B, DIM_C), frames (B, 3, S, S) in 0..1, weight (B, 1, S, S)."""

    @abstractmethod
    def image(self, cond: Tensor, size: int) -> Tensor:
        """Pictures of (B, DIM_C) conditions, (B, 3, size, size), in about 0..1."""

    @abstractmethod
    def parameter_groups(self) -> list[dict]:
        """Adam's groups."""


# --- rendering -----------------------------------------------------------------------------------


def march(
    field: Field,
    told: Any,
    rays: Tensor,
    near: Tensor,
    far: Tensor,
    samples: int,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Render rays of B frames through any field: the one renderer.

    Args:
        told: what `field.tell` made of B conditions.
        rays: (B or 1, M, 3) directions with z = 1; near, far (B, M) depths in m.

    Returns (Σ_k w_k c_k (B, M, C), transmittance behind the last sample (B, M)).
    """
    with torch.autocast(rays.device.type, enabled=False):  # a position in half precision is lost
        depth, delta = stratified(near, far, samples, generator)
        x = field.canonical(depth, rays, told.h, told.carries)
    radiance, sigma = field(x, told)
    w, left = compositing_weights(sigma.float(), delta)
    return radiance(w), left


@torch.inference_mode()
def render(field: Field, cond: Tensor, size: int, batch: int = 8) -> Iterator[np.ndarray]:
    """Frames of (T, DIM_C) conditions, one by one: (size, size, 3) uint8 arrays."""
    device = field.h_mean.device
    for chunk in cond.split(batch):
        image = field.image(chunk.to(device), size)
        yield from (image.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()


def render_all(field: Field, cond: Tensor, size: int) -> np.ndarray:
    """`render`, stacked: (T, size, size, 3) uint8."""
    return np.stack(list(render(field, cond, size)))
