"""Face crops, aligned by points that speech hardly moves, for methods trained on many people."""

from __future__ import annotations

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..media import FPS
from ..method.face import BROWS, EYES, NOSE_BASE, NOSE_BRIDGE
from ..recording import Recording
from .parts import pictures

UPPER = np.r_[BROWS, NOSE_BRIDGE, NOSE_BASE, EYES].tolist()  # points that speech hardly moves
SCALE = 4.6  # sides of the crop per metre of the face
MIDDLE = (0.0, 0.045)  # metres: the crop's centre in the frontal face, below the nose


def canonical(landmarks: np.ndarray) -> np.ndarray:
    """Frontal landmarks (..., 68, 3), metres -> points (..., 68, 2) in units of the crop's side."""
    return (0.5 + SCALE * (landmarks[..., :2] - MIDDLE)).astype(np.float32)


def similarity(points: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The least-squares similarity (scale, rotation, shift) from `points` to `wanted`.

    points, wanted: (N, 2). Returns a matrix (2, 3).
    """
    z, w = (p[:, 0] + 1j * p[:, 1] for p in (points, wanted))
    a = np.vdot(z - z.mean(), w - w.mean()) / np.vdot(z - z.mean(), z - z.mean())
    b = w.mean() - a * z.mean()
    return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])


def aligning(points: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """The similarities (T, 2, 3) from image to crop, in units of their sides.

    Args:
        points: (T, 68, 2) in the image. landmarks: (T, 68, 3) frontal, metres.
    """
    pairs = zip(points[:, UPPER], canonical(landmarks)[:, UPPER], strict=True)
    return np.stack([similarity(p, q) for p, q in pairs])


def transformed(points: np.ndarray, matrices: np.ndarray) -> np.ndarray:
    """Points (T, 68, 2) transformed by similarities (T, 2, 3): (T, 68, 2)."""
    turned = np.einsum("tij,tpj->tpi", matrices[:, :, :2], points)
    return (turned + matrices[:, None, :, 2]).astype(np.float32)


def in_pixels(matrix: np.ndarray, source: int, target: int) -> np.ndarray:
    """A similarity (2, 3) in units of the sides -> the same for pixel coordinates.

    source, target: the images' sides in pixels. Pixel centres are at integers.
    """
    out = matrix.copy()
    out[:, :2] *= target / source
    out[:, 2] = target * matrix[:, 2] + out[:, :2] @ [0.5, 0.5] - 0.5
    return out


def cut(frame: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """The face crop (S/2, S/2, 3) of a frame (S, S, 3) uint8; matrix (2, 3) of `aligning`."""
    size, side = len(frame), len(frame) // 2
    return cv2.warpAffine(
        frame, in_pixels(matrix, size, side), (side, side), flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )  # fmt: skip


def paste(frame: np.ndarray, crop: Tensor, opacity: Tensor, matrix: np.ndarray) -> np.ndarray:
    """A frame (S, S, 3) uint8 with a face crop blended into it.

    crop (3, S/2, S/2) and opacity (S/2, S/2) in 0..1; matrix (2, 3) of `aligning`.
    """
    both = torch.cat([255 * crop.clamp(0, 1), opacity[None].to(crop)]).movedim(0, -1).cpu().numpy()
    back = cv2.invertAffineTransform(in_pixels(matrix, len(frame), len(frame) // 2))
    both = cv2.warpAffine(both, back, frame.shape[:2], flags=cv2.INTER_LINEAR)
    return np.round(frame + both[..., 3:] * (both[..., :3] - frame)).astype(np.uint8)


def soft(mask: Tensor) -> Tensor:
    """A mask (s, s) with its edges blurred over 5 pixels."""
    return F.avg_pool2d(mask[None], 5, 1, 2)[0]


def inner_mask(side: int) -> Tensor:
    """Opacity (side, side) of a crop: 0 in a border of 4 pixels, 1 inside, with a soft edge."""
    return soft(F.pad(torch.ones(side - 8, side - 8), (4, 4, 4, 4)))


class Faces:
    """The faces of a recording of T frames, in crops half a frame wide.

    Brows, eyes and nose are aligned with those of the frontal face; the head's rotation remains.

    Attributes: matrices (T, 2, 3) from image to crop; points (T, 68, 2) tracked, in units of the
    crop's side; turns (T, 3) the head's angles in radians; side of the crop in pixels.
    """

    def __init__(self, recording: Recording) -> None:
        a, self.frames = recording.attributes, recording.frames
        self.side, self.turns = self.frames.shape[1] // 2, a.h[:, :3]
        self.matrices = aligning(a.points, a.landmarks)
        self.points = transformed(a.points, self.matrices)

    def __len__(self) -> int:
        return len(self.frames)

    def crops(self, frames: list[int] | np.ndarray) -> Tensor:
        """The crops (n, 3, s, s) in 0..1 of the n given frame numbers."""
        return pictures(np.stack([cut(self.frames[i], self.matrices[i]) for i in frames]))

    def alike(self, t: int, among: np.ndarray) -> int:
        """Of the frame numbers `among`, the one whose head rotation is most similar to frame t's.

        Frames at least a second away are preferred: near ones have the same mouth too.
        """
        distant = np.abs(among - t) >= FPS
        among = among[distant] if distant.any() else among
        return int(among[np.square(self.turns[among] - self.turns[t]).sum(1).argmin()])


class Overpaint(nn.Module):
    """Warp a picture by a flow and blend a colour over it.

    A network's output (B, 6, s, s) holds flow, colour and opacity; with the picture (B, 3, s, s) it
    gives (B, 3, s, s). An output of 0 does not move the picture, and blends grey over it with an
    opacity of about a quarter.
    """

    REACH = 0.1  # half sides of the picture: flow for an output of 1

    def forward(self, y: Tensor, picture: Tensor) -> Tensor:
        flow, colour, opacity = y.split([2, 3, 1], 1)
        still = torch.eye(2, 3, device=y.device).expand(len(y), -1, -1)
        grid = F.affine_grid(still, list(picture.shape), align_corners=False)
        shifted = F.grid_sample(picture, grid + self.REACH * flow.movedim(1, -1),
                                padding_mode="border", align_corners=False)  # fmt: skip
        return torch.lerp(shifted, colour.sigmoid(), (opacity - 1).sigmoid())
