"""Drawing that more than one notebook needs."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .disentangle import EYE_POINTS, MOUTH_POINTS

# the polylines of the 68 iBUG points: jaw, brows, nose bridge, nose, eyes, outer and inner lips
LINES = [
    (0, 17, 0),
    (17, 22, 0),
    (22, 27, 0),
    (27, 31, 0),
    (31, 36, 0),
    (36, 42, 1),
    (42, 48, 1),
    (48, 60, 1),
    (60, 68, 1),
]
MOUTH, EYES = "#c2453b", "#1f6f8b"


def draw_landmarks(ax: Axes, points: np.ndarray, title: str = "", alpha: float = 1.0) -> None:
    """Draw (68, 2 or 3) landmarks, y down: mouth points red, eye points blue."""
    for first, last, closed in LINES:
        i = [*range(first, last), *([first] if closed else [])]
        colour = EYES if first in EYE_POINTS else MOUTH
        ax.plot(points[i, 0], points[i, 1], "-", color=colour, lw=1.2, alpha=alpha)
    for index, colour in ((MOUTH_POINTS, MOUTH), (EYE_POINTS, EYES)):
        ax.plot(points[index, 0], points[index, 1], ".", color=colour, ms=2.5, alpha=alpha)
    ax.set_aspect("equal")
    if not ax.yaxis_inverted():
        ax.invert_yaxis()
    ax.axis("off")
    ax.set_title(title, fontsize=9)


def frame_grid(
    rows: Sequence[Sequence[np.ndarray]], labels: Sequence[str] = (), titles: Sequence[str] = ()
) -> Figure:
    """Rows of equally many (S, S, 3) frames, a label before each row, a title over each column."""
    n, m = len(rows), len(rows[0])
    fig, axes = plt.subplots(n, m, figsize=(0.9 * m + 0.6, 0.9 * n + 0.3), squeeze=False)
    for i, row in enumerate(rows):
        for j, frame in enumerate(row):
            axes[i, j].imshow(frame)
            axes[i, j].set_xticks([])
            axes[i, j].set_yticks([])
        if labels:
            axes[i, 0].set_ylabel(labels[i], fontsize=6)
    for ax, title in zip(axes[0], titles, strict=False):
        ax.set_title(title, fontsize=6)
    fig.subplots_adjust(0.07, 0.06, 0.995, 0.94, 0.03, 0.03)
    return fig


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


def interact(**controls: object) -> Callable:
    """ipywidgets' `interact`; where the workflow runs the notebook, one call with the defaults.

    Nobody moves a slider there, a reader of the copy sees a picture, and a widget that captures
    output can hang the client that runs the cells (jupyter/nbclient, issue 312).
    """
    if "DFA_WORKFLOW" in os.environ:

        def once(function: Callable) -> Callable:
            function()
            return function

        return once
    import ipywidgets

    return ipywidgets.interact(**controls)
