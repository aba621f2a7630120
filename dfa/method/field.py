"""The base of all radiance fields (section 3.5, eq. 10).

It has the conditions, the canonical space of head and torso, and `march`, which renders all fields.
"""

from __future__ import annotations

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..media import InputError
from .disentangle import DIM_E
from .face import FOCAL, euler_to_matrix
from .person import Person
from .rendering import Camera, cast_rays, compositing_weights, even_intervals, stratified
from .sync import DIM_A

Radiance = Callable[[Tensor], Tensor]  # weights (B, M, K) -> Σ_k w_k c_k (B, M, C)
CONTEXT = 2  # frames before and after a frame whose f_a the field also gets
DIM_C = 12 + DIM_E + (2 * CONTEXT + 1) * DIM_A  # columns of `conditions`


class View(NamedTuple):
    """What a camera sees of B frames, in (B, ..., size, size)."""

    picture: Tensor  # (B, 3, ...) about 0..1, not clamped
    opacity: Tensor  # (B, 1, ...) 0..1
    depth: Tensor  # (B, 1, ...) metres, the expected depth of what is opaque; 0 where nothing is


def conditions(h: Tensor, f_a: Tensor, f_e: Tensor, context: int = CONTEXT) -> Tensor:
    """Conditions of the field for T frames: h (T, 6), f_a (T, 64), f_e (T, 8) -> (T, DIM_C).

    The columns are [h ; slow h ; f_e ; f_a of 5 frames]. f_a and f_e form f_c. Slow h, an average
    over about a second, predicts the torso better than h. Other audio features or another `context`
    (frames on each side) change the number of columns.
    """
    T = len(h)
    t = torch.arange(-25, 26, dtype=h.dtype)
    kernel = torch.exp(-0.5 * (t / 10) ** 2)
    slow = F.conv1d(
        F.pad(h.T[:, None], (25, 25), mode="replicate"), (kernel / kernel.sum())[None, None]
    )[:, 0].T  # (T, 6)
    padded = torch.cat([f_a[:1].expand(context, -1), f_a, f_a[-1:].expand(context, -1)])
    windows = torch.cat([padded[k : k + T] for k in range(2 * context + 1)], 1)  # (T, 5 * 64)
    return torch.cat([h, slow, f_e, windows], 1)


def float32(method):
    """Run a method in float32 under autocast: positions and grids need more than half precision."""

    @functools.wraps(method)
    def in_float32(self, *args, **kwargs):
        with torch.autocast(self.h_mean.device.type, enabled=False):
            return method(self, *args, **kwargs)

    return in_float32


def decibels(error: Tensor) -> float:
    """PSNR in dB of squared errors (any shape) of colours in 0..1."""
    return -10 * math.log10(max(float(error.detach().mean()), 1e-12))


