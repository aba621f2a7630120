"""The radiance field of eq. 10 as sums of bases (FastNeRF, Garbin et al. 2021), for a laptop.

σ and c at a point x are sums of functions of x, weighted by codes of the conditions:

    σ(x) = S softplus(s_0(x) + Σ_j a_j(f_c) s_j(x))
    c(x) = u_0(x) + Σ_j a_j(f_c) u_j(x) + v_0(x) + Σ_j b_j(h, f_c) v_j(x)

The s_j are 3-D grids. The u_j have much detail across the line of sight and none along it. The v_j
are coarse and vary along it too; with b they make the light and the view direction d := h of the
head. d says nothing about the torso: there v_j = 0 for j > 0. For a frame the sums are formed once,
so a sample costs three look-ups. The colours that are composited along a ray are the picture:
nothing comes after.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from scipy.spatial import cKDTree
from torch import Tensor, nn

from .disentangle import DIM_E
from .field import CONTEXT, Field, Marched, Radiance, View, decibels, float32, march
from .person import Person
from .rendering import (
    Camera,
    cast_rays,
    compositing_weights,
    equal_shares,
    even_intervals,
    stratified,
)


class FastConditioning(NamedTuple):
    """Prepared conditions of B frames."""

    h: Tensor  # (B, 6)
    torso: Tensor  # (B, 6) its pose
    density: Tensor  # (B, 1, G, G, G) before softplus
    detail: Tensor  # (B, 3, P, P) u_0 + Σ_j a_j u_j
    shade: Tensor  # (B, 3, 2, L, L) v_0 + Σ_j b_j v_j


class Intervals(NamedTuple):
    """Where the person is on the rays of R x R cells of a frame, from a coarse pass."""

    edges: Tensor  # (B, R * R, K + 1) depths of the ends of K intervals, metres
    opacity: Tensor  # (B, R * R) the largest of a cell and its neighbours


class FastField(Field):
    """F_θ of eq. 10: see the module. Arguments as of `Field`."""

    GRID, COARSE = 56, 48  # cells along a side of the s_j and of the v_j
    BASES_S, BASES_U, BASES_V = 10, 16, 6
    SHARP = 6  # of the u_j also have full resolution
    FACE = (0.6, 0.44)  # height and width of the u_j, j > 0, in sides of the box
    MIDDLE = (0.0, 0.02)  # x, y of their middle, metres
    DENSITY = 60.0  # 1/m, the unit of σ
    CELLS, BINS = 32, 18  # of the coarse pass: cells along a side of the image, samples a ray
    SAMPLES, RAYS, ELSEWHERE = 6, 4096, 1024  # a ray; rays and background pixels a frame and step
    EMPTY = 0.05  # opacity of cells whose rays are left out
    MASK, BACKGROUND = 0.05, 0.3  # weights of two losses
    EPS = 1e-6  # of Adam, for grids and planes

    def __init__(self, cond: Tensor | None = None, size: int = 128, context: int = CONTEXT):
        super().__init__(cond, size, context)
        G, P, L, channels = self.GRID, size * 5 // 4, self.COARSE, 3
        self.P = P
        self.face = rows, columns = round(self.FACE[0] * P), round(self.FACE[1] * P)
        middle = (torch.tensor(self.MIDDLE) - self.lo[:2]) / (self.hi - self.lo)[:2]  # x, y
        corner = (middle.flip(0) * P - torch.tensor(self.face) / 2).round().long()
        self.register_buffer("corner", corner.clamp_min(0).minimum(P - torch.tensor(self.face)))
        self.half = rows // 2, columns // 2
        grid = torch.zeros(1 + self.BASES_S, G**3)
        grid[0] = self._soft(self._head_and_shoulders()).flatten()
        self.s = nn.Parameter(grid)
        sides = (P, P // 2, P // 5)  # a pyramid: coarse levels learn fast
        self.u = nn.ParameterList(torch.randn(1, channels, n, n) * 0.02 for n in sides)
        with torch.no_grad():
            self.u[0].add_(0.4)
        n_half, n_full = (channels * r * c for r, c in (self.half, self.face))
        self.u_half = nn.Parameter(torch.randn(self.BASES_U, n_half) * 0.01)
        self.u_full = nn.Parameter(torch.randn(self.SHARP, n_full) * 0.003)
        v = torch.randn(1 + self.BASES_V, channels * 2 * L * L) * 0.005
        v[0] = 0
        self.v = nn.Parameter(v)
        y = torch.linspace(float(self.lo[1]), float(self.hi[1]), L)[:, None]  # (L, 1) metres
        self.register_buffer("of_head", (y < self.NECK).float())
        self.background = nn.Parameter(torch.full((1, channels, size, size), 0.5))
        self.lips = nn.Sequential(
            nn.Dropout(0.3),  # against overfitting to a minute of speech
            nn.Linear((2 * context + 1) * self.dim_a, 32),
            nn.ReLU(),
            nn.Linear(32, 16),
        )

        def code(n_in: int, n_out: int) -> nn.Sequential:
            return nn.Sequential(nn.Linear(n_in, 32), nn.ReLU(), nn.Linear(32, n_out))

        self.a = code(16 + DIM_E, self.BASES_S + self.BASES_U)
        self.b = code(12 + 16 + DIM_E, self.BASES_V)

    @classmethod
    def training_memory(cls, size: int) -> int:
        """Bytes that training needs, about: each weight with its gradient and two moments of Adam,
        the planes of the frames of a step, and 1.5 GB for the rest."""
        weights = (1 + cls.BASES_S) * cls.GRID**3 + 22 * size**2
        return 16 * weights + 4 * 30 * cls.frames_per_step * size**2 + 1_500_000_000

    def _grid(self) -> Tensor:
        """(G, G, G, 3) x, y, z in metres at the nodes of the s_j, whose order is z, y, x."""
        ends = zip(map(float, self.lo), map(float, self.hi), strict=True)
        x, y, z = (torch.linspace(*pair, self.GRID) for pair in ends)
        return torch.stack(torch.meshgrid(z, y, x, indexing="ij")[::-1], -1)

    def _shoulders(self) -> Tensor:
        """(G, G, G) metres inside a block, about; negative outside."""
        x, y, z = self._grid().unbind(-1)
        body = 1 - ((x / 0.2) ** 2 + ((z - 0.08) / 0.1) ** 2).sqrt()
        return torch.minimum(y - self.NECK, 0.1 * body)

    def _head_and_shoulders(self) -> Tensor:
        """(G, G, G) metres inside an ellipsoid above that block, about; negative outside."""
        x, y, z = self._grid().unbind(-1)
        head = 1 - ((x / 0.10) ** 2 + ((y + 0.01) / 0.15) ** 2 + ((z - 0.05) / 0.12) ** 2).sqrt()
        return torch.maximum(0.1 * head, self._shoulders())

    @staticmethod
    def _soft(inside: Tensor) -> Tensor:
        """s_0 of points that are so many metres inside: about 2 cm from empty to dense."""
        return (inside * 80).clamp(-6, 2) - 1

    def begin(self, person: Person) -> None:
        """Start from the room, and from the shape of the person."""
        super().begin(person)
        with torch.no_grad():
            self.s[0] = self._soft(self.shape_of(person)).flatten()

    def shape_of(self, person: Person) -> Tensor:
        """(G, G, G) metres inside a person: near the 3DMM, a point behind it is inside."""
        nodes, mesh = self._grid(), person.vertices[person.faces]  # (F, 3, 3)
        points = np.concatenate([person.vertices, mesh.mean(1), (mesh[:, 0] + mesh[:, 1]) / 2])
        distance, nearest = cKDTree(points).query(nodes.numpy())  # (G, G, G) each
        behind = nodes[..., 2].numpy() > points[nearest][..., 2]
        face = torch.from_numpy(np.where(behind, distance, -distance)).float()
        near = torch.from_numpy(distance < 0.03) & (nodes[..., 1] < 0.13)
        return torch.where(near, face, self._head_and_shoulders())

    def parameter_groups(self) -> list[dict]:
        """Grids and planes learn faster than networks; the torso's motion slower.

        A cell that is hardly seen has tiny, noisy gradients. Adam would give them full steps, and
        the cell would become noise, so for grids and planes eps is as large as such a gradient.
        """
        rates = {"s": 1e-1, "u_half": 2e-2, "u_full": 1e-2, "v": 1e-2, "background": 2e-2}
        cells = [([getattr(self, name)], lr) for name, lr in rates.items()] + [([*self.u], 2e-2)]
        networks = [p for net in (self.lips, self.a, self.b) for p in net.parameters()]
        groups = [{"params": params, "lr": lr, "eps": self.EPS} for params, lr in cells]
        return [*groups, {"params": networks, "lr": 6e-3}, {"params": [self.torso], "lr": 3e-3}]

    @float32
    def condition(self, cond: Tensor) -> FastConditioning:
        poses, f_a, f_e = self.split(cond)
        f_c = torch.cat([self.lips(f_a), f_e], 1)
        a_s, a_u = self.a(f_c).split([self.BASES_S, self.BASES_U], 1)
        b = self.b(torch.cat([poses, f_c], 1))
        B, G, L = len(cond), self.GRID, self.COARSE

        def up(plane: Tensor, *size: int) -> Tensor:
            return F.interpolate(plane, size=size, mode="bilinear", align_corners=True)

        density = torch.addmm(self.s[:1].expand(B, -1), a_s, self.s[1:]).view(B, 1, G, G, G)
        still = self.u[0] + sum(up(level, self.P, self.P) for level in self.u[1:])
        moving = up((a_u @ self.u_half).view(B, 3, *self.half), *self.face)
        moving = moving + (a_u[:, : self.SHARP] @ self.u_full).view(B, 3, *self.face)
        still_shade, moving_shade = (x.view(-1, 3, 2, L, L) for x in (self.v[:1], b @ self.v[1:]))
        shade = still_shade + self.of_head * moving_shade
        (top, left), (rows, columns) = map(int, self.corner), self.face
        margin = left, self.P - left - columns, top, self.P - top - rows
        detail = still + F.pad(moving, margin)  # (B, 3, P, P)
        return FastConditioning(cond[:, :6], self.torso_pose(cond), density, detail, shade)

    def sigma(self, density: Tensor, x: Tensor) -> Tensor:
        """σ (B, M, K) in 1/m at points x (B, M, K, 3) in box coordinates; 0 outside the box."""
        B, M, K, _ = x.shape
        s = F.grid_sample(density, x.view(B, 1, M, K, 3), padding_mode="border", align_corners=True)
        inside = x.detach().abs().amax(-1) < 1
        return F.softplus(s.view(B, M, K)) * self.DENSITY * inside

    def colour(self, x: Tensor, conditioning: FastConditioning) -> Tensor:
        """c (B, 3, M, K), about 0..1, at points x (B, M, K, 3) in box coordinates."""
        across, z = x[..., :2], (x[..., 2].clamp(-1, 1) + 1) / 2

        def at(plane: Tensor) -> Tensor:  # (B, C, M, K)
            return F.grid_sample(plane, across, padding_mode="border", align_corners=True)

        c, shade = at(conditioning.detail), at(conditioning.shade.flatten(1, 2))
        front, back = shade.unflatten(1, (3, 2)).unbind(2)  # (B, 3, M, K) each
        return c + torch.lerp(front, back, z[:, None])

    def forward(self, x: Tensor, conditioning: FastConditioning) -> tuple[Radiance, Tensor]:
        """c and σ (eq. 10) at points (B, M, K, 3); returns as `Field.forward`."""
        c = self.colour(x, conditioning)
        sigma = self.sigma(conditioning.density, x)
        return (lambda w: (c * w[:, None]).sum(-1).mT), sigma

    @torch.no_grad()
    @float32
    def intervals(self, conditioning: FastConditioning, camera: Camera | None = None) -> Intervals:
        """A coarse pass: depth intervals with equal shares of the weight (section 5.2 of NeRF).

        They cover the ray through the box from end to end. Neighbouring cells are looked at too, as
        a cell is wider than a pixel: a share is that of the largest weights around.
        """
        R, K, B = self.CELLS, self.BINS, len(conditioning.h)
        told = conditioning.h, conditioning.torso
        edges = even_intervals(self.depth_range(*told, camera), K)[:, None]  # (B, 1, K + 1)
        depth, delta = stratified(edges)  # (B, 1, K), in the middle
        rays = cast_rays(R, device=depth.device)[None]
        x = self.canonical(depth.expand(B, R * R, K), rays, *told, camera)
        w, transmittance = compositing_weights(self.sigma(conditioning.density, x), delta)
        w = torch.cat([w, 1 - transmittance[..., None]], -1)  # (B, R * R, K + 1)
        w = F.max_pool2d(w.mT.unflatten(2, (R, R)), 3, 1, 1).flatten(2).mT  # over neighbours
        w, opacity = w[..., :-1], w[..., -1]
        w = (w + F.max_pool1d(w, 3, 1, 1)) / 2
        w = w + 1e-4 + 0.01 * w.mean(-1, keepdim=True)  # a little everywhere
        return Intervals(equal_shares(edges, w, self.SAMPLES), opacity)

    def cell(self, pixel: Tensor, size: int) -> Tensor:
        """The cell of pixels with the numbers `pixel`, of images of `size`."""
        R = self.CELLS
        return (pixel // size) * R // size * R + (pixel % size) * R // size

    def loss(
        self, cond: Tensor, frames: Tensor, weight: Tensor, generator: torch.Generator,
        masks: Tensor | None = None, behind: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, float]]:  # fmt: skip
        """L_photo (eq. 11) on pixels drawn by weight where the person is, and two more losses.

        Elsewhere the background alone is compared with the frame. Pixels of weight 0 do not count.
        masks (B, 1, S, S): the share of the person in each pixel; where it is surely 0 or 1, the
        opacity should be so too. behind (B, 3, S, S): pictures in place of the background.
        """
        conditioning, B, S = self.condition(cond), len(cond), int(self.size)
        intervals = self.intervals(conditioning)
        every = torch.arange(S * S, device=cond.device)
        hit = intervals.opacity[:, self.cell(every, S)] > self.EMPTY  # (B, S * S)
        weight, wall = weight.flatten(1), self.background if behind is None else behind

        def draw(chance: Tensor, n: int) -> Tensor:  # (B, S * S) -> (B, n), on the CPU: one stream
            return torch.multinomial(chance.cpu(), n, True, generator=generator).to(cond.device)

        def at(image: Tensor, pixel: Tensor) -> Tensor:  # (B, C, S, S) -> (B, n, C)
            index = pixel[:, None].expand(-1, image.shape[1], -1)
            return image.expand(B, -1, -1, -1).flatten(2).gather(2, index).mT

        pixel = draw(weight * hit + 1e-9, self.RAYS)
        index = self.cell(pixel, S)[..., None].expand(-1, -1, self.SAMPLES + 1)
        rays = cast_rays(S, device=cond.device)[pixel]  # (B, M, 3)
        edges = intervals.edges.gather(1, index)
        seen = march(self, conditioning, rays, edges, generator)
        rgb = seen.colour + (1 - seen.opacity)[..., None] * at(wall, pixel)
        error = (rgb - at(frames, pixel)) ** 2  # eq. 11
        loss = error.mean()
        if behind is None:
            empty = (weight > 0) & ~hit
            pixel_out = draw(empty + 1e-9, self.ELSEWHERE)
            missed = (at(wall, pixel_out) - at(frames, pixel_out)) ** 2
            loss = loss + self.BACKGROUND * (missed * empty.gather(1, pixel_out)[..., None]).mean()
        if masks is not None:
            share = at(masks, pixel)[..., 0]
            sure = (share < 0.1) | (share > 0.9)
            loss = loss + self.MASK * (sure * (seen.opacity - share.round()) ** 2).mean()
        return loss, {"psnr": decibels(error)}

    def look(
        self, cond: Tensor, size: int, camera: Camera | None = None, behind: Tensor | None = None
    ) -> View:
        """As `Field.look`, but a coarse pass places the samples, and rays that miss are left out.

        Of pictures smaller than in training, a pixel is the mean of as many rays as fit in it.
        """
        conditioning, S = self.condition(cond), int(self.size)
        intervals, n = self.intervals(conditioning, camera), size * max(1, S // size)
        wall = self.wall(n) if behind is None else F.interpolate(behind, (n, n))
        rays = cast_rays(n, device=cond.device)
        cells = self.cell(torch.arange(n * n, device=cond.device), n)
        met = torch.zeros(len(cond), n * n, 5, device=cond.device)
        for b, (edges, opacity) in enumerate(zip(*intervals, strict=True)):
            hit = (opacity[cells] > self.EMPTY).nonzero()[:, 0]
            one = FastConditioning(*(x[b : b + 1] for x in conditioning))
            ray, ends = rays[hit][None], edges[cells[hit]][None]
            c, o, z = march(self, one, ray, ends, camera=camera)
            met[b, hit] = torch.cat([c, o[..., None], z[..., None]], -1)[0]
        seen = Marched(met[..., :3], met[..., 3], met[..., 4])
        picture, opacity, depth = seen.over(wall.expand(len(cond), -1, -1, -1))
        k = n // size
        if k == 1:
            return View(picture, opacity, depth)
        shown = F.avg_pool2d(opacity, k)
        depth = F.avg_pool2d(opacity * depth, k) / shown.clamp_min(1e-6)
        return View(F.avg_pool2d(picture, k), shown, depth)
