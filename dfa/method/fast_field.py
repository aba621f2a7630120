"""A radiance field (eq. 10) that is a thousand times faster than the MLP of the paper.

It keeps x, f_c and volume rendering, but density is a 3-D grid and colour features are a plane in
front of the face. A few samples near the surface are enough. Features are composited along each ray
at half the resolution; three small convolutions decode them to colours. d := h of eq. 10 enters
there, after compositing: neither σ nor the features depend on it.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .disentangle import DIM_E
from .face import FOCAL
from .field import CONTEXT, Field, Radiance, decibels, float32, march
from .rendering import cast_rays, compositing_weights


class Gather(torch.autograd.Function):
    """Σ_j w_ij table[index_ij]: table (N, C), index (n, m) int32, w (n, m) -> (n, C).

    `embedding_bag` computes it without a tensor (n, m, C). Its own gradient to the table visits the
    rows in random order. Here the rows are sorted first, so that the gradient is an `embedding_bag`
    too: three times as fast.
    """

    @staticmethod
    def forward(ctx, table: Tensor, index: Tensor, w: Tensor) -> Tensor:
        ctx.save_for_backward(table, index, w)
        return F.embedding_bag(index, table, mode="sum", per_sample_weights=w)

    @staticmethod
    def backward(ctx, grad: Tensor):
        table, index, w = ctx.saved_tensors
        grad, grad_table, grad_w = grad.contiguous(), None, None
        if ctx.needs_input_grad[2]:
            with torch.enable_grad():
                w_ = w.detach().requires_grad_()
                out = F.embedding_bag(index, table.detach(), mode="sum", per_sample_weights=w_)
            (grad_w,) = torch.autograd.grad(out, w_, grad)
        if ctx.needs_input_grad[0]:
            rows, order = torch.sort(index.flatten())
            every = torch.arange(len(table), device=rows.device, dtype=torch.int32)
            first = torch.searchsorted(rows, every, out_int32=True)
            item = torch.div(order, index.shape[1], rounding_mode="floor").int()
            weights = w.flatten()[order]
            grad_table = F.embedding_bag(item, grad, first, mode="sum", per_sample_weights=weights)
        return grad_table, None, grad_w


def bilinear(x: Tensor, y: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Rows of a plane (side * side, C) for bilinear interpolation at x, y (...) in -1..1.

    Returns row numbers (..., 4) int32 and weights (..., 4). Outside -1..1 it repeats the border.
    """

    def cell(u: Tensor) -> tuple[Tensor, Tensor]:
        u = ((u + 1) * (0.5 * (side - 1))).clamp(0, side - 1)
        i = u.detach().floor().clamp_max(side - 2)
        return i.int(), u - i

    (i, fx), (j, fy) = cell(x), cell(y)
    first, gx, gy = j * side + i, 1 - fx, 1 - fy
    index = torch.stack([first, first + 1, first + side, first + side + 1], -1)
    return index, torch.stack([gx * gy, fx * gy, gx * fy, fx * fy], -1)


class FastConditioning(NamedTuple):
    """Prepared conditions of B frames."""

    h: Tensor  # (B, 6)
    torso_input: Tensor  # (B, 76) standardised h, slow h and slow f_a
    poses: Tensor  # (B, 12) standardised h and slow h
    f_c: Tensor  # (B, 16 + 8) [f_a ; f_e], f_a reduced to 16
    density: Tensor  # (B, 1, G, G, G) before softplus
    front: Tensor  # (B * P * P, C) rows of the front planes


