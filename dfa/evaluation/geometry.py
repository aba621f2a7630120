"""Geometry against truth: the depth of the face, and pictures from cameras that filmed nothing."""

from __future__ import annotations

import copy

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..method.face import euler_to_matrix
from ..method.field import Field, decibels
from ..method.rendering import Camera, cast_rays

# canonical metres around the point between the eyes: a box that holds the face without ears
FACE = torch.tensor([[-0.065, -0.05, -0.20], [0.065, 0.10, 0.06]])
GREY = 0.5  # stands behind the actor, so what is transparent counts as an error


def points(depth: Tensor) -> Tensor:
    """What is seen at the depths (S, S), metres: points (S, S, 3) in the camera's coordinates."""
    return cast_rays(len(depth), device=depth.device).view(*depth.shape, 3) * depth[..., None]


def normals(depth: Tensor) -> Tensor:
    """Unit normals (S, S, 3) of the surface at the depths (S, S), towards the camera.

    By central differences; at the border of the image they are those beside it.
    """
    X = points(depth)
    right, down = X[1:-1, 2:] - X[1:-1, :-2], X[2:, 1:-1] - X[:-2, 1:-1]
    n = torch.nn.functional.normalize(torch.linalg.cross(down, right), dim=-1)  # (S-2, S-2, 3)
    return torch.nn.functional.pad(n.permute(2, 0, 1)[None], (1,) * 4, "replicate")[0].movedim(0, 2)


def face_pixels(depth: Tensor, camera: Camera, h: Tensor) -> Tensor:
    """Where a camera sees the face: (S, S) bool. depth (S, S), 0 where nothing is; h (6,)."""
    X = (points(depth) - camera.t) @ camera.R  # coordinates of the camera at rest
    x = (X - h[3:]) @ euler_to_matrix(h[:3])  # canonical
    return (depth > 0) & ((x > FACE[0]) & (x < FACE[1])).all(-1)


@torch.inference_mode()
def against_views(field: Field, cond: Tensor, views: dict[str, np.ndarray]) -> pd.DataFrame:
    """A field on the CPU against the true pictures and depths of `captures.views`.

    One camera cannot tell a large head far away from a small one nearby. So lengths of the field
    are multiplied by one number, the mean ratio of true to tracked distances of the head. Rays have
    four times the samples of a picture, so that σ is judged and not the sum.

    Args:
        cond: (T, DIM_C) conditions of the recording that the views show. Instants that it does not
            reach are left out.
        views: of `captures.views`.

    Returns a row for each view: frame, yaw, pitch (degrees), depth_mm (mean absolute error on the
    face), bias_mm (mean error; more is farther), psnr (dB, on the actor), psnr_face, covered (share
    of the face that is more opaque than not).
    """
    field = copy.copy(field)
    field.SAMPLES = 4 * field.SAMPLES
    views = {k: v[views["frame"] < len(cond)] for k, v in views.items()}
    told = cond[views["frame"]]  # (n, DIM_C)
    truth = {k: torch.from_numpy(views[k]).float() for k in ("R", "t", "h", "depth", "pictures")}
    scale = float((truth["h"][:, 5] / told[:, 5]).mean())
    size, rows = truth["depth"].shape[-1], []
    grey = torch.full((1, 3, size, size), GREY)
    for i in range(len(told)):
        R, t, h, depth = (truth[k][i] for k in ("R", "t", "h", "depth"))
        seen = field.look(told[i : i + 1], size, Camera(R, t / scale), grey)
        face = face_pixels(depth, Camera(R, t), h)
        error = (seen.picture[0].movedim(0, 2).clamp(0, 1) - truth["pictures"][i] / 255) ** 2
        opaque = face & (seen.opacity[0, 0] > 0.5)
        apart = 1000 * (seen.depth[0, 0] * scale - depth)[opaque]
        yaw, pitch = (int(angle) for angle in views["turn"][i])
        rows.append(
            dict(
                frame=int(views["frame"][i]), yaw=yaw, pitch=pitch,
                depth_mm=float(apart.abs().mean()), bias_mm=float(apart.mean()),
                psnr=decibels(error[depth > 0]), psnr_face=decibels(error[face]),
                covered=float(opaque.sum() / face.sum()),
            )
        )  # fmt: skip
    return pd.DataFrame(rows)