class Field(nn.Module, ABC):
    """F_θ: (x, d := h, f_c) -> (c, σ) of eq. 10, over the canonical space of one person.

    A field implements `condition` (preparation of the conditions), `forward` (points -> radiance,
    σ) and `loss` (L_photo, eq. 11), and has a parameter `background`, (3, S, S) or (1, 3, S, S).

    Args:
        cond: (T, DIM_C) training conditions. They set the mean pose, the box around the person, and
            the units of h and f_a.
        size: side of the training frames, pixels.
        context: as in `conditions`.
    """

    DEPTH = (-0.20, 0.20)  # metres; front and back of the box that holds head, hair and shoulders
    NEAREST = 0.05  # metres; nothing nearer to a camera is seen
    NECK = 0.14  # metres below the eyes: where head turns into torso
    PIVOT = (0.0, 0.12, 0.09)  # x, y, z of the joint in the neck about which the head turns, metres
    SHARPNESS = 50.0  # 1/m; a quarter to three quarters of torso within 4 cm of neck
    RAYS, SAMPLES = 2048, 64  # rays rendered at once by `look`, and its samples a ray
    frames_per_step, warmup = 4, 50  # frames, and steps with a rising learning rate

    def __init__(self, cond: Tensor | None = None, size: int = 128, context: int = CONTEXT):
        super().__init__()
        if cond is None:  # placeholder, until weights are loaded
            cond = torch.zeros(2, DIM_C)
            cond[:, 5] = 1.2
        h, audio = cond[:, :6], cond[:, 12 + DIM_E :]
        mean = h.mean(0)
        self.register_buffer("size", torch.tensor(size))
        self.register_buffer("context", torch.tensor(context))
        self.dim_a = audio.shape[1] // (2 * context + 1)
        self.register_buffer("h_mean", mean.clone())
        self.register_buffer("h_std", h.std(0, correction=0).clamp_min(1e-3))
        self.register_buffer("a_mean", audio.mean(0))
        spread = audio.std(0, correction=0)  # bounded below: a nearly constant entry is noise
        self.register_buffer("a_std", spread.clamp_min(0.5 * float(spread.mean()) + 1e-6))
        eyes = cond[:, 12 : 12 + DIM_E]
        self.register_buffer("e_range", torch.stack([eyes.amin(0), eyes.amax(0)]))  # (2, 8)
        half = 0.5 * float(mean[5] + self.DEPTH[1]) / FOCAL * 1.05
        centre = -mean[3:5]  # the optical axis, in head coordinates
        lo = torch.tensor([centre[0] - half, centre[1] - half, self.DEPTH[0]])
        hi = torch.tensor([centre[0] + half, centre[1] + half, self.DEPTH[1]])
        self.register_buffer("lo", lo)
        self.register_buffer("hi", hi)
        self.register_buffer("pivot", torch.tensor(self.PIVOT))
        # By axis: how far the torso goes with the neck's joint, now and slow, and turns with h.
        self.torso = nn.Parameter(torch.tensor([0.0, 1.0, 0.0])[:, None].repeat(1, 3))

    def split(self, cond: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Split and standardise conditions (B, DIM_C).

        Returns poses (B, 12), f_a of 5 frames (B, 5 * 64), and eye codes (B, 8), which keep their
        unit. Poses and eyes stay near those of the training: beyond them colours would drift.
        """
        poses = ((cond[:, :12].unflatten(1, (2, 6)) - self.h_mean) / self.h_std).flatten(1)
        f_e, f_a = cond[:, 12 : 12 + DIM_E], cond[:, 12 + DIM_E :]
        f_e = f_e.clamp(*self.e_range)
        return poses.clamp(-4, 4), (f_a - self.a_mean) / self.a_std, f_e

    @float32
    def torso_pose(self, cond: Tensor) -> Tensor:
        """Pose of the torso (B, 6), as h, in frames with the conditions (B, DIM_C).

        The joint of the neck belongs to both bodies: a head that turns leaves it where it is, a
        torso that moves takes it along. So the head's pose says where the torso is. It turns
        little; what it does by itself no condition tells.
        """

        def joint(h: Tensor) -> Tensor:  # (B, 6) -> (B, 3)
            return euler_to_matrix(h[:, :3]) @ self.pivot + h[:, 3:]

        rest, (h, slow) = self.h_mean[None], cond[:, :12].split(6, 1)
        now, later = joint(h) - joint(rest), joint(slow) - joint(rest)
        angles = rest[:, :3] + self.torso[2] * (slow - rest)[:, :3]
        at = joint(rest) + self.torso[0] * now + self.torso[1] * later
        return torch.cat([angles, at - euler_to_matrix(angles) @ self.pivot], 1)

    def bodies(self, h: Tensor, torso: Tensor) -> tuple[Tensor, ...]:
        """The poses (B, 6) of the bodies whose coordinates are the field's: head, torso."""
        return h, torso

    def canonical(
        self, depth: Tensor, rays: Tensor, h: Tensor, torso: Tensor, camera: Camera | None = None
    ) -> Tensor:
        """Camera to canonical space: points at `depth` on `rays` -> box coordinates -1..1.

        depth (B, M, K) in metres, rays (B or 1, M, 3), poses of head and torso (B, 6) ->
        (B, M, K, 3). Above the neck x = Rᵀ(X - t), with the pose of the head. Below it, with that
        of the torso. In the neck, a smooth blend of both. camera: whose rays these are; by default
        the one at rest, in whose coordinates h stands.
        """
        scale, eye, places = 2 / (self.hi - self.lo), torch.zeros_like(self.lo), []
        if camera is not None:  # to the coordinates of the one at rest
            rays, eye = rays @ camera.R, -camera.t @ camera.R
        for pose in self.bodies(h, torso):
            R, t = euler_to_matrix(pose[:, :3]), pose[:, None, 3:]
            direction = rays @ R * scale  # Rᵀ d, row-wise
            start = ((eye - t) @ R - self.lo) * scale - 1  # (B, 1, 3)
            places.append(start[:, None] + depth[..., None] * direction[:, :, None])
        if len(places) == 1:
            return places[0]
        in_head, in_torso = places
        neck = ((self.NECK - self.lo[1]) * scale[1] - 1, self.SHARPNESS / scale[1])
        w = torch.sigmoid((neck[0] - in_torso[..., 1:2]) * neck[1])  # 1 above the neck, 0 below
        return torch.lerp(in_torso, in_head, w)

    @torch.no_grad()
    @float32
    def depth_range(
        self, h: Tensor, torso: Tensor, camera: Camera | None = None
    ) -> tuple[Tensor, Tensor]:
        """Depths (B,) in metres between which the box is, as head and torso carry it.

        Whoever leans towards the camera takes it along. Arguments as of `canonical`.
        """
        corners = torch.cartesian_prod(*torch.stack([self.lo, self.hi], 1))  # (8, 3)
        found = []
        for pose in self.bodies(h, torso):
            X = corners @ euler_to_matrix(pose[:, :3]).mT + pose[:, None, 3:]  # (B, 8, 3)
            found.append(X[..., 2] if camera is None else X @ camera.R[2] + camera.t[2])
        near, far = torch.cat(found, 1).clamp_min(self.NEAREST).aminmax(dim=1)
        return near, far.maximum(near + 0.01)  # a box behind the camera is empty space

    @abstractmethod
    def condition(self, cond: Tensor) -> Any:
        """Prepare conditions (B, DIM_C) -> a named tuple with h (B, 6), torso (B, 6), ..."""

    @abstractmethod
    def forward(self, x: Tensor, conditioning: Any) -> tuple[Radiance, Tensor]:
        """Eq. 10: points (B, M, K, 3) in box coordinates -> `radiance`, σ (B, M, K) in 1/m.

        `radiance` is a function of weights w (B, M, K) that returns Σ_k w_k c_k (B, M, C). So a
        field need not store c of each sample. The first three of C are red, green, blue.
        """

    def query(self, x: Tensor, cond: Tensor) -> tuple[Tensor, Tensor]:
        """F_θ as in eq. 10: points (B, N, 3) in box coordinates, cond (B, DIM_C) -> c (B, N, C), σ
        (B, N) in 1/m."""
        radiance, sigma = self(x[:, :, None], self.condition(cond))
        return radiance(torch.ones_like(sigma)), sigma[..., 0]

    @abstractmethod
    def loss(
        self, cond: Tensor, frames: Tensor, weight: Tensor, generator: torch.Generator,
        masks: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, float]]:  # fmt: skip
        """L_photo of eq. 11, with a weight for each pixel.

        cond (B, DIM_C), frames (B, 3, S, S) in 0..1, weight (B, 1, S, S), masks (B, 1, S, S): the
        share of the person, if it is known. Returns the loss and {"psnr": dB}.
        """

    def wall(self, size: int) -> Tensor:
        """The background, (1, 3, size, size)."""
        wall = self.background.view(1, 3, *self.background.shape[-2:])
        return F.interpolate(wall, (size, size), mode="bilinear", antialias=size < wall.shape[-1])

    def look(
        self, cond: Tensor, size: int, camera: Camera | None = None, behind: Tensor | None = None
    ) -> View:
        """Render (B, DIM_C) of `conditions`: here with one ray a pixel and even intervals.

        camera: by default the one at rest. behind: (1 or B, 3, size, size), pictures in place of
        the background.
        """
        conditioning, B = self.condition(cond), len(cond)
        rays = cast_rays(size, device=cond.device)[None]
        ends = self.depth_range(conditioning.h, conditioning.torso, camera)
        edges = even_intervals(ends, self.SAMPLES)[:, None]  # (B, 1, K + 1)
        parts = []
        for part in rays.split(self.RAYS, 1):
            each = edges.expand(-1, part.shape[1], -1)
            parts.append(march(self, conditioning, part, each, camera=camera))
        seen = Marched(*(torch.cat(each, 1) for each in zip(*parts, strict=True)))
        wall = self.wall(size) if behind is None else behind
        return seen.over(wall.expand(B, -1, -1, -1))

    def image(self, cond: Tensor, size: int, behind: Tensor | None = None) -> Tensor:
        """The pictures (B, 3, size, size) of `look`."""
        return self.look(cond, size, behind=behind).picture

    def begin(self, person: Person) -> None:
        """Start from what is known of the person before training: the room behind, which stays."""
        with torch.no_grad():
            room = torch.from_numpy(person.room).permute(2, 0, 1)[None] / 255  # (1, 3, S, S)
            room = F.interpolate(room, self.background.shape[-2:], mode="area")
            self.background.copy_(room.view_as(self.background)).requires_grad_(False)

    @abstractmethod
    def parameter_groups(self) -> list[dict]:
        """Parameter groups of Adam, each with its learning rate `lr`."""


