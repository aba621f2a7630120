"""The radiance fields by name, and their training on the frames of a person (eq. 11)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ..media import InputError
from ..processes import own_part
from ..recipe import Recipe, digest
from ..recording import Frames
from ..training import load, pick_device, train
from .disentangle import DIM_E
from .face import LEFT_EYE, LIPS, RIGHT_EYE
from .fast_field import FastField
from .field import CONTEXT, Field
from .mlp_field import PaperField, SmallPaperField
from .person import Person

FIELDS: dict[str, type[Field]] = {"fast": FastField, "paper": PaperField, "small": SmallPaperField}


@dataclass(frozen=True)
class FieldRecipe(Recipe):
    """Settings of the training of a field. Its learning rates: `Field.parameter_groups`."""

    clip: float | None = None
    kind: str = "fast"  # one of `FIELDS`
    context: int = CONTEXT  # as in `conditions`
    corrected: bool = False  # also learn corrections of the tracked poses
    lr: float = 1e-3  # of the corrections


class PoseCorrections(nn.Module):
    """Small learned corrections of the T tracked poses on which a field is trained.

    Piecewise linear with a knot at each `every`-th frame, since training visits a frame only a few
    times. The mean of the knots is zero; otherwise field and poses could drift together.
    """

    UNIT = 0.02  # radians and metres per unit of a knot

    def __init__(self, field: Field, T: int, every: int = 8):
        super().__init__()
        self.field, self.every = field, every
        self.knots = nn.Parameter(torch.zeros(T // every + 2, 6))

    def forward(self, i: Tensor) -> Tensor:
        """Frame numbers (B,) -> correction of their h (B, 6), radians and metres."""
        knots = self.UNIT * (self.knots - self.knots.mean(0))
        k = i // self.every
        fraction = (i % self.every / self.every)[:, None].to(knots)  # (B, 1)
        return torch.lerp(knots[k], knots[k + 1], fraction)


def region_weights(points: Tensor, size: int, extra: float = 30.0) -> Tensor:
    """Weights (T, 1, size, size) of pixels in the loss, mean 1, larger near eyes and mouth.

    Eyes and mouth are few pixels, but viewers look at them most. points: (T, 68, 2) tracked
    landmarks, 0 to 1. extra: additional weight at the centre of an eye or the mouth.
    """
    grid = (torch.arange(size, device=points.device) + 0.5) / size
    weight = torch.ones(len(points), size, size, device=points.device)
    for part, grow in ((RIGHT_EYE, 1.3), (LEFT_EYE, 1.3), (LIPS, 1.0)):
        p = points[:, part]
        centre, half = p.mean(1), (p.amax(1) - p.amin(1))[:, :1] / 2 * grow  # a disc: lids move
        near = torch.exp(-0.5 * ((grid - centre[..., None]) / (half[..., None] * 0.7)) ** 2)
        u, v = near.unbind(1)  # (T, size) each: the disc is a product
        weight += extra * v[:, :, None] * u[:, None]
    return (weight / weight.mean((1, 2), keepdim=True))[:, None]


def train_field(
    frames: np.ndarray | Frames, points: np.ndarray, cond: Tensor, recipe: FieldRecipe, path: Path,
    seed: int, device: str = "auto", watch: Callable[[Field], None] | None = None,
    person: Person | None = None,
) -> tuple[Field, list[dict]]:  # fmt: skip
    """Train F_θ on the frames of one subject (eq. 11).

    Args:
        frames: (T, S, S, 3) uint8, or `Frames`.
        points: (T, 68, 2) tracked landmarks, 0 to 1.
        cond: (T, DIM_C) of `conditions`.
        watch: called with the field at the start of each step.
        person: what is known of the person and the room; without it the field finds out.

    Returns the field and the history. Other arguments, history and errors as in `training.train`.
    """
    torch.manual_seed(seed)
    where = pick_device(device)
    field = FIELDS[recipe.kind](cond, frames.shape[1], recipe.context).to(where)
    corrections = PoseCorrections(field, len(cond)).to(where) if recipe.corrected else None
    landmarks, size = torch.from_numpy(points).float(), frames.shape[1]
    if person is not None:
        field.begin(person)

    def loss(g: torch.Generator) -> tuple[Tensor, dict]:
        if watch is not None:
            watch(field)
        i = own_part(torch.randint(len(cond), (field.frames_per_step,), generator=g))
        batch = cond[i].to(where)  # (B, DIM_C)
        if corrections is not None:
            batch = torch.cat([batch[:, :6] + corrections(i.to(where)), batch[:, 6:]], 1)
        weight, masks = region_weights(landmarks[i].to(where), size), None  # (B, 1, S, S)
        if person is not None:
            masks = person.shares(i, size).to(where)  # (B, 1, S, S)
        pictures = torch.from_numpy(frames[i.numpy()]).to(where)  # as bytes: a quarter of floats
        pictures = pictures.permute(0, 3, 1, 2).float().div(255)  # (B, 3, S, S)
        return field.loss(batch, pictures, weight, g, masks)

    groups = field.parameter_groups()
    if corrections is not None:
        groups.append({"params": [corrections.knots], "lr": recipe.lr})
    history = train(
        corrections or field, loss, replace(recipe, warmup=field.warmup), path=path, seed=seed,
        data=digest(frames, points, cond, *(person or ())), groups=groups, label="radiance field",
        precision=None,
    )  # fmt: skip
    return field, history


def load_field(path: str | Path) -> Field:
    """Load a trained field, of any kind and size, from a file of `train_field`.

    Raises InputError if the file is missing, damaged, or of another version.
    """
    try:
        with safe_open(path, framework="pt") as f:
            kind: type[Field] = FastField
            if "smooth" in f.keys():
                width = f.get_slice("density.weight").get_shape()[1]
                kind = PaperField if width == PaperField.WIDTH else SmallPaperField
            cond = torch.zeros(2, 12 + DIM_E + f.get_tensor("a_mean").numel())
            cond[:, 5] = 1.2
            field = kind(cond, *(int(f.get_tensor(k)) for k in ("size", "context")))
    except (OSError, SafetensorError, ValueError, RuntimeError, IndexError) as error:
        raise InputError(
            f"{path} holds no radiance field of this version: make it again with `dfa fit`, or"
            " `make figures`"
        ) from error
    load(field, path)
    return field
