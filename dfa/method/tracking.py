"""Face attributes of a video: mediapipe's points, then a fit of the 3DMM (section 3.2, eq. 1).

`track` gives pose h, expression F_exp, identity F_id and frontal landmarks l without identity.
The image points of mediapipe are accurate, its depths are not: depth comes from the face model.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import torch
from scipy.ndimage import gaussian_filter1d
from scipy.spatial.transform import Rotation
from tqdm import tqdm

from ..media import FPS, InputError, iter_frames, square
from ..recording import Attributes
from .face import FOCAL, LEFT_EYE, MP_68, RIGHT_EYE, FaceModel, matrix_to_euler

SHORTEST = 2.0  # seconds; a shorter video shows too few blinks and views of the face
LONGEST_GAP = 0.4  # seconds; longest part without a face that is interpolated
CROP = 2.2  # face heights; side of the square around the face
LOOK_EVERY = 15  # frames; step of the search for the face and for a second one
DETECT_SIZE = 512  # pixels; larger frames are reduced before detection
IDENTITY_FRAMES = 64  # number of frames from which the identity is fitted

# The 468 points are outputs of one network: their errors are correlated between points and between
# frames. So they count less than independent points: CORRELATED points of a frame count as one,
# REPEATED frames count as one for the identity. Both chosen on renders with known pose.
POINT_NOISE = 0.002  # image sides; standard deviation of each point
CORRELATED, REPEATED = 25.0, 30.0
POSE_SMOOTHING = 1.0  # frames; standard deviation. Expressions are not smoothed: blinks are short


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence file descriptor 2: the C++ code of mediapipe writes there, not to Python's logs."""
    sys.stderr.flush()
    saved, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)


class Detector:
    """mediapipe's face mesh (Kartynnik et al. 2019): the points of up to `faces` faces in a frame.

    static: search the whole frame each time, instead of near the last face.
    """

    def __init__(self, static: bool = False, faces: int = 1) -> None:
        with _quiet():
            from mediapipe.python.solutions.face_mesh import FaceMesh

            self.mesh = FaceMesh(
                static_image_mode=static, max_num_faces=faces, refine_landmarks=True
            )
            self.mesh.process(np.zeros((64, 64, 3), np.uint8))
        self.greeted = False  # mediapipe logs again at the first face

    def __call__(self, image: np.ndarray) -> list[np.ndarray]:
        """Frame (H, W, 3) uint8 -> a list of faces (478, 3): x, y, z in frame widths."""
        height, width = image.shape[:2]
        scale = DETECT_SIZE / max(height, width)
        if scale < 1:
            image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        with nullcontext() if self.greeted else _quiet():
            found = self.mesh.process(np.ascontiguousarray(image)).multi_face_landmarks or []
        self.greeted = self.greeted or bool(found)
        unit = np.array([1, height / width, 1])
        return [np.array([(p.x, p.y, p.z) for p in face.landmark]) * unit for face in found]

    def __enter__(self) -> Detector:
        return self

    def __exit__(self, *_: object) -> None:
        self.mesh.close()


def eye_aspect_ratio(points: np.ndarray) -> np.ndarray:
    """Landmarks (..., 68, 2) -> height / width of the eyes, mean of both (...), no unit.

    Soukupová & Čech 2016.
    """

    def ratio(eye: slice) -> np.ndarray:
        p = np.moveaxis(points[..., eye, :], -2, 0)  # corner, 2 upper, corner, 2 lower
        tall = np.linalg.norm(p[1] - p[5], axis=-1) + np.linalg.norm(p[2] - p[4], axis=-1)
        return tall / (2 * np.linalg.norm(p[0] - p[3], axis=-1))

    return (ratio(RIGHT_EYE) + ratio(LEFT_EYE)) / 2


def detect(frames: Iterable[np.ndarray]) -> np.ndarray:
    """Square frames (S, S, 3) uint8 in order -> points (T, 478, 3), 0 to 1; NaN without a face."""
    with Detector() as detector:
        found = [detector(image) for image in frames]
    return np.stack([f[0] if f else np.full((478, 3), np.nan) for f in found])