class FastField(Field):
    """F_θ of eq. 10 as a density grid and a feature plane, to which f_c adds learned bases.

    From the front a head is a surface over the x-y plane, so one plane is enough. Two more planes
    (x-z, y-z) gained 0.2 dB at equal steps, but lost more at equal time.

    Args: of `Field`, and channels: features per point (C); bases: number of bases (J); width:
    channels of the convolutions.
    """

    SAMPLES = 6  # per ray

    def __init__(
        self, cond: Tensor | None = None, size: int = 128, context: int = CONTEXT,
        channels: int = 24, bases: int = 10, width: int = 48,
    ):  # fmt: skip
        super().__init__(cond, size, context)
        C, G, P, J = channels, 40 + size // 8, size, bases
        self.C, self.G, self.P, self.J = C, G, P, J
        # initial density: an ellipsoid above a block, like a head and shoulders
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
        self.front = nn.Parameter(torch.randn(P * P, C) * 0.05)  # the x-y plane
        self.front_bases = nn.Parameter(torch.randn(J, P * P * C) * 0.01)
        self.background = nn.Parameter(torch.randn(C, size // 2, size // 2) * 0.05)
        with torch.no_grad():
            self.front[:, :3] += 0.4
            self.background[:3] += 0.5
        self.lips = nn.Sequential(
            nn.Dropout(0.3),  # against overfitting to a minute of speech
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

    @staticmethod
    def training_memory(size: int, channels: int = 24, bases: int = 10) -> int:
        """Bytes that training needs, about: each weight with its gradient and two moments of Adam,
        and 2.2 GB for the rest."""
        grid, plane = (40 + size // 8) ** 3, channels * size**2
        return 16 * ((bases + 1) * (grid + plane) + plane // 4) + 2_200_000_000

    def parameter_groups(self) -> list[dict]:
        """Grids and planes learn faster than networks."""
        fast = {"density": 1e-1, "front": 4e-2, "front_bases": 4e-2, "background": 4e-2}
        groups = [{"params": [getattr(self, name)], "lr": lr} for name, lr in fast.items()]
        lips = [*self.lips.parameters(), *self.code.parameters()]  # small gradients
        torso = [self.torso.weight]  # a larger step of Adam blurs the shirt
        known = {id(p) for p in lips + torso}
        rest = [p for n, p in self.named_parameters() if n not in fast and id(p) not in known]
        groups += [{"params": lips, "lr": 6e-3}, {"params": torso, "lr": 1e-4}]
        return [*groups, {"params": rest, "lr": 1e-3}]

    @float32
    def condition(self, cond: Tensor) -> FastConditioning:
        poses, torso_input, f_a, f_e = self.split(cond)
        f_c = torch.cat([self.lips(f_a), f_e], 1)
        a = self.code(f_c)  # (B, J)
        B, G = len(cond), self.G
        density = torch.addmm(self.density[:1].expand(B, -1), a, self.density[1:])
        front = torch.addmm(self.front.view(1, -1).expand(B, -1), a, self.front_bases)
        density, front = density.view(B, 1, G, G, G), front.view(-1, self.C)
        return FastConditioning(cond[:, :6], torso_input, poses, f_c, density, front)

    def sigma(self, density: Tensor, x: Tensor) -> Tensor:
        """σ (B, M, K) in 1/m at points x (B, M, K, 3) in box coordinates; 0 outside the box."""
        B, M, K, _ = x.shape
        s = F.grid_sample(density, x.view(B, 1, M, K, 3), padding_mode="border", align_corners=True)
        return F.softplus(s.view(B, M, K)) * 60 * (x.detach().abs().amax(-1) < 1)

    def forward(self, x: Tensor, conditioning: FastConditioning) -> tuple[Radiance, Tensor]:
        """c and σ (eq. 10) at points (B, M, K, 3); returns as `Field.forward`."""
        B, M = x.shape[:2]

        def radiance(w: Tensor) -> Tensor:
            rows, weights = bilinear(x[..., 0], x[..., 1], self.P)  # (B, M, K, 4)
            first = torch.arange(B, device=x.device, dtype=torch.int32) * self.P**2
            rows = (rows + first[:, None, None, None]).view(B * M, -1)
            weights = (weights * w[..., None]).view(B * M, -1)  # (B M, 4 K)
            return Gather.apply(conditioning.front, rows, weights).view(B, M, -1)

        return radiance, self.sigma(conditioning.density, x)

    @torch.no_grad()
    @float32
    def bounds(self, conditioning: FastConditioning, R: int) -> tuple[Tensor, Tensor, Tensor]:
        """Place of the surface, from a coarse pass: near, far (m) and opacity, each (B, R * R)."""
        near, far = self.depth_range()
        K, r = 24, 32
        depth = near + (torch.arange(K, device=near.device) + 0.5) * (far - near) / K
        rays = cast_rays(r, device=near.device)[None]
        h, torso_input, density = conditioning.h, conditioning.torso_input, conditioning.density
        x = self.canonical(depth.expand(len(h), r * r, K), rays, h, torso_input)
        w, transmittance = compositing_weights(self.sigma(density, x), (far - near) / K)
        opacity = 1 - transmittance  # (B, r * r)
        surface = (w * depth).sum(-1) / opacity.clamp_min(1e-4)  # mean depth, metres
        hit = opacity > 0.05
        never = torch.full_like(surface, -9.0)
        stack = torch.stack(
            [torch.where(hit, -surface, never), torch.where(hit, surface, never), opacity], 1
        )
        stack = F.max_pool2d(stack.view(-1, 3, r, r), 3, 1, 1)  # (B, 3, r, r), over neighbours
        lo, hi, opacity = F.interpolate(stack, size=(R, R), mode="nearest").flatten(2).unbind(1)
        near, far = -lo - 0.02, hi + 0.02
        near = torch.where(far > near, near, self.h_mean[5])
        return near, torch.where(far > near, far, near + 0.05), opacity

    @float32
    def composite(
        self, conditioning: FastConditioning, bounds: tuple[Tensor, Tensor, Tensor],
        shift: tuple[float, float] = (0.0, 0.0), generator: torch.Generator | None = None,
    ) -> Tensor:  # fmt: skip
        """Features and opacity of S/2 x S/2 rays: (B, C + 1, S/2, S/2), S the training size.

        bounds: from `bounds`. shift: of the rays, right and down, in image sides. With a generator
        the samples are random in their strata.
        """
        B, R, device = len(conditioning.h), int(self.size) // 2, conditioning.h.device
        near, far, opacity = bounds
        # only rays that hit something, equally many in each frame
        M = int((opacity > 0.05).sum(1).max().clamp_min(1))
        index = opacity.topk(M, dim=1).indices.sort(1).values
        rays = cast_rays(R, shift, device)
        near, far = near.gather(1, index), far.gather(1, index)
        rays_hit = rays[index]  # (B, M, 3)
        f, transmittance = march(self, conditioning, rays_hit, near, far, self.SAMPLES, generator)
        f = torch.cat([f, 1 - transmittance[..., None]], -1).transpose(1, 2)  # (B, C + 1, M)
        back = self.background[None]
        if shift != (0.0, 0.0):
            at = (2 * FOCAL * rays[:, :2]).view(1, R, R, 2)
            back = F.grid_sample(back, at, padding_mode="border", align_corners=False)
        back = F.pad(back.flatten(2), (0, 0, 0, 1)).expand(B, -1, -1)
        where = index[:, None].expand(-1, self.C + 1, -1)  # (B, C + 1, M)
        f = back.scatter(2, where, back.gather(2, where) * transmittance[:, None] + f)
        return f.view(B, -1, R, R)

    def decode(self, f: Tensor, conditioning: FastConditioning) -> Tensor:
        """Composited features (B, C + 1, R, R) -> frames (B, 3, 2R, 2R)."""
        y = f.contiguous(memory_format=torch.channels_last)
        bias = self.film(torch.cat([conditioning.poses, conditioning.f_c], 1))[:, :, None, None]
        y = self.conv3(F.relu(self.conv2(F.relu(self.conv1(y) + bias))))  # (B, 12, R, R)
        up = F.interpolate(f[:, :3], scale_factor=2, mode="bilinear", align_corners=False)
        return F.pixel_shuffle(y.float(), 2) + up  # (B, 3, 2R, 2R)

    def loss(
        self, cond: Tensor, frames: Tensor, weight: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        """L_photo (eq. 11) on whole frames, plus 0.3 of the same for the composited colours, at
        half the resolution."""
        conditioning = self.condition(cond)
        bounds = self.bounds(conditioning, int(self.size) // 2)
        f = self.composite(conditioning, bounds, generator=generator)
        error = (self.decode(f, conditioning) - frames) ** 2  # eq. 11
        coarse = F.mse_loss(f[:, :3], F.avg_pool2d(frames, 2))  # features 0-2 are colours
        return (weight * error).mean() + 0.3 * coarse, {"psnr": decibels(error)}

    def image(self, cond: Tensor, size: int) -> Tensor:
        """Pictures (B, 3, size, size) of any size, about 0..1.

        The convolutions need features at the spacing of training. At most the training size:
        area-downsample. Up to twice: interleave four renders shifted by half a pixel,
        then area-downsample. Larger: bicubic.
        """
        conditioning, S = self.condition(cond), int(self.size)
        bounds, n = self.bounds(conditioning, S // 2), 1 if size <= S else 2
        shifts = [((k + 0.5) / n - 0.5) / S for k in range(n)]

        def shifted(*shift: float) -> Tensor:
            return self.decode(self.composite(conditioning, bounds, shift), conditioning)

        rows = [torch.stack([shifted(u, v) for u in shifts], -1) for v in shifts]
        image = torch.stack(rows, -2)  # (B, 3, S, S, n, n)
        image = image.permute(0, 1, 2, 4, 3, 5).reshape(len(cond), 3, S * n, S * n)
        if size > S * n:
            return F.interpolate(image, (size, size), mode="bicubic", align_corners=False)
        return image if S * n == size else F.interpolate(image, (size, size), mode="area")
