"""Drawing that more than one notebook needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain as joined
from pathlib import Path

import cv2
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from torch import nn

from ..evaluation.controls import expression
from ..media import write_video
from ..method.disentangle import EYE_POINTS, MOUTH_POINTS
from ..method.face import INNER_LIPS, LINES, FaceModel, pose, project
from . import machine
from .provenance import DPI

MOUTH, EYES = "#c2453b", "#1f6f8b"
SKIN, INSIDE = np.array([0.9, 0.86, 0.82]), np.array([0.22, 0.17, 0.17])
LIGHT = np.array([-0.35, -0.45, -0.82])  # from the viewer's upper left


def draw_landmarks(ax: Axes, points: np.ndarray, title: str = "", alpha: float = 1.0) -> None:
    """Draw (68, 2 or 3) landmarks, y down: mouth points red, eye points blue."""
    for part, closed in joined(*LINES):
        line = points[part] if not closed else np.append(points[part], points[part][:1], axis=0)
        colour = EYES if part.start in EYE_POINTS else MOUTH
        ax.plot(line[:, 0], line[:, 1], "-", color=colour, lw=1.2, alpha=alpha)
    for index, colour in ((MOUTH_POINTS, MOUTH), (EYE_POINTS, EYES)):
        ax.plot(points[index, 0], points[index, 1], ".", color=colour, ms=2.5, alpha=alpha)
    ax.set_aspect("equal")
    if not ax.yaxis_inverted():
        ax.invert_yaxis()
    ax.axis("off")
    ax.set_title(title, fontsize=9)


def landmark_video(
    path: str | Path,
    landmarks: np.ndarray,
    h: np.ndarray,
    audio: np.ndarray | None = None,
    size: int = 256,
    zoom: float = 1.0,
) -> None:
    """Write a video of frontal landmarks (T, 68, 3), metres, moved by head poses h (T, 6), as the
    camera of the captures would see them or `zoom` times as large, with the sound (n,)."""
    X = pose(torch.as_tensor(h, dtype=torch.float32), torch.as_tensor(landmarks)).numpy()
    seen = 0.5 + zoom * (project(X) - 0.5)
    corners = np.round(seen * size * 16).astype(np.int32)  # sixteenths of a pixel
    colours = {eyes: [round(255 * c) for c in to_rgb((MOUTH, EYES)[eyes])] for eyes in (0, 1)}

    def frame(points: np.ndarray) -> np.ndarray:
        image = np.full((size, size, 3), 255, np.uint8)
        for part, closed in joined(*LINES):
            colour = colours[part.start in EYE_POINTS]
            cv2.polylines(image, [points[part]], closed, colour, 2, cv2.LINE_AA, 4)
        return image

    write_video(path, map(frame, corners), audio)


def face_mesh(landmarks: np.ndarray, sigma: float = 2e-4) -> np.ndarray:
    """The surface of eq. 1 through frontal landmarks: (..., 68, 3) -> vertices (..., V, 3), metres.

    Made-up landmarks need not lie on the model: each coordinate may be off by about `sigma`.
    """
    model, F_exp = FaceModel.load(), expression(torch.as_tensor(landmarks), sigma).numpy()
    return model.vertices(np.zeros(model.B_id.shape[-1], np.float32), F_exp)


def tint(moved: np.ndarray, full: float = 6e-3) -> np.ndarray:
    """Colours (V, 3) of vertices that moved by (V,) metres: skin, and red from `full` on."""
    share = (moved / full).clip(0, 1)[:, None]
    return (1 - share) * SKIN + share * np.array(to_rgb(MOUTH))


def draw_mesh(
    ax: Axes,
    vertices: np.ndarray,
    faces: np.ndarray,
    title: str = "",
    colour: np.ndarray = SKIN,
) -> PolyCollection:
    """Draw triangles (F, 3) of vertices (V, 3) as seen along +z with y down, shaded.

    Triangles that look away are left out (normals point outward, the viewer's way is -z), the
    others painted from far to near under one distant light. `colour` is RGB in [0, 1], one for
    all or one a vertex (V, 3).
    """
    corners = vertices[faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    smooth = np.zeros_like(vertices)
    np.add.at(smooth, faces.ravel(), normals.repeat(3, axis=0))
    smooth /= np.linalg.norm(smooth, axis=1, keepdims=True).clip(1e-12)
    light = 0.35 + 0.65 * (smooth @ (LIGHT / np.linalg.norm(LIGHT))).clip(0)
    shade = (light[:, None] * colour)[faces].mean(1).clip(0, 1)
    order = np.flatnonzero(normals[:, 2] < 0)
    order = order[np.argsort(-corners[order, :, 2].mean(1), kind="stable")]
    mesh = PolyCollection(
        corners[order, :, :2],
        facecolors=shade[order],
        edgecolors=shade[order],  # covers the seams between neighbours
        linewidths=0.3,
        rasterized=True,  # thousands of triangles would make a heavy PDF
    )
    ax.add_collection(mesh)
    ax.set_aspect("equal")
    ax.autoscale_view()
    if not ax.yaxis_inverted():
        ax.invert_yaxis()
    ax.axis("off")
    ax.set_title(title, fontsize=9)
    return mesh


def draw_face(
    ax: Axes, landmarks: np.ndarray, title: str = "", before: np.ndarray | None = None
) -> None:
    """Draw frontal landmarks (68, 3), metres, as the surface through them.

    Where it has moved against the face `before`, also (68, 3), it is red (`tint`).
    """
    landmarks = np.asarray(landmarks)
    vertices, colour = face_mesh(landmarks), SKIN
    if before is not None:
        colour = tint(np.linalg.norm(vertices - face_mesh(before), axis=1))
    lips = landmarks[INNER_LIPS, :2]
    ax.fill(*(lips.mean(0) + 1.3 * (lips - lips.mean(0))).T, color=INSIDE)  # behind the mesh
    draw_mesh(ax, vertices, FaceModel.load().faces, title, colour)
    ax.set(xlim=(-0.09, 0.09), ylim=(0.125, -0.07))


def frame_grid(
    rows: Sequence[Sequence[np.ndarray]],
    labels: Sequence[str] = (),
    titles: Sequence[str] = (),
    side: int = 128,
) -> Figure:
    """Rows of equally many frames (H, W, 3) of one size, a label before each row.

    There is a title over each column or, where there are as many titles as frames, over each
    frame. A frame of `side` pixels width is drawn pixel by pixel in the PNG, a larger one smaller,
    one of half the width or less a whole number of times as large.
    """
    n, m = len(rows), len(rows[0])
    height, width = np.shape(rows[0][0])[:2]
    scale = max(1, side // width) if width <= side else side / width
    w, h, gap = scale * width / DPI, scale * height / DPI, 4 / DPI
    head = 0.17 if titles else 0.0  # inches, as all of these
    between = gap + (head if len(titles) > m else 0.0)
    whole = m * (w + gap) - gap, n * (h + between) - between + head
    fig = plt.figure(figsize=whole)
    for i, row in enumerate(rows):
        for j, frame in enumerate(row):
            bottom = whole[1] - head - i * (h + between) - h
            place = j * (w + gap) / whole[0], bottom / whole[1], w / whole[0], h / whole[1]
            ax = fig.add_axes(place, xticks=[], yticks=[])
            ax.imshow(frame, interpolation="nearest" if width <= side else "antialiased")
            ax.spines[:].set_linewidth(0.4)
            if i * m + j < len(titles):
                ax.set_title(titles[i * m + j], fontsize=7, pad=3)
        if labels:
            style = dict(ha="right", va="center", fontsize=7)
            fig.axes[-m].annotate(
                labels[i], (0, 0.5), (-4, 0), "axes fraction", textcoords="offset points", **style
            )
    return fig


def layers(network: nn.Module) -> str:
    """What a network is made of, read off its modules and weights, a line a part.

    "encoder: Linear 204→128→40": the parts that have weights, chained where they fit; of equal
    blocks one and how often; of weights that are in no layer the shapes; the number of all.
    """

    def made_of(part: nn.Module) -> list[list]:
        weight = getattr(part, "weight", None)
        if isinstance(part, nn.ModuleList) and len({str(block) for block in part}) == 1:
            size = sum(w.numel() for w in part[0].parameters())
            return [[f"{len(part)} × {type(part[0]).__name__} of {size:,}"]]
        if weight is not None and weight.ndim > 1:
            return [[type(part).__name__, weight.shape[1], weight.shape[0]]]
        chains: list[list] = []
        for chain in (chain for child in part.children() for chain in made_of(child)):
            if (
                len(chain) > 1
                and chains
                and chains[-1][0] == chain[0]
                and chains[-1][-1] == chain[1]
            ):
                chains[-1] += chain[2:]
            else:
                chains.append(chain)
        return chains

    alone = isinstance(network, nn.Sequential)
    parts = {type(network).__name__: network} if alone else dict(network.named_children())
    lines = []
    for name, part in parts.items():
        chains = [f"{kind} {'→'.join(map(str, sizes))}".strip() for kind, *sizes in made_of(part)]
        lines += [f"{name}: {', '.join(chains)}"] * bool(chains)
    own = dict(network.named_parameters(recurse=False))
    lines += [f"{name}: {'×'.join(map(str, w.shape))}" for name, w in own.items()]
    return "\n".join([*lines, f"{sum(w.numel() for w in network.parameters()):,} weights"])


def learning_curve(
    history: list[dict], keys: Sequence[str] = ("loss",), log: bool = True
) -> Figure:
    """What `dfa.training.train` logged, over steps."""
    fig, axes = plt.subplots(1, len(keys), figsize=(3.6 * len(keys), 2.6), squeeze=False)
    for ax, key in zip(axes[0], keys, strict=True):
        ax.plot([h["step"] for h in history], [h[key] for h in history], lw=1.2)
        ax.set(xlabel="step", ylabel=key, yscale="log" if log and key == "loss" else "linear")
    fig.tight_layout()
    return fig


def training_curves(table: pd.DataFrame) -> Figure:
    """The columns of `curves` of dfa.evaluation.comparison, in two rows.

    A panel for each method's part, a line a subject.
    """
    panels = list(table.groupby(["method", "part"], sort=False))
    columns = (len(panels) + 1) // 2
    fig = plt.figure(figsize=(2.3 * columns + 0.2, 4.2), layout="constrained")
    for k, ((method, part), lines) in enumerate(panels):
        ax = fig.add_subplot(2, columns, k + 1)
        for name, line in lines.groupby("testset", sort=False):
            ax.plot(line.step, line.objective, lw=0.8, label=name)
        ax.set_title(f"{method}: {part}", fontsize=8)
        ax.tick_params(labelsize=7)
        ax.set_xlabel("step", fontsize=7)
        if k % columns == 0:
            ax.set_ylabel("objective", fontsize=7)
    fig.axes[0].legend(fontsize=7)
    return fig


def interact(**controls: object) -> Callable:
    """ipywidgets' `interact`; where the workflow runs the notebook, one call with the defaults.

    Nobody moves a slider there, a reader of the copy sees a picture, and a widget that captures
    output can hang the client that runs the cells (jupyter/nbclient, issue 312).
    """
    if not machine.attended():

        def once(function: Callable) -> Callable:
            function()
            return function

        return once
    import ipywidgets

    return ipywidgets.interact(**controls)