def face_points(frames: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Square frames (S, S, 3) uint8 -> iBUG points (T, 68, 2), 0 to 1, and eye-aspect ratio (T,).

    NaN in frames without a face.
    """
    points = detect(frames)[:, MP_68, :2]
    return points, eye_aspect_ratio(points)


def find_crop(path: str | Path, progress: bool = False, seconds: float | None = None) -> np.ndarray:
    """Find the square (x0, y0, side) around the face of a video, (3,) in pixels.

    The whole frame if it is square, else CROP face heights around the median place of the face.
    seconds: use only the beginning. Raises InputError if the video is too short, or shows no face
    or two faces.
    """
    boxes, searched, pairs, n = [], 0, 0, 0  # boxes: x0, y0, x1, y1 in pixels
    with Detector(static=True, faces=2) as detector:
        for n, image in enumerate(_progress(_first_frames(path, seconds), progress, "looking"), 1):  # noqa: B007
            if (n - 1) % LOOK_EVERY:
                continue
            searched += 1
            height, width = image.shape[:2]
            found = [f[:, :2] * width for f in detector(image)]
            found = sorted((np.r_[f.min(0), f.max(0)] for f in found), key=lambda b: b[1] - b[3])
            boxes += found[:1]
            pairs += len(found) == 2 and _two_people(*found)
    if n < SHORTEST * FPS:
        raise InputError(
            f"{path} lasts {n / FPS:.1f} s: give at least {SHORTEST:.0f} s, better minutes"
        )
    if len(boxes) < searched / 2:
        count = f"a face in only {len(boxes)} of {searched} frames" if boxes else "no face"
        raise InputError(f"{path} shows {count}: give a video of one person facing the camera")
    if pairs > searched / 5:
        raise InputError(f"{path} shows two faces: crop it to one speaker")
    if height == width:
        return np.array([0, 0, width])
    box = np.array(boxes)
    middle = (np.median(box[:, :2], 0) + np.median(box[:, 2:], 0)) / 2
    low, high = np.percentile(box[:, :2], 2, axis=0), np.percentile(box[:, 2:], 98, axis=0)
    face_height = np.median(box[:, 3] - box[:, 1])
    side = max(CROP * face_height, 2.2 * np.max([high - middle, middle - low]))
    side = int(min(side, height, width))
    x0, y0 = np.clip(np.round(middle - side / 2), 0, [width - side, height - side])
    return np.array([int(x0), int(y0), side])


def _two_people(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two boxes are two people: similar size, little overlap. Else a portrait, say."""
    overlap = np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None).prod()
    return bool(b[3] - b[1] > 0.5 * (a[3] - a[1]) and overlap < 0.3 * (b[2:] - b[:2]).prod())


def _first_frames(path: str | Path, seconds: float | None) -> Iterator[np.ndarray]:
    return islice(iter_frames(path), None if seconds is None else round(seconds * FPS))


def _progress(frames: Iterable[np.ndarray], progress: bool, what: str) -> Iterable[np.ndarray]:
    return tqdm(frames, desc=what, unit=" frames", disable=not progress, mininterval=1.0)


