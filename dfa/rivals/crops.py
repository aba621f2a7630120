"""Faces cut out and aligned by what does not speak, as methods see them that learn from many."""

from __future__ import annotations

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..media import FPS
from .method import Recording
from .parts import pictures

UPPER = [*range(17, 48)]  # brows, nose and eyes
SCALE = 4.6  # of metres in the face, in sides of the crop
MIDDLE = (0.0, 0.045)  # of the crop, below the nose, in metres


def canonical(landmarks: np.ndarray) -> np.ndarray:
    """Frontal landmarks (..., 68, 3), metres -> the crop, (..., 68, 2) in units of its side."""
    return (0.5 + SCALE * (landmarks[..., :2] - MIDDLE)).astype(np.float32)


def similarity(points: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The scaling, rotation and shift (2, 3) that bring points (N, 2) nearest to others."""
    z, w = (p[:, 0] + 1j * p[:, 1] for p in (points, wanted))
    a = np.vdot(z - z.mean(), w - w.mean()) / np.vdot(z - z.mean(), z - z.mean())
    b = w.mean() - a * z.mean()
    return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])


def aligning(points: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """The similarities (T, 2, 3) from the image to the crop, in units of their sides, of faces with
    these points (T, 68, 2) and landmarks (T, 68, 3)."""
    pairs = zip(points[:, UPPER], canonical(landmarks)[:, UPPER], strict=True)
    return np.stack([similarity(p, q) for p, q in pairs])


def moved(points: np.ndarray, matrices: np.ndarray) -> np.ndarray:
    """Points (T, 68, 2) by similarities (T, 2, 3)."""
    turned = np.einsum("tij,tpj->tpi", matrices[:, :, :2], points)
    return (turned + matrices[:, None, :, 2]).astype(np.float32)


def in_pixels(matrix: np.ndarray, source: int, target: int) -> np.ndarray:
    """A similarity between units of two images' sides, for their pixel centres."""
    out = matrix.copy()
    out[:, :2] *= target / source
    out[:, 2] = target * matrix[:, 2] + out[:, :2] @ [0.5, 0.5] - 0.5
    return out


def cut(frame: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """The face (S/2, S/2, 3) of a frame (S, S, 3)."""
    size, side = len(frame), len(frame) // 2
    return cv2.warpAffine(
        frame, in_pixels(matrix, size, side), (side, side), flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )  # fmt: skip


def paste(frame: np.ndarray, crop: Tensor, share: Tensor, matrix: np.ndarray) -> np.ndarray:
    """A frame (S, S, 3) with a face (3, S/2, S/2) put back by its share (S/2, S/2), uint8."""
    both = torch.cat([255 * crop.clamp(0, 1), share[None].to(crop)]).movedim(0, -1).cpu().numpy()
    back = cv2.invertAffineTransform(in_pixels(matrix, len(frame), len(frame) // 2))
    both = cv2.warpAffine(both, back, frame.shape[:2], flags=cv2.INTER_LINEAR)
    return np.round(frame + both[..., 3:] * (both[..., :3] - frame)).astype(np.uint8)


def soft(mask: Tensor) -> Tensor:
    """A mask (s, s) with soft edges."""
    return F.avg_pool2d(mask[None], 5, 1, 2)[0]


def inside(side: int) -> Tensor:
    """All of a crop but its border, softly: (side, side)."""
    return soft(F.pad(torch.ones(side - 8, side - 8), (4, 4, 4, 4)))


class Faces:
    """The faces of a recording, in crops half a frame wide: brows, eyes and nose lie where they are
    in the mean face, but for the head's turns.

    matrices: (T, 2, 3) that cut them; points: (T, 68, 2) tracked, in units of the crop's side.
    """

    def __init__(self, recording: Recording) -> None:
        a, self.frames = recording.attributes, recording.frames
        self.side, self.turns = self.frames.shape[1] // 2, a.h[:, :3]
        self.matrices = aligning(a.points, a.landmarks)
        self.points = moved(a.points, self.matrices)

    def __len__(self) -> int:
        return len(self.frames)

    def crops(self, frames: list[int] | np.ndarray) -> Tensor:
        """(n, 3, s, s) of these frames."""
        return pictures(np.stack([cut(self.frames[i], self.matrices[i]) for i in frames]))

    def alike(self, t: int, among: np.ndarray) -> int:
        """Of these frames, the one whose head is turned most as in frame t, and that is not of the
        same second if there is another: its mouth would be the same too."""
        apart = np.abs(among - t) >= FPS
        among = among[apart] if apart.any() else among
        return int(among[np.square(self.turns[among] - self.turns[t]).sum(1).argmin()])


class Overpaint(nn.Module):
    """A picture that is moved by a flow and painted over: what a network says of each pixel,
    (B, 6, s, s), and the picture (B, 3, s, s) -> (B, 3, s, s). Nought moves nothing, and gives a
    quarter of grey."""

    REACH = 0.1  # of the flow, in half sides

    def forward(self, y: Tensor, picture: Tensor) -> Tensor:
        flow, colour, share = y.split([2, 3, 1], 1)
        still = torch.eye(2, 3, device=y.device).expand(len(y), -1, -1)
        grid = F.affine_grid(still, list(picture.shape), align_corners=False)
        shifted = F.grid_sample(picture, grid + self.REACH * flow.movedim(1, -1),
                                padding_mode="border", align_corners=False)  # fmt: skip
        return torch.lerp(shifted, colour.sigmoid(), (share - 1).sigmoid())
