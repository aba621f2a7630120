"""The neural scene representation (section 3.5, eq. 10 and 11): one radiance field, head and torso.

The paper's field is an 8x256 MLP asked 64 times a ray. This one keeps equation 10 and the volume
rendering, and changes what is asked: density in a grid, colour features in three planes, few
samples next to the surface, features composited along each ray at half the resolution and turned
into colour by three small convolutions.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .disentangle import DIM_E
from .face import FOCAL, euler_to_matrix
from .sync import DIM_A

CONTEXT = 2  # f_a of this many frames either way: the field sees a moment, not an instant
DIM_C = 12 + DIM_E + (2 * CONTEXT + 1) * DIM_A


def conditions(h: Tensor, f_a: Tensor, f_e: Tensor, context: int = CONTEXT) -> Tensor:
    """What the field is told of each frame, (T, 6), (T, 64), (T, 8) -> (T, DIM_C).

    [h ; slow h ; f_e ; f_a of 5 frames]: f_c = [f_a ; f_e] of the paper, and h with its average
    over about a second, which a torso follows more than the moment's head. Other features than
    f_a, and of more or fewer frames (`context` either way), give more or fewer columns.
    """
    T = len(h)
    t = torch.arange(-25, 26, dtype=h.dtype)
    kernel = torch.exp(-0.5 * (t / 10) ** 2)
    slow = F.conv1d(
        F.pad(h.T[:, None], (25, 25), mode="replicate"), (kernel / kernel.sum())[None, None]
    )[:, 0].T
    padded = torch.cat([f_a[:1].expand(context, -1), f_a, f_a[-1:].expand(context, -1)])
    windows = torch.cat([padded[k : k + T] for k in range(2 * context + 1)], 1)
    return torch.cat([h, slow, f_e, windows], 1)


# --- volume rendering: pure functions ---------------------------------------------------------


def cast_rays(size: int, device: torch.device | str = "cpu") -> Tensor:
    """Directions of the pixel centres of a size x size image, (size * size, 3), with z = 1: the
    distance along such a ray is its depth."""
    u = (torch.arange(size, device=device) + 0.5) / size - 0.5
    v, u = torch.meshgrid(u, u, indexing="ij")
    return torch.stack([u / FOCAL, v / FOCAL, torch.ones_like(u)], -1).reshape(-1, 3)


def compositing_weights(sigma: Tensor, delta: Tensor) -> tuple[Tensor, Tensor]:
    """Quadrature of the volume-rendering integral (Max 1995; eq. 3 of NeRF).

    Args:
        sigma: (..., K) densities >= 0 along a ray, front to back, 1/m.
        delta: (..., K) lengths in m.

    Returns (weights (..., K), transmittance behind the last sample (...)):
    w_k = T_k (1 - exp(-σ_k δ_k)), T_k = exp(-Σ_{j<k} σ_j δ_j).
    """
    optical_depth = torch.cumsum(sigma * delta, -1)
    through = torch.exp(-optical_depth)
    before = torch.cat([torch.ones_like(through[..., :1]), through[..., :-1]], -1)
    return before - through, through[..., -1]


def look_up(planes: Tensor, x: Tensor) -> Tensor:
    """Values of (B, C, H, W) planes or (B, C, D, H, W) grids at x in -1..1, interpolated."""
    return F.grid_sample(planes, x, mode="bilinear", padding_mode="border", align_corners=True)


class RadianceField(nn.Module):
    """F_θ: (x, d := h, f_c) -> (c, σ) of eq. 10, with its renderer.

    Args:
        cond: (T, DIM_C) training conditions; their poses place the box and the mean pose, and they
            give the units of h and f_a.
    """

    # half extents around the mean head, metres: the box that holds head, hair and shoulders
    DEPTH = (-0.20, 0.20)
    SHARPNESS = 50.0  # 1/m: head turns into torso over some 4 cm of neck

    def __init__(
        self,
        cond: Tensor | None = None,
        channels: int = 24,
        grid: int = 56,
        plane: int = 128,
        bases: int = 10,
    ):
        super().__init__()
        if cond is None:  # to be loaded
            cond = torch.zeros(2, DIM_C)
            cond[:, 5] = 1.2
        h, heard = cond[:, :6], cond[:, 12 + DIM_E :]
        mean = h.mean(0)
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
        C, G, J = channels, grid, bases
        self.C, self.G, self.J = C, G, J
        # density starts as an egg above a block: a head and shoulders, nobody's in particular
        z, y, x = torch.meshgrid(
            *(torch.linspace(float(lo[i]), float(hi[i]), G) for i in (2, 1, 0)), indexing="ij"
        )
        egg = 1 - ((x / 0.10) ** 2 + ((y + 0.01) / 0.15) ** 2 + ((z - 0.05) / 0.12) ** 2).sqrt()
        block = torch.minimum(
            (y - 0.14) / 0.1, 1 - ((x / 0.2) ** 2 + ((z - 0.08) / 0.1) ** 2).sqrt()
        )
        start = (torch.maximum(egg, block) * 8).clamp(-6, 2) - 1
        self.density = nn.Parameter(
            torch.cat([start[None], torch.zeros(J, G, G, G)]).reshape(1 + J, -1)
        )
        self.front = nn.Parameter(torch.randn(C, plane, plane) * 0.05)  # the x-y plane: the face
        self.front_bases = nn.Parameter(torch.randn(J, C * plane * plane) * 0.01)
        self.sides = nn.Parameter(torch.randn(2, C, 48, 48) * 0.02)  # x-z and y-z
        self.background = nn.Parameter(torch.randn(C, 64, 64) * 0.05)
        with torch.no_grad():
            self.front[:3] += 0.4
            self.background[:3] += 0.5
        self.lips = nn.Sequential(
            nn.Dropout(0.3),  # a minute of speech is little: no entry may be relied upon
            nn.Linear(heard.shape[1], 32),
            nn.ReLU(),
            nn.Linear(32, 16),
        )
        self.code = nn.Sequential(nn.Linear(16 + DIM_E, 32), nn.ReLU(), nn.Linear(32, J))
        self.torso = nn.Linear(12, 3, bias=False)  # how the torso is carried along, metres
        nn.init.zeros_(self.torso.weight)
        H = 48
        self.film = nn.Linear(12 + 16 + DIM_E, H)
        self.conv1 = nn.Conv2d(C + 1, H, 3, padding=1, padding_mode="replicate")
        self.conv2 = nn.Conv2d(H, H, 3, padding=1, padding_mode="replicate")
        self.conv3 = nn.Conv2d(H, 12, 3, padding=1, padding_mode="replicate")
        with torch.no_grad():
            self.conv3.weight.mul_(0.1)
            self.conv3.bias.zero_()

    def parameter_groups(self) -> list[dict]:
        """Adam's groups: grids and planes learn faster than networks."""
        fast = {
            "density": 5e-2,
            "front": 1e-2,
            "front_bases": 1e-2,
            "sides": 1e-2,
            "background": 1e-2,
        }
        groups = [{"params": [getattr(self, name)], "lr": lr} for name, lr in fast.items()]
        lips = [*self.lips.parameters(), *self.code.parameters()]  # a long way from the pixels
        known = {id(p) for p in lips}
        rest = [p for n, p in self.named_parameters() if n not in fast and id(p) not in known]
        return [*groups, {"params": lips, "lr": 6e-3}, {"params": rest, "lr": 2e-3}]

    def embed(self, cond: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, DIM_C) -> standardised poses (B, 12), code of f_c (B, 16 + 8), weights (B, J)."""
        poses = ((cond[:, :12].unflatten(1, (2, 6)) - self.h_mean) / self.h_std).flatten(1)
        poses = poses.clamp(-4, 4)  # further off nothing was learnt, and colours would drift
        f_e, f_a = cond[:, 12 : 12 + DIM_E], cond[:, 12 + DIM_E :]
        f_c = torch.cat([self.lips((f_a - self.a_mean) / self.a_std), f_e], 1)
        return poses, f_c, self.code(f_c)

    def canonical(self, depth: Tensor, rays: Tensor, h: Tensor, poses: Tensor) -> Tensor:
        """Points at (B, M, K) depths on rays (B or 1, M, 3) -> box coordinates -1..1, (B, M, K, 3).

        Above the neck a point is seen from the head, x = Rᵀ(X - t); below it from the mean head,
        moved a little with the pose; between, a blend, so that the neck is one piece.
        """
        R, t = euler_to_matrix(h[:, :3]), h[:, 3:]
        R0, t0 = euler_to_matrix(self.h_mean[None, :3])[0], self.h_mean[3:]
        scale = 2 / (self.hi - self.lo)
        at_rest = t0 @ R0 + self.torso(poses)  # (B, 3)

        def seen_from(R: Tensor, origin: Tensor) -> Tensor:
            direction = rays @ R * scale  # Rᵀ d, row-wise
            start = -(origin + self.lo) * scale - 1
            return start[:, None, None] + depth[..., None] * direction[:, :, None]

        head = seen_from(R, (t[:, None] @ R)[:, 0])
        rest = seen_from(R0, at_rest)
        neck = ((0.14 - self.lo[1]) * scale[1] - 1, self.SHARPNESS / scale[1])
        w = torch.sigmoid((neck[0] - rest[..., 1:2]) * neck[1])
        return torch.lerp(rest, head, w)

    def grids(self, a: Tensor) -> tuple[Tensor, Tensor]:
        """The density grid and front plane under f_c: a base and J learned ways to change."""
        B, G, C, P = len(a), self.G, self.C, self.front.shape[-1]
        density = torch.addmm(self.density[:1].expand(B, -1), a, self.density[1:]).view(
            B, 1, G, G, G
        )
        front = self.front + (a @ self.front_bases).view(B, C, P, P)
        return density, front

    def sigma(self, density: Tensor, x: Tensor) -> Tensor:
        """σ in 1/m at (B, M, K, 3) box coordinates; nothing outside the box."""
        B, M, K, _ = x.shape
        s = F.softplus(look_up(density, x.view(B, 1, M, K, 3)).view(B, M, K)) * 60
        return s * (x.detach().abs().amax(-1) < 1)

    @torch.no_grad()
    def bounds(
        self, density: Tensor, h: Tensor, poses: Tensor, R: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Where the surface lies, from a coarse pass: near, far (m) and opacity for R x R rays."""
        near, far, K, r = self.h_mean[5] + self.DEPTH[0], self.h_mean[5] + self.DEPTH[1], 24, 32
        depth = near + (torch.arange(K, device=h.device) + 0.5) * (far - near) / K
        x = self.canonical(depth.expand(len(h), r * r, K), cast_rays(r, h.device)[None], h, poses)
        w, left = compositing_weights(self.sigma(density, x), (far - near) / K)
        opacity = 1 - left
        surface = (w * depth).sum(-1) / opacity.clamp_min(1e-4)
        hit = opacity > 0.05
        never = torch.full_like(surface, -9.0)
        stack = torch.stack(
            [torch.where(hit, -surface, never), torch.where(hit, surface, never), opacity], 1
        )
        stack = F.max_pool2d(stack.view(-1, 3, r, r), 3, 1, 1)
        lo, hi, opacity = F.interpolate(stack, size=(R, R), mode="nearest").flatten(2).unbind(1)
        return -lo - 0.02, hi + 0.02, opacity

    def forward(
        self, cond: Tensor, size: int, samples: int = 8, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Render (B, DIM_C) conditions.

        Returns (image (B, 3, size, size), composited colour (B, 3, size/2, size/2)), both in about
        0..1. With a generator the samples are jittered, as in training.
        """
        R, h = size // 2, cond[:, :6]
        poses, f_c, a = self.embed(cond)
        density, front = self.grids(a)
        near, far, opacity = self.bounds(density, h, poses, R)
        B, K = len(cond), samples
        M = int(
            (opacity > 0.05).sum(1).max().clamp_min(1)
        )  # rays worth asking, equally many a frame
        index = opacity.topk(M, dim=1).indices.sort(1).values
        rays = cast_rays(R, cond.device)[index]  # (B, M, 3)
        near, far = near.gather(1, index), far.gather(1, index)
        near, far = (
            torch.where(far > near, near, self.h_mean[5]),
            torch.where(far > near, far, self.h_mean[5] + 0.05),
        )
        delta = (far - near) / K
        jitter = torch.rand(B, M, K, generator=generator).to(cond.device) if generator else 0.5
        depth = near[..., None] + (torch.arange(K, device=cond.device) + jitter) * delta[..., None]
        x = self.canonical(depth, rays, h, poses)  # (B, M, K, 3)
        w, left = compositing_weights(self.sigma(density, x), delta[..., None])
        f = look_up(front, x[..., :2])  # (B, C, M, K)
        side = torch.stack([x[..., [0, 2]], x[..., [1, 2]]], 0).view(2, B * M, K, 2)
        f = f + look_up(self.sides, side).sum(0).view(self.C, B, M, K).transpose(0, 1)
        f = torch.einsum("bcmk,bmk->bcm", f, w)
        back = F.interpolate(
            self.background[None], size=(R, R), mode="bilinear", align_corners=False
        )
        back = back.flatten(2).expand(B, -1, -1)
        where = index[:, None].expand(-1, self.C, -1)
        f = back.scatter(2, where, back.gather(2, where) * left[:, None] + f)
        opaque = torch.zeros(B, 1, R * R, device=cond.device).scatter(
            2, index[:, None], 1 - left[:, None]
        )
        f = torch.cat([f, opaque], 1).view(B, -1, R, R)
        rgb = f[:, :3]
        y = f.contiguous(memory_format=torch.channels_last)
        y = F.relu(self.conv1(y) + self.film(torch.cat([poses, f_c], 1))[:, :, None, None])
        y = self.conv3(F.relu(self.conv2(y)))
        image = F.pixel_shuffle(y, 2) + F.interpolate(
            rgb, scale_factor=2, mode="bilinear", align_corners=False
        )
        return image, rgb


class PoseCorrections(nn.Module):
    """Small learned corrections of the T tracked poses that a field is trained on.

    Knots every `every` frames, linear in between: a frame alone is seen a few times only. Their
    mean is held at nought, or the field and the poses could drift together.
    """

    UNIT = 0.02  # radians and metres of one unit of a knot

    def __init__(self, field: RadianceField, T: int, every: int = 8):
        super().__init__()
        self.field, self.every = field, every
        self.knots = nn.Parameter(torch.zeros(T // every + 2, 6))

    def forward(self, i: Tensor) -> Tensor:
        """Frames (B,) -> what is added to their h, (B, 6)."""
        knots = self.UNIT * (self.knots - self.knots.mean(0))
        k = i // self.every
        share = (i % self.every / self.every)[:, None].to(knots)
        return torch.lerp(knots[k], knots[k + 1], share)


def region_weights(points: Tensor, size: int, extra: float = 30.0) -> Tensor:
    """Where a pixel counts more: eyes and mouth are few pixels and most of what one looks at.

    points: (T, 68, 2) tracked landmarks in unit coordinates. Returns (T, 1, size, size), mean 1.
    """
    grid = (torch.arange(size) + 0.5) / size
    v, u = torch.meshgrid(grid, grid, indexing="ij")
    weight = torch.ones(len(points), size, size)
    for part, grow in (((36, 42), 1.3), ((42, 48), 1.3), ((48, 68), 1.0)):
        p = points[:, slice(*part)]
        centre, half = p.mean(1), (p.amax(1) - p.amin(1))[:, :1] / 2 * grow  # round: lids travel
        d2 = (u - centre[:, 0, None, None]) ** 2 + (v - centre[:, 1, None, None]) ** 2
        weight += extra * torch.exp(-0.5 * d2 / (half[..., None] * 0.7) ** 2)
    return (weight / weight.mean((1, 2), keepdim=True))[:, None]


def photo_loss(
    field: RadianceField, cond: Tensor, frames: Tensor, weight: Tensor, generator: torch.Generator
):
    """L_photo of eq. 11 on whole frames, and on the composited colours alone.

    cond (B, DIM_C), frames (B, 3, S, S) in 0..1, weight (B, 1, S, S).
    """
    image, rgb = field(cond, frames.shape[-1], generator=generator)
    error = (image - frames) ** 2
    loss = (weight * error).mean()
    coarse = F.mse_loss(rgb, F.avg_pool2d(frames, 2))
    return loss + 0.3 * coarse, {"psnr": -10 * math.log10(float(error.detach().mean()))}


@torch.inference_mode()
def render(field: RadianceField, cond: Tensor, size: int, batch: int = 8):
    """Frames of (T, DIM_C) conditions, one by one: (size, size, 3) uint8 arrays."""
    device = field.h_mean.device
    for chunk in cond.split(batch):
        image, _ = field(chunk.to(device), size)
        yield from (image.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()


def render_all(field: RadianceField, cond: Tensor, size: int):
    """`render`, stacked: (T, size, size, 3) uint8."""
    return np.stack(list(render(field, cond, size)))
