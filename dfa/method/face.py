"""The 3DMM of eq. 1, head rotations, and the pinhole camera that every module shares.

The bases come from the ungated `anny` model; `dfa.studio.face_model` exports them once. Canonical
head space has the camera's axes (x right, y down, z forward, metres), its origin midway between
the eyeballs, and a face that looks along -z, so that a head at R = I looks into the camera.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

FOCAL = 3.2  # focal length of a unit-square image: 17.8 degrees, a portrait lens
FILE = Path(__file__).parent / "data" / "face_model.npz"

# The 68 iBUG points among mediapipe's 478. Both count the side on the image's left first.
MP_68 = np.array(
    # jaw, from image left over the chin to image right
    [127, 234, 93, 132, 58, 136, 150, 176, 152, 400, 379, 365, 288, 361, 323, 454, 356]
    + [70, 63, 105, 66, 107, 336, 296, 334, 293, 300]  # brows
    + [168, 197, 5, 4, 75, 97, 2, 326, 305]  # nose
    + [33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380]  # eyes
    + [61, 40, 37, 0, 267, 270, 291, 321, 314, 17, 84, 91]  # outer lips
    + [78, 81, 13, 311, 308, 402, 14, 178]  # inner lips
)
RIGHT_EYE, LEFT_EYE = np.arange(36, 42), np.arange(42, 48)  # iBUG points, subject's sides
INNER_LIPS = np.arange(60, 68)


@dataclass(frozen=True)
class FaceModel:
    """S = S_mean + B_id F_id + B_exp F_exp (eq. 1), F_id and F_exp about N(0, 1).

    F_exp = 0 is the neutral face. The arrays are numpy's, in metres.
    """

    mean: np.ndarray  # (V, 3) S_mean
    B_id: np.ndarray  # (V, 3, K_id)
    B_exp: np.ndarray  # (V, 3, K_exp)
    faces: np.ndarray  # (F, 3) triangles, for drawing
    mp_vertices: np.ndarray  # (468, 3) the triangle on which each mediapipe point lies,
    mp_weights: np.ndarray  # (468, 3) and its barycentric coordinates there
    mp_slide: np.ndarray  # (468, 2, 2) x, y by which it slides there per radian of pitch, yaw
    mp_sigma: np.ndarray  # (468,) how well each point keeps to its place, metres

    @classmethod
    @cache
    def load(cls, path: Path = FILE) -> FaceModel:
        """The model that the package ships."""
        with np.load(path, allow_pickle=False) as data:
            arrays = {f.name: data[f.name] for f in fields(cls)}
        for name, a in arrays.items():
            arrays[name] = a.astype(np.float32 if a.dtype.kind == "f" else np.int64)
        return cls(**arrays)

    def vertices(self, F_id: np.ndarray, F_exp: np.ndarray) -> np.ndarray:
        """Eq. 1: (..., K_id), (..., K_exp) -> S (..., V, 3) in canonical metres."""
        return self._shape(self.mean, self.B_id, self.B_exp, F_id, F_exp)

    def landmarks(self, F_id: np.ndarray, F_exp: np.ndarray) -> np.ndarray:
        """The 68 iBUG points of eq. 1's surface: (..., 68, 3) in canonical metres."""
        bases = (a[MP_68] for a in self.at_mediapipe())
        return self._shape(*bases, F_id, F_exp)

    def at_mediapipe(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Mean (468, 3) and bases (468, 3, K) at mediapipe's points."""

        def pick(a: np.ndarray) -> np.ndarray:
            return np.einsum("pk,pk...->p...", self.mp_weights, a[self.mp_vertices])

        return pick(self.mean), pick(self.B_id), pick(self.B_exp)

    @staticmethod
    def _shape(mean, B_id, B_exp, F_id, F_exp):
        identity = np.tensordot(F_id, B_id, axes=(-1, -1))  # (..., V, 3)
        expression = np.tensordot(F_exp, B_exp, axes=(-1, -1))
        return mean + identity + expression


def euler_to_matrix(angles: Tensor) -> Tensor:
    """(..., 3) pitch, yaw, roll in radians -> R = Rz(roll) Ry(yaw) Rx(pitch), (..., 3, 3)."""
    (cx, cy, cz), (sx, sy, sz) = torch.cos(angles).unbind(-1), torch.sin(angles).unbind(-1)
    rows = [
        [cz * cy, cz * sy * sx - sz * cx, cz * sy * cx + sz * sx],
        [sz * cy, sz * sy * sx + cz * cx, sz * sy * cx - cz * sx],
        [-sy, cy * sx, cy * cx],
    ]
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def matrix_to_euler(R: Tensor) -> Tensor:
    """(..., 3, 3) rotations -> (..., 3) pitch, yaw, roll; yaw in (-pi/2, pi/2)."""
    pitch = torch.atan2(R[..., 2, 1], R[..., 2, 2])
    yaw = torch.asin((-R[..., 2, 0]).clamp(-1, 1))
    roll = torch.atan2(R[..., 1, 0], R[..., 0, 0])
    return torch.stack([pitch, yaw, roll], -1)


def pose(h: Tensor, X: Tensor) -> Tensor:
    """Canonical points into the camera: h (..., 6), X (..., N, 3) -> R x + t, (..., N, 3)."""
    R = euler_to_matrix(h[..., :3])
    return X @ R.transpose(-1, -2) + h[..., None, 3:]


def project(X: Tensor | np.ndarray) -> Tensor | np.ndarray:
    """Camera points (..., 3), metres -> image coordinates (..., 2) in the unit square."""
    return 0.5 + FOCAL * X[..., :2] / X[..., 2:]
