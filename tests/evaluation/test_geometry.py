"""Geometry against truth: a scene whose depth and pictures are known from every side."""

import numpy as np
import pytest
import torch
from conftest import conditions

from dfa.evaluation import geometry
from dfa.method.field import Field
from dfa.method.mlp_field import PaperConditioning
from dfa.method.rendering import Camera, cast_rays

RADIUS, SIZE = 0.07, 48


def turned(degrees, pivot):
    """A camera that turned by so much yaw about `pivot`."""
    a = np.radians(degrees)
    R = torch.tensor([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]]).float()
    return Camera(R, pivot - R @ pivot)


def shade(x):
    """The colour (..., 3) of the scene at canonical points (..., 3): varies along all axes."""
    return 0.5 + 3 * x * torch.tensor([1.0, -1.0, 1.0])


class Ball(Field):
    """An opaque ball in the head, of the colour that is there."""

    SAMPLES = 400

    def condition(self, cond):
        return PaperConditioning(cond[:, :6], self.torso_pose(cond), cond, cond)

    def solid(self, x):
        """Where there is matter, and the colour there."""
        return x.norm(dim=-1) < RADIUS, shade(x)

    def forward(self, x, told):
        solid, c = self.solid((x + 1) / 2 * (self.hi - self.lo) + self.lo)
        return (lambda w: torch.einsum("bmkc,bmk->bmc", c, w)), 3000.0 * solid

    loss = parameter_groups = None


class Sheet(Ball):
    """The same picture from the front, painted on a flat sheet: constant along each ray."""

    def solid(self, x):
        z = -(RADIUS**2 - x[..., :2].square().sum(-1)).clamp_min(0).sqrt()  # the ball's front
        there = (x[..., 2].abs() < 0.003) & (x[..., :2].norm(dim=-1) < RADIUS)
        return there, shade(torch.cat([x[..., :2], z[..., None]], -1))


@pytest.fixture(scope="module")
def scene():
    """Conditions of a head that looks ahead, and views of the ball by ray tracing."""
    cond = conditions(2)
    cond[:, :12] = torch.tensor([0, 0, 0, 0, 0, 1.3]).repeat(2)
    h = cond[0, :6]
    found = {k: [] for k in ("R", "t", "depth", "pictures", "turn", "frame", "h")}
    for degrees in (0, -30, 20):
        camera = turned(degrees, h[3:])
        rays = cast_rays(SIZE)
        eye, rest = -camera.t @ camera.R, rays @ camera.R
        a, b = rest.square().sum(-1), (rest * (eye - h[3:])).sum(-1)
        c = (eye - h[3:]).square().sum() - RADIUS**2
        root = b**2 - a * c
        z = torch.where(root > 0, (-b - root.clamp_min(0).sqrt()) / a, 0.0)
        picture = (shade(eye + z[:, None] * rest - h[3:]).clamp(0, 1) * 255).round()
        for name, value in (
            ("R", camera.R), ("t", camera.t), ("depth", z.view(SIZE, SIZE)), ("frame", 1),
            ("pictures", picture.view(SIZE, SIZE, 3)), ("turn", (degrees, 0)), ("h", h),
        ):  # fmt: skip
            found[name].append(np.asarray(value))
    return cond, {k: np.stack(v) for k, v in found.items()}


def test_the_true_scene_is_found_true(scene):
    cond, views = scene
    table = geometry.against_views(Ball(cond, SIZE), cond, views)
    assert list(table.yaw) == [0, -30, 20]
    assert table.depth_mm.max() < 1 and table.covered.min() > 0.97, table
    assert table.psnr_face.min() > 35, table


def test_a_picture_on_a_flat_sheet_is_found_false(scene):
    """It shows the front camera the right picture, and no other, and has no depth."""
    cond, views = scene
    table = geometry.against_views(Sheet(cond, SIZE), cond, views).set_index("yaw")
    assert table.psnr_face[0] > 30, table
    assert table.psnr_face[[-30, 20]].max() < 28 and table.depth_mm.min() > 15, table


def test_lengths_are_compared_up_to_one_factor(scene):
    """A tracker that puts the head at half the distance sees everything half as large."""
    cond, views = scene
    nearer = cond.clone()
    nearer[:, :12] /= 1.1

    class Smaller(Ball):
        def solid(self, x):
            return super().solid(x * 1.1)

    table = geometry.against_views(Smaller(nearer, SIZE), nearer, views)
    assert table.depth_mm.max() < 1, table
    assert table.bias_mm.abs().max() < 1, table


def test_instants_beyond_the_recording_are_left_out(scene):
    cond, views = scene
    late = views | {"frame": np.array([1, 5, 1])}
    assert len(geometry.against_views(Ball(cond, SIZE), cond, late)) == 2


def test_normals_of_a_ball_point_away_from_its_centre():
    rays = cast_rays(SIZE)
    centre = torch.tensor([0.0, 0.0, 1.3])
    a, b = rays.square().sum(-1), -(rays * centre).sum(-1)
    root = b**2 - a * (centre.square().sum() - RADIUS**2)
    z = torch.where(root > 0, (-b - root.clamp_min(0).sqrt()) / a, 0.0).view(SIZE, SIZE)
    away = (geometry.points(z) - centre) / RADIUS
    aside = (geometry.points(z) - centre)[..., :2].norm(dim=-1)
    inner = (z > 0) & (aside < 0.7 * RADIUS)
    cosine = (geometry.normals(z) * away).sum(-1)[inner]
    assert cosine.min() > 0.99 and inner.sum() > 20
