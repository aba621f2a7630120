"""The person apart from the room: what is known of both before a radiance field is trained."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..recording import Frames, Recording
from .face import FaceModel

OUTSIDE, SEEN = 20, 3  # mask of a pixel of the room; in so many frames it must be seen


class Person(NamedTuple):
    """A person in T frames (S, S), and the room behind."""

    masks: np.ndarray  # (T, M, M) uint8: of `Recording`
    room: np.ndarray  # (S, S, 3) uint8 without the person
    unseen: np.ndarray  # (S, S) bool: no frame shows the room here; `room` is filled from around
    vertices: np.ndarray  # (V, 3) of the person's 3DMM (eq. 1), canonical metres
    faces: np.ndarray  # (F, 3)

    @classmethod
    def of(cls, recording: Recording) -> Person:
        """From a tracked recording, with its `masks`."""
        masks, model = recording.masks, FaceModel.load()
        a = recording.attributes
        vertices = model.vertices(a.F_id, a.F_exp.mean(0))
        return cls(masks, *room(recording.frames, masks), vertices, model.faces)

    def shares(self, i: Tensor, size: int) -> Tensor:
        """The share of the person, 0 to 1, in pixels of the frames i (B,): (B, 1, size, size)."""
        masks = torch.from_numpy(self.masks[i.numpy()])[:, None].float() / 255
        return F.interpolate(masks, (size, size), mode="bilinear")


def room(frames: np.ndarray | Frames, masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The room behind the person, (S, S, 3) uint8, and where it was never seen, (S, S) bool.

    A pixel is the mean over the frames in which it is not the person's. Where there are fewer than
    SEEN such frames it is filled from around (Telea 2004); a room that is never seen is grey.
    """
    size = frames.shape[1]
    total, n = np.zeros((size, size, 3)), np.zeros((size, size))
    for frame, mask in zip(frames, masks, strict=True):
        free = cv2.resize(mask, (size, size), interpolation=cv2.INTER_LINEAR) < OUTSIDE
        total, n = total + free[..., None] * frame, n + free
    mean = np.round(total / np.maximum(n, 1)[..., None]).astype(np.uint8)
    unseen = n < min(SEEN, len(masks))
    if unseen.all():
        mean, unseen = np.full_like(mean, 127), np.ones_like(unseen)
        return mean, unseen
    return cv2.inpaint(mean, unseen.astype(np.uint8), 3, cv2.INPAINT_TELEA), unseen
