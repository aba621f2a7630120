"""The radiance field of the paper (eq. 10): an MLP of 8 layers of 256 units, 64 samples a ray."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .disentangle import DIM_E
from .field import CONTEXT, Field, Radiance, decibels, march
from .rendering import cast_rays, even_intervals


def positional_encoding(x: Tensor, frequencies: int) -> Tensor:
    """[x, sin(2^l π x), cos(2^l π x)], l < frequencies: (..., D) -> (..., D + 2 D frequencies).

    γ of eq. 4 of NeRF (Mildenhall et al. 2020).
    """
    angle = x[..., None, :] * (math.pi * 2.0 ** torch.arange(frequencies, device=x.device))[:, None]
    return torch.cat([x, angle.sin().flatten(-2), angle.cos().flatten(-2)], -1)


class PaperConditioning(NamedTuple):
    """Prepared conditions of B frames."""

    h: Tensor  # (B, 6)
    torso: Tensor  # (B, 6) its pose
    d: Tensor  # (B, 42) the encoded pose
    f_c: Tensor  # (B, 96) [f_a ; f_e]


class PaperField(Field):
    """F_θ of eq. 10 as an MLP, with the sizes of the authors' code.

    - Eight layers of 256 units. x and f_c enter at the input and the skip, d := h at a view layer.
    - 10 frequencies encode x, 3 encode h. f_e is mapped to 32 dimensions, and f_a is averaged over
      its 5 frames with learned weights.
    - 64 samples a ray, 2,048 rays of one frame a step, a background behind the last sample.

    Differences from the authors' code: the canonical space separates head and torso, not face
    parsing. The background is learned, not cut from the video. σ is a softplus: with ReLU some
    seeds never became opaque. Adam has the learning rate 2e-3 without warm-up. In minutes it gives
    2.5 dB more than the authors' 5e-4, which is meant for 600,000 steps.
    """

    RAYS, SAMPLES, WIDTH, LAYERS, SKIP = 2048, 64, 256, 8, 4  # rays a step, samples a ray, MLP
    UNIT = 0.1  # metres; about the authors' unit of length, whose inverse is the unit of σ
    frames_per_step, warmup = 1, 1

    def __init__(self, cond: Tensor | None = None, size: int = 128, context: int = CONTEXT):
        super().__init__(cond, size, context)
        W, dim_x, dim_d, dim_c = self.WIDTH, 3 + 6 * 10, 6 + 12 * 3, self.dim_a + 32
        self.eyes = nn.Linear(DIM_E, 32)
        self.smooth = nn.Parameter(torch.zeros(2 * context + 1))
        self.trunk = nn.ModuleList(
            nn.Linear({0: dim_x + dim_c, self.SKIP + 1: W + dim_x + dim_c}.get(i, W), W)
            for i in range(self.LAYERS)
        )
        self.density, self.feature = nn.Linear(W, 1), nn.Linear(W, W)
        self.view, self.colour = nn.Linear(W + dim_d, W // 2), nn.Linear(W // 2, 3)
        self.background = nn.Parameter(torch.full((3, size, size), 0.5))

    def parameter_groups(self) -> list[dict]:
        """One rate for the networks; the background and the torso's motion have their own."""
        own = {"background": 1e-2, "torso": 3e-3}
        groups = [{"params": [self.get_parameter(name)], "lr": lr} for name, lr in own.items()]
        rest = [p for name, p in self.named_parameters() if name not in own]
        return [*groups, {"params": rest, "lr": 2e-3}]

    def condition(self, cond: Tensor) -> PaperConditioning:
        poses, f_a, f_e = self.split(cond)
        f_a = f_a.unflatten(1, (-1, self.dim_a)).transpose(1, 2)  # (B, 64, 5)
        f_a = f_a @ self.smooth.softmax(0)  # (B, 64)
        d = positional_encoding(poses[:, :6] / 4, 3)  # (B, 42), of values in -1..1
        f_c = torch.cat([f_a, self.eyes(f_e)], 1)  # (B, 96)
        return PaperConditioning(cond[:, :6], self.torso_pose(cond), d, f_c)

    def forward(self, x: Tensor, conditioning: PaperConditioning) -> tuple[Radiance, Tensor]:
        """F_θ (eq. 10) at points (B, M, K, 3); returns as `Field.forward`."""
        shape = x.shape[:-1]
        each = lambda v: v[:, None, None].expand(*shape, -1)  # noqa: E731, one copy per sample
        query = torch.cat([positional_encoding(x, 10), each(conditioning.f_c)], -1)
        y = query  # (B, M, K, 159)
        for i, layer in enumerate(self.trunk):
            y = F.relu(layer(y))
            if i == self.SKIP:
                y = torch.cat([query, y], -1)
        inside = x.detach().abs().amax(-1) < 1
        sigma = F.softplus(self.density(y)[..., 0]) / self.UNIT * inside
        view = F.relu(self.view(torch.cat([self.feature(y), each(conditioning.d)], -1)))
        c = self.colour(view).sigmoid()  # (B, M, K, 3)
        return (lambda w: torch.einsum("bmkc,bmk->bmc", c, w)), sigma

    def pixels(self, cond: Tensor, index: Tensor, generator=None) -> Tensor:
        """Colours (B, M, 3) of the pixels with the numbers `index` (M,), at the training size."""
        rays = cast_rays(int(self.size), device=cond.device)[index][None]
        behind = self.background.flatten(1).T[index].expand(len(cond), -1, -1)
        told = self.condition(cond)
        edges = even_intervals(self.depth_range(told.h, told.torso), self.SAMPLES)
        edges = edges[:, None].expand(*behind.shape[:2], -1)  # (B, M, K + 1)
        seen = march(self, told, rays, edges, generator)
        return seen.colour + (1 - seen.opacity)[..., None] * behind

    def loss(
        self, cond: Tensor, frames: Tensor, weight: Tensor, generator: torch.Generator,
        masks: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, float]]:  # fmt: skip
        """L_photo (eq. 11) on random pixels."""
        S = frames.shape[-1]
        index = torch.randperm(S * S, generator=generator)[: self.RAYS].to(cond.device)
        pixel = lambda t: t.flatten(2)[:, :, index].transpose(1, 2)  # noqa: E731
        error = (self.pixels(cond, index, generator) - pixel(frames)) ** 2  # eq. 11, (B, M, 3)
        return (pixel(weight) * error).mean(), {"psnr": decibels(error)}


class SmallPaperField(PaperField):
    """The paper's field in small, which a CPU trains to convergence on frames of 64x64 pixels."""

    SAMPLES, WIDTH = 32, 128