class Fit:
    """Fit of the 3DMM (eq. 1): Gauss-Newton on the distance of projected and tracked points.

    Unknowns: R, t and F_exp of each frame, and one F_id. F_exp and F_id have Gaussian priors.
    In the shapes, P = 468 points. `mesh` (T, 478, 3): points of `detect`, in image sides.
    """

    def __init__(self, model: FaceModel | None = None) -> None:
        self.model = model or FaceModel.load()
        self.mean, self.B_id, self.B_exp = self.model.at_mediapipe()  # (P, 3), (P, 3, K)
        self.k_id, self.k_exp = self.B_id.shape[-1], self.B_exp.shape[-1]

    def start(self, mesh: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """First poses R (T, 3, 3), t (T, 3) in metres: Procrustes fit to the 3-D points."""
        x = mesh[:, : len(self.mean)] - [0.5, 0.5, 0]  # (T, P, 3)
        centre, middle = x.mean(1, keepdims=True), self.mean.mean(0)
        U, s, Vt = np.linalg.svd(np.einsum("tpi,pj->tij", x - centre, self.mean - middle))
        flip = np.ones_like(s)
        flip[:, 2] = np.linalg.det(U @ Vt)
        R = (U * flip[:, None]) @ Vt
        size = (s * flip).sum(1) / ((self.mean - middle) ** 2).sum()  # image units per metre
        depth = FOCAL / size
        t = np.concatenate([centre[:, 0, :2] * depth[:, None] / FOCAL, depth[:, None]], 1)
        return R, t - R @ middle

    def system(self, mesh, R, t, F_exp, F_id, with_id=False):
        """Weighted residuals r (T, 2P) and their derivatives, for one Gauss-Newton step.

        Returns r, J (T, 2P, 6 + K_exp) with respect to a small rotation, t and F_exp, and J_id
        (T, 2P, K_id) with respect to F_id, or None.
        """
        n, p = len(mesh), len(self.mean)
        x = self.mean + self.B_id @ F_id + np.tensordot(F_exp, self.B_exp, (1, 2))  # eq. 1
        pitch_yaw = matrix_to_euler(torch.from_numpy(R)).numpy()[:, :2]
        x[..., :2] += np.tensordot(pitch_yaw, self.model.mp_slide, (1, 2))
        turned = x @ R.transpose(0, 2, 1)
        X = turned + t[:, None]  # (T, P, 3), camera space
        depth = X[..., 2:]
        r = 0.5 + FOCAL * X[..., :2] / depth - mesh[:, :p, :2]
        du = np.zeros((n, p, 2, 3))  # with respect to X
        du[..., [0, 1], [0, 1]] = FOCAL / depth
        du[..., 2] = -FOCAL * X[..., :2] / depth**2
        by_turn = np.cross(turned[:, :, None], du)  # du . (w x turned) = w . (turned x du)
        by_turn[..., :2] += du[..., :2] @ self.model.mp_slide  # up to second order in the angles
        # One product per point for all frames is 10 times faster than one per frame.
        du_canonical = (du @ R[:, None]).transpose(1, 0, 2, 3).reshape(p, 2 * n, 3)
        sigma = self.model.mp_sigma * FOCAL / t[:, 2:]  # (T, P) in image sides
        w = (1 / np.sqrt(CORRELATED * (sigma**2 + POINT_NOISE**2)))[..., None]

        def by(B: np.ndarray) -> np.ndarray:
            return (du_canonical @ B).reshape(p, n, 2, -1).transpose(1, 0, 2, 3)

        J = np.concatenate([by_turn, du, by(self.B_exp)], -1) * w[..., None]
        J_id = (by(self.B_id) * w[..., None]).reshape(n, 2 * p, -1) if with_id else None
        return (r * w).reshape(n, -1), J.reshape(n, 2 * p, -1), J_id

    def step(self, R, t, F_exp, d):
        """R, t, F_exp after the step d (T, 6 + K_exp): rotation vector, translation, expression."""
        R = Rotation.from_rotvec(d[:, :3]).as_matrix() @ R
        return R, t + d[:, 3:6], F_exp + d[:, 6:]

    def identity(self, mesh: np.ndarray, iterations: int = 8) -> np.ndarray:
        """F_id (K_id,) of the person in `mesh`, from all frames at once.

        The Schur complement eliminates R, t and F_exp: a step solves T small systems.
        """
        R, t = self.start(mesh)
        F_exp, F_id = np.zeros((len(mesh), self.k_exp)), np.zeros(self.k_id)
        prior = np.r_[np.zeros(6), np.ones(self.k_exp)]
        for _ in range(iterations):
            r, J, J_id = self.system(mesh, R, t, F_exp, F_id, with_id=True)
            Jt, Jt_id = J.transpose(0, 2, 1), J_id.transpose(0, 2, 1)
            A = Jt @ J + np.diag(prior)  # (T, 6 + K, 6 + K)
            C = Jt @ J_id  # (T, 6 + K, K_id)
            a = (Jt @ r[..., None])[..., 0] + np.concatenate([np.zeros((len(t), 6)), F_exp], 1)
            b = (Jt_id @ r[..., None])[..., 0].sum(0) + REPEATED * F_id
            solved = np.linalg.solve(A, np.concatenate([C, a[..., None]], -1))
            CtA = C.transpose(0, 2, 1) @ solved  # (T, K_id, K_id + 1)
            S = (Jt_id @ J_id).sum(0) + REPEATED * np.eye(self.k_id) - CtA[..., :-1].sum(0)
            d_id = -np.linalg.solve(S, b - CtA[..., -1].sum(0))
            F_id = F_id + d_id
            R, t, F_exp = self.step(R, t, F_exp, -solved[..., -1] - solved[..., :-1] @ d_id)
        return F_id

    def frames(
        self, mesh: np.ndarray, F_id: np.ndarray, iterations: int = 4
    ) -> tuple[np.ndarray, np.ndarray]:
        """Pose h (T, 6) and F_exp (T, K_exp) of `mesh`, each frame independently."""
        R, t = self.start(mesh)
        F_exp = np.zeros((len(mesh), self.k_exp))
        prior = np.r_[np.zeros(6), np.ones(self.k_exp)]
        for part in (slice(i, i + 64) for i in range(0, len(mesh), 64)):
            for _ in range(iterations):
                r, J, _ = self.system(mesh[part], R[part], t[part], F_exp[part], F_id)
                Jt = J.transpose(0, 2, 1)
                g = (Jt @ r[..., None])[..., 0]
                g[:, 6:] += F_exp[part]
                d = -np.linalg.solve(Jt @ J + np.diag(prior), g[..., None])[..., 0]
                R[part], t[part], F_exp[part] = self.step(R[part], t[part], F_exp[part], d)
        return _pose(R, t), F_exp


def _pose(R: np.ndarray, t: np.ndarray) -> np.ndarray:
    """R (T, 3, 3), t (T, 3) -> h (T, 6)."""
    return np.concatenate([matrix_to_euler(torch.from_numpy(R)).numpy(), t], 1)


def track(
    path: str | Path, *, seconds: float | None = None, progress: bool = True,
    identity: np.ndarray | None = None,
) -> Attributes:  # fmt: skip
    """Face attributes (eq. 1) of every frame, at 25 fps, of a video of one person.

    seconds: use only the beginning. identity: F_id (K_id,) of the person from another video, so
    that pose and landmarks of both are those of one face; by default it is fitted here.

    Raises InputError if the video shows no face or two faces, is shorter than SHORTEST, or shows
    no face for longer than LONGEST_GAP.
    """
    crop = find_crop(path, progress, seconds)
    images = (square(image, crop, int(crop[2])) for image in _first_frames(path, seconds))
    mesh = detect(_progress(images, progress, "tracking"))
    lost = np.isnan(mesh[:, 0, 0])
    _check_gaps(path, lost)
    fit = Fit()
    found = mesh[~lost]
    chosen = np.unique(np.linspace(0, len(found) - 1, IDENTITY_FRAMES).round().astype(int))
    F_id = fit.identity(found[chosen]) if identity is None else identity
    h, F_exp = fit.frames(found, F_id)
    points, h_raw = found[:, MP_68, :2], _pose(*fit.start(found))
    h, F_exp, points, h_raw = (_interpolated(a, lost) for a in (h, F_exp, points, h_raw))
    h = gaussian_filter1d(h, POSE_SMOOTHING, axis=0, mode="nearest")
    landmarks, ear = fit.model.landmarks(0 * F_id, F_exp), eye_aspect_ratio(points)
    arrays = dict(h=h, F_exp=F_exp, F_id=F_id, landmarks=landmarks, points=points, ear=ear)
    arrays = {name: a.astype(np.float32) for name, a in (arrays | {"h_raw": h_raw}).items()}
    return Attributes(lost=lost, crop=crop, **arrays)


def _check_gaps(path: str | Path, lost: np.ndarray) -> None:
    """Raise InputError if frames are `lost` (T,) for longer than LONGEST_GAP."""
    edges = np.flatnonzero(np.diff(np.r_[False, lost, False].astype(int)))  # starts and ends
    long = [(a / FPS, b / FPS) for a, b in edges.reshape(-1, 2) if b - a > LONGEST_GAP * FPS]
    if long:
        times = ", ".join(f"{a:.1f}-{b:.1f} s" for a, b in long[:4]) + (", ..." if long[4:] else "")
        raise InputError(f"{path} shows no face at {times}: cut those parts out")


def _interpolated(values: np.ndarray, lost: np.ndarray) -> np.ndarray:
    """Values (n, ...) of the frames that are not `lost` (T,) -> all frames (T, ...), linearly."""
    at, flat = np.flatnonzero(~lost), values.reshape(len(values), -1)
    columns = [np.interp(np.arange(len(lost)), at, c) for c in flat.T]
    return np.stack(columns, 1).reshape(len(lost), *values.shape[1:])
