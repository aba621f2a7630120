"""The paper's radiance field (eq. 10): an MLP of 8 layers of 256, evaluated 64 times a ray."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .disentangle import DIM_E
from .field import CONTEXT, Field, decibels, march
from .rendering import cast_rays


def positional_encoding(x: Tensor, frequencies: int) -> Tensor:
    """γ of NeRF's eq. 4: (..., D) -> (..., D + 2 D frequencies): x, sin and cos of 2^l π x."""
    angle = x[..., None, :] * (math.pi * 2.0 ** torch.arange(frequencies, device=x.device))[:, None]
    return torch.cat([x, angle.sin().flatten(-2), angle.cos().flatten(-2)], -1)


class PaperTold(NamedTuple):
    h: Tensor  # (B, 6)
    carries: Tensor  # (B, 76) what moves the torso
    d: Tensor  # (B, 42) the encoded pose
    f_c: Tensor  # (B, 96) [f_a ; f_e]


class PaperField(Field):
    """The field of the paper, in the sizes of its authors' code.

    Eight layers of 256 with f_c at the input and at the skip, one view layer that is told d := h;
    10 frequencies for x, 3 for h; f_e widened to 32; 64 samples a ray; 2,048 rays of one frame a
    step; the background behind the last sample. f_a is smoothed over its 5 frames by learned
    weights. Where the authors' face parsing tells head rays from torso rays, here the canonical
    space does, as for every field of this package; the background, theirs cut from the video, is
    learned. Two settings are not theirs: σ is a softplus, since with their ReLU no ray was ever
    stopped from some starts; and Adam has 2e-3 without warm-up, which in minutes got 2.5 dB further
    than their 5e-4, made for 600,000 steps.
    """

    RAYS, SAMPLES, WIDTH, LAYERS, SKIP = 2048, 64, 256, 8, 4
    UNIT = 0.1  # metres that the authors' units of length, in which σ counts, are about
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
        """One rate for the networks; the background and the torso's place learn as the fast field's
        torso and planes do, at their own."""
        own = {"background": 1e-2, "torso.weight": 1e-4}
        groups = [{"params": [self.get_parameter(name)], "lr": lr} for name, lr in own.items()]
        rest = [p for name, p in self.named_parameters() if name not in own]
        return [*groups, {"params": rest, "lr": 2e-3}]

    def tell(self, cond: Tensor) -> PaperTold:
        poses, carries, f_a, f_e = self.split(cond)
        f_a = f_a.unflatten(1, (-1, self.dim_a)).transpose(1, 2) @ self.smooth.softmax(0)
        d = positional_encoding(poses[:, :6] / 4, 3)  # within -1..1
        return PaperTold(cond[:, :6], carries, d, torch.cat([f_a, self.eyes(f_e)], 1))

    def forward(self, x: Tensor, told: PaperTold) -> tuple[Callable[[Tensor], Tensor], Tensor]:
        shape = x.shape[:-1]
        each = lambda v: v[:, None, None].expand(*shape, -1)  # noqa: E731
        asked = torch.cat([positional_encoding(x, 10), each(told.f_c)], -1)
        y = asked
        for i, layer in enumerate(self.trunk):
            y = F.relu(layer(y))
            if i == self.SKIP:
                y = torch.cat([asked, y], -1)
        inside = x.detach().abs().amax(-1) < 1
        sigma = F.softplus(self.density(y)[..., 0]) / self.UNIT * inside
        view = F.relu(self.view(torch.cat([self.feature(y), each(told.d)], -1)))
        c = self.colour(view).sigmoid()
        return (lambda w: torch.einsum("bmkc,bmk->bmc", c, w)), sigma

    def colours(self, told: PaperTold, rays: Tensor, behind: Tensor, generator=None) -> Tensor:
        """Pixels (B, M, 3) of rays (B or 1, M, 3) with the background's colours (B, M, 3)."""
        near, far = (d.expand(len(told.h), rays.shape[1]) for d in self.depth_range())
        c, left = march(self, told, rays, near, far, self.SAMPLES, generator)
        return c + left[..., None] * behind

    def pixels(self, cond: Tensor, index: Tensor, generator=None) -> Tensor:
        """Pixels (B, M, 3) number `index` (M,) of frames of the field's own size."""
        rays = cast_rays(int(self.size), device=cond.device)[index][None]
        behind = self.background.flatten(1).T[index].expand(len(cond), -1, -1)
        return self.colours(self.tell(cond), rays, behind, generator)

    def loss(
        self, cond: Tensor, frames: Tensor, weight: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        S = frames.shape[-1]
        index = torch.randperm(S * S, generator=generator)[: self.RAYS].to(cond.device)
        pixel = lambda t: t.flatten(2)[:, :, index].transpose(1, 2)  # noqa: E731
        error = (self.pixels(cond, index, generator) - pixel(frames)) ** 2
        return (pixel(weight) * error).mean(), {"psnr": decibels(error)}

    def image(self, cond: Tensor, size: int) -> Tensor:
        told = self.tell(cond)
        behind = F.interpolate(
            self.background[None], (size, size), mode="bilinear", align_corners=False
        )
        behind = behind.flatten(2).transpose(1, 2).expand(len(cond), -1, -1)
        rays = cast_rays(size, device=cond.device)[None]
        parts = zip(rays.split(self.RAYS, 1), behind.split(self.RAYS, 1), strict=True)
        rgb = torch.cat([self.colours(told, *part) for part in parts], 1)
        return rgb.transpose(1, 2).unflatten(2, (size, size))
