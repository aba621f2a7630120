"""Which fields there are, and how one is trained on a person's frames (eq. 11)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ..media import InputError
from ..recipe import Recipe, digest
from ..training import load, pick_device, share, train
from .disentangle import DIM_E
from .face import LEFT_EYE, LIPS, RIGHT_EYE
from .fast_field import FastField
from .field import CONTEXT, Field
from .mlp_field import PaperField

FIELDS: dict[str, type[Field]] = {"fast": FastField, "paper": PaperField}


@dataclass(frozen=True)
class FieldRecipe(Recipe):
    """A field's training. Learning rates are the field's `parameter_groups`."""

    clip: float | None = None
    kind: str = "fast"  # of `FIELDS`
    context: int = CONTEXT  # of `conditions`
    corrected: bool = False  # learn small corrections of the tracked poses along with the field
    lr: float = 1e-3  # of these corrections


class PoseCorrections(nn.Module):
    """Small learned corrections of the T tracked poses that a field is trained on.

    Knots every `every` frames, linear in between: a frame alone is seen a few times only. Their
    mean is held at nought, or the field and the poses could drift together.
    """

    UNIT = 0.02  # radians and metres of one unit of a knot

    def __init__(self, field: Field, T: int, every: int = 8):
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
    for part, grow in ((RIGHT_EYE, 1.3), (LEFT_EYE, 1.3), (LIPS, 1.0)):
        p = points[:, part]
        centre, half = p.mean(1), (p.amax(1) - p.amin(1))[:, :1] / 2 * grow  # round: lids travel
        d2 = (u - centre[:, 0, None, None]) ** 2 + (v - centre[:, 1, None, None]) ** 2
        weight += extra * torch.exp(-0.5 * d2 / (half[..., None] * 0.7) ** 2)
    return (weight / weight.mean((1, 2), keepdim=True))[:, None]


def train_field(
    frames: np.ndarray,
    points: np.ndarray,
    cond: Tensor,
    recipe: FieldRecipe,
    path: Path,
    seed: int,
    device: str = "auto",
    watch: Callable[[Field], None] | None = None,
) -> tuple[Field, list[dict]]:
    """F_θ on one subject's frames (T, S, S, 3) uint8, tracked points (T, 68, 2) and conditions
    (T, DIM_C), and its history (eq. 11).

    watch: is called with the field as each step begins.
    """
    torch.manual_seed(seed)
    where = pick_device(device)
    field = FIELDS[recipe.kind](cond, frames.shape[1], recipe.context).to(where)
    corrections = PoseCorrections(field, len(cond)).to(where) if recipe.corrected else None
    pictures = torch.from_numpy(frames).permute(0, 3, 1, 2)  # (T, 3, S, S)
    landmarks = torch.from_numpy(points).float()

    def loss(g: torch.Generator) -> tuple[Tensor, dict]:
        if watch is not None:
            watch(field)
        i = share(torch.randint(len(cond), (field.frames_per_step,), generator=g))
        told = cond[i].to(where)  # (B, DIM_C)
        if corrections is not None:
            told = torch.cat([told[:, :6] + corrections(i.to(where)), told[:, 6:]], 1)
        weight = region_weights(landmarks[i], frames.shape[1])  # (B, 1, S, S)
        return field.loss(told, pictures[i].float().div(255).to(where), weight.to(where), g)

    groups = field.parameter_groups()
    if corrections is not None:
        groups.append({"params": [corrections.knots], "lr": recipe.lr})
    history = train(
        corrections or field, loss, replace(recipe, warmup=field.warmup), path=path, seed=seed,
        data=digest(frames, points, cond), groups=groups, label="radiance field",
    )  # fmt: skip
    return field, history


def load_field(path: str | Path) -> Field:
    """The field of a file that a training wrote, whichever it is and of whatever size.

    Raises InputError where it is missing, damaged, or of another version.
    """
    try:
        with safe_open(path, framework="pt") as f:
            names = set(f.keys())
            kind = PaperField if "smooth" in names else FastField
            cond = torch.zeros(2, 12 + DIM_E + f.get_tensor("a_mean").numel())
            cond[:, 5] = 1.2
            field = kind(cond, *(int(f.get_tensor(k)) for k in ("size", "context")))
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"{path} holds no radiance field of this version: make it again with `dfa fit`, or"
            " `make figures`"
        ) from error
    load(field, path)
    return field
