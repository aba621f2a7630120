"""A radiance field (eq. 10) that is a thousand times faster than the paper's MLP.

It keeps equation 10 and the volume rendering. Density lies in a grid, colour features lie in a
plane in front of the face, a few samples stand next to the surface, and features are composited
along each ray at half the resolution and turned into colour by three small convolutions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .disentangle import DIM_E
from .face import FOCAL
from .field import CONTEXT, Field, decibels, float32, march
from .rendering import cast_rays, compositing_weights


class Gather(torch.autograd.Function):
    """Σ_j w_ij table[index_ij]: (N, C) rows, (n, m) int32, (n, m) weights -> (n, C).

    What `embedding_bag` computes, and so that no (n, m, C) is ever held. Its own gradient to the
    table takes a pass over all rows in no order; sorted, it is an `embedding_bag` again and three
    times as fast.
    """

    @staticmethod
    def forward(ctx, table: Tensor, index: Tensor, w: Tensor) -> Tensor:
        ctx.save_for_backward(table, index, w)
        return F.embedding_bag(index, table, mode="sum", per_sample_weights=w)

    @staticmethod
    def backward(ctx, grad: Tensor):
        table, index, w = ctx.saved_tensors
        grad, to_table, to_w = grad.contiguous(), None, None
        if ctx.needs_input_grad[2]:
            with torch.enable_grad():
                w_ = w.detach().requires_grad_()
                out = F.embedding_bag(index, table.detach(), mode="sum", per_sample_weights=w_)
            (to_w,) = torch.autograd.grad(out, w_, grad)
        if ctx.needs_input_grad[0]:
            rows, order = torch.sort(index.flatten())
            every = torch.arange(len(table), device=rows.device, dtype=torch.int32)
            first = torch.searchsorted(rows, every, out_int32=True)
            asked = torch.div(order, index.shape[1], rounding_mode="floor").int()
            weights = w.flatten()[order]
            to_table = F.embedding_bag(asked, grad, first, mode="sum", per_sample_weights=weights)
        return to_table, None, to_w


def bilinear(x: Tensor, y: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """The four rows of a (side * side, C) plane around x, y (...) in -1..1, and their weights:
    (..., 4) int32 and float. Outside, the border."""

    def cell(u: Tensor) -> tuple[Tensor, Tensor]:
        u = ((u + 1) * (0.5 * (side - 1))).clamp(0, side - 1)
        i = u.detach().floor().clamp_max(side - 2)
        return i.int(), u - i

    (i, fx), (j, fy) = cell(x), cell(y)
    first, gx, gy = j * side + i, 1 - fx, 1 - fy
    index = torch.stack([first, first + 1, first + side, first + side + 1], -1)
    return index, torch.stack([gx * gy, fx * gy, gx * fy, fx * fy], -1)


class FastTold(NamedTuple):
    h: Tensor  # (B, 6)
    carries: Tensor  # (B, 76) what moves the torso
    poses: Tensor  # (B, 12)
    f_c: Tensor  # (B, 16 + 8)
    density: Tensor  # (B, 1, G, G, G) before softplus
    front: Tensor  # (B * P * P, C) rows of the front planes


class FastField(Field):
    """Equation 10 without the MLP: a density grid, a feature plane, f_c as learned changes to both.

    A head seen from the front is a surface over the x-y plane: planes across it (x-z, y-z) gained
    0.2 dB at equal steps, and lost more in the time they took.
    """

    SAMPLES = 6

    def __init__(
        self,
        cond: Tensor | None = None,
        size: int = 128,
        context: int = CONTEXT,
        channels: int = 24,
        bases: int = 10,
        width: int = 48,
    ):
        super().__init__(cond, size, context)
        C, G, P, J = channels, 40 + size // 8, size, bases
        self.C, self.G, self.P, self.J = C, G, P, J
        # density starts as an egg above a block: a head and shoulders, nobody's in particular
        lo, hi = self.lo.tolist(), self.hi.tolist()
        z, y, x = torch.meshgrid(
            *(torch.linspace(lo[i], hi[i], G) for i in (2, 1, 0)), indexing="ij"
        )
        egg = 1 - ((x / 0.10) ** 2 + ((y + 0.01) / 0.15) ** 2 + ((z - 0.05) / 0.12) ** 2).sqrt()
        block = torch.minimum(
            (y - 0.14) / 0.1, 1 - ((x / 0.2) ** 2 + ((z - 0.08) / 0.1) ** 2).sqrt()
        )
        start = (torch.maximum(egg, block) * 8).clamp(-6, 2) - 1
        self.density = nn.Parameter(
            torch.cat([start[None], torch.zeros(J, G, G, G)]).reshape(1 + J, -1)
        )
        self.front = nn.Parameter(torch.randn(P * P, C) * 0.05)  # the x-y plane: the face
        self.front_bases = nn.Parameter(torch.randn(J, P * P * C) * 0.01)
        self.background = nn.Parameter(torch.randn(C, size // 2, size // 2) * 0.05)
        with torch.no_grad():
            self.front[:, :3] += 0.4
            self.background[:3] += 0.5
        self.lips = nn.Sequential(
            nn.Dropout(0.3),  # a minute of speech is little: no entry may be relied upon
            nn.Linear((2 * context + 1) * self.dim_a, 32),
            nn.ReLU(),
            nn.Linear(32, 16),
        )
        self.code = nn.Sequential(nn.Linear(16 + DIM_E, 32), nn.ReLU(), nn.Linear(32, J))
        H = width
        self.film = nn.Linear(12 + 16 + DIM_E, H)
        self.conv1 = nn.Conv2d(C + 1, H, 3, padding=1, padding_mode="replicate")
        self.conv2 = nn.Conv2d(H, H, 3, padding=1, padding_mode="replicate")
        self.conv3 = nn.Conv2d(H, 12, 3, padding=1, padding_mode="replicate")
        with torch.no_grad():
            self.conv3.weight.mul_(0.1)
            self.conv3.bias.zero_()

    def parameter_groups(self) -> list[dict]:
        """Grids and planes learn faster than networks."""
        fast = {
            "density": 1e-1,
            "front": 4e-2,
            "front_bases": 4e-2,
            "background": 4e-2,
        }
        groups = [{"params": [getattr(self, name)], "lr": lr} for name, lr in fast.items()]
        lips = [*self.lips.parameters(), *self.code.parameters()]  # a long way from the pixels
        torso = [self.torso.weight]  # a step of Adam's must not be seen: it blurs the shirt
        known = {id(p) for p in lips + torso}
        rest = [p for n, p in self.named_parameters() if n not in fast and id(p) not in known]
        groups += [{"params": lips, "lr": 6e-3}, {"params": torso, "lr": 1e-4}]
        return [*groups, {"params": rest, "lr": 1e-3}]

    @float32
    def tell(self, cond: Tensor) -> FastTold:
        poses, carries, f_a, f_e = self.split(cond)
        f_c = torch.cat([self.lips(f_a), f_e], 1)
        a = self.code(f_c)  # (B, J)
        B, G = len(cond), self.G
        density = torch.addmm(self.density[:1].expand(B, -1), a, self.density[1:])
        front = torch.addmm(self.front.view(1, -1).expand(B, -1), a, self.front_bases)
        return FastTold(
            cond[:, :6],
            carries,
            poses,
            f_c,
            density.view(B, 1, G, G, G),
            front.view(-1, self.C),
        )

    def sigma(self, density: Tensor, x: Tensor) -> Tensor:
        """σ in 1/m at (B, M, K, 3) box coordinates; nothing outside the box."""
        B, M, K, _ = x.shape
        s = F.grid_sample(density, x.view(B, 1, M, K, 3), padding_mode="border", align_corners=True)
        return F.softplus(s.view(B, M, K)) * 60 * (x.detach().abs().amax(-1) < 1)

    def forward(self, x: Tensor, told: FastTold) -> tuple[Callable[[Tensor], Tensor], Tensor]:
        B, M = x.shape[:2]

        def radiance(w: Tensor) -> Tensor:
            rows, share = bilinear(x[..., 0], x[..., 1], self.P)
            first = torch.arange(B, device=x.device, dtype=torch.int32) * self.P**2
            rows = (rows + first[:, None, None, None]).view(B * M, -1)
            share = (share * w[..., None]).view(B * M, -1)
            return Gather.apply(told.front, rows, share).view(B, M, -1)

        return radiance, self.sigma(told.density, x)

    @torch.no_grad()
    @float32
    def bounds(self, told: FastTold, R: int) -> tuple[Tensor, Tensor, Tensor]:
        """Where the surface lies, from a coarse pass: near, far (m) and opacity for R x R rays."""
        near, far = self.depth_range()
        K, r = 24, 32
        depth = near + (torch.arange(K, device=near.device) + 0.5) * (far - near) / K
        rays = cast_rays(r, device=near.device)[None]
        x = self.canonical(depth.expand(len(told.h), r * r, K), rays, told.h, told.carries)
        w, left = compositing_weights(self.sigma(told.density, x), (far - near) / K)
        opacity = 1 - left
        surface = (w * depth).sum(-1) / opacity.clamp_min(1e-4)
        hit = opacity > 0.05
        never = torch.full_like(surface, -9.0)
        stack = torch.stack(
            [torch.where(hit, -surface, never), torch.where(hit, surface, never), opacity], 1
        )
        stack = F.max_pool2d(stack.view(-1, 3, r, r), 3, 1, 1)
        lo, hi, opacity = F.interpolate(stack, size=(R, R), mode="nearest").flatten(2).unbind(1)
        near, far = -lo - 0.02, hi + 0.02
        near = torch.where(far > near, near, self.h_mean[5])
        return near, torch.where(far > near, far, near + 0.05), opacity

    @float32
    def composite(
        self,
        told: FastTold,
        bounds: tuple[Tensor, Tensor, Tensor],
        shift: tuple[float, float] = (0.0, 0.0),
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Features and opacity along half as many rays a side as pixels, (B, C + 1, S/2, S/2);
        the camera shifted by a share of the image's side."""
        B, R, device = len(told.h), int(self.size) // 2, told.h.device
        near, far, opacity = bounds
        # rays worth asking, equally many a frame
        M = int((opacity > 0.05).sum(1).max().clamp_min(1))
        index = opacity.topk(M, dim=1).indices.sort(1).values
        rays = cast_rays(R, shift, device)
        near, far = near.gather(1, index), far.gather(1, index)
        f, left = march(self, told, rays[index], near, far, self.SAMPLES, generator)
        f = torch.cat([f, 1 - left[..., None]], -1).transpose(1, 2)  # (B, C + 1, M)
        back = self.background[None]
        if shift != (0.0, 0.0):
            at = (2 * FOCAL * rays[:, :2]).view(1, R, R, 2)
            back = F.grid_sample(back, at, padding_mode="border", align_corners=False)
        back = F.pad(back.flatten(2), (0, 0, 0, 1)).expand(B, -1, -1)
        where = index[:, None].expand(-1, self.C + 1, -1)
        f = back.scatter(2, where, back.gather(2, where) * left[:, None] + f)
        return f.view(B, -1, R, R)

    def decode(self, f: Tensor, told: FastTold) -> Tensor:
        """Composited features (B, C + 1, R, R) -> frames (B, 3, 2R, 2R)."""
        y = f.contiguous(memory_format=torch.channels_last)
        told_once = self.film(torch.cat([told.poses, told.f_c], 1))[:, :, None, None]
        y = self.conv3(F.relu(self.conv2(F.relu(self.conv1(y) + told_once))))
        up = F.interpolate(f[:, :3], scale_factor=2, mode="bilinear", align_corners=False)
        return F.pixel_shuffle(y.float(), 2) + up

    def loss(
        self, cond: Tensor, frames: Tensor, weight: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        told = self.tell(cond)
        bounds = self.bounds(told, int(self.size) // 2)
        f = self.composite(told, bounds, generator=generator)
        error = (self.decode(f, told) - frames) ** 2
        coarse = F.mse_loss(f[:, :3], F.avg_pool2d(frames, 2))
        return (weight * error).mean() + 0.3 * coarse, {"psnr": decibels(error)}

    def image(self, cond: Tensor, size: int) -> Tensor:
        """Any size. The convolutions know features at the spacing that they were trained on, so a
        frame of twice the field's own size is woven from four with the camera moved by parts of a
        pixel; what is between is averaged from it, and what is beyond has no more detail and is
        enlarged from it."""
        told, S = self.tell(cond), int(self.size)
        bounds, n = self.bounds(told, S // 2), 1 if size <= S else 2
        shifts = [((k + 0.5) / n - 0.5) / S for k in range(n)]
        seen = lambda *shift: self.decode(self.composite(told, bounds, shift), told)  # noqa: E731
        woven = torch.stack([torch.stack([seen(u, v) for u in shifts], -1) for v in shifts], -2)
        image = woven.permute(0, 1, 2, 4, 3, 5).reshape(len(cond), 3, S * n, S * n)
        if size > S * n:
            return F.interpolate(image, (size, size), mode="bicubic", align_corners=False)
        return image if S * n == size else F.interpolate(image, (size, size), mode="area")