class Marched(NamedTuple):
    """What rays of B frames met, front to back."""

    colour: Tensor  # (B, M, C) Σ_k w_k c_k
    opacity: Tensor  # (B, M) Σ_k w_k, one minus the transmittance behind the last sample
    depth: Tensor  # (B, M) Σ_k w_k s_k

    def over(self, wall: Tensor) -> View:
        """Seen before a background (B, 3, n, n), with M = n * n rays."""
        n = wall.shape[-1]
        colour = self.colour.mT.unflatten(2, (n, n))
        opacity, depth = (x.view(-1, 1, n, n) for x in (self.opacity, self.depth))
        return View(colour + (1 - opacity) * wall, opacity, depth / opacity.clamp_min(1e-6))


def march(
    field: Field, conditioning: Any, rays: Tensor, edges: Tensor,
    generator: torch.Generator | None = None, camera: Camera | None = None,
) -> Marched:  # fmt: skip
    """Render rays of B frames through any field (section 3.5, volume rendering).

    Args:
        conditioning: from `field.condition`, for B frames.
        rays: (B or 1, M, 3) directions with z = 1.
        edges: (B, M, K + 1) depths, metres, of the ends of K intervals; one sample in each.
        generator: as of `rendering.stratified`.
        camera: as of `Field.canonical`.
    """
    with torch.autocast(rays.device.type, enabled=False):  # positions need float32
        depth, delta = stratified(edges, generator)
        told = conditioning.h, conditioning.torso
        x = field.canonical(depth, rays, *told, camera)
    radiance, sigma = field(x, conditioning)
    w, transmittance = compositing_weights(sigma.float(), delta)
    return Marched(radiance(w), 1 - transmittance, (w * depth).sum(-1))


@torch.inference_mode()
def render(field: Field, cond: Tensor, size: int, batch: int = 8) -> Iterator[np.ndarray]:
    """Render conditions (T, DIM_C): yields frames (size, size, 3) uint8, one by one.

    Raises InputError if a condition is not finite.
    """
    if not cond.isfinite().all():
        raise InputError("a pose or a code to be rendered is not a finite number")
    device = field.h_mean.device
    for chunk in cond.split(batch):
        image = field.image(chunk.to(device), size)
        image = (image.clamp(0, 1) * 255).round().byte()  # (B, 3, size, size)
        yield from image.permute(0, 2, 3, 1).cpu().numpy()  # (B, size, size, 3)


def render_all(field: Field, cond: Tensor, size: int) -> np.ndarray:
    """All frames of `render`, stacked: (T, size, size, 3) uint8."""
    return np.stack(list(render(field, cond, size)))
