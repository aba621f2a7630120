"""Face attributes of a video: mediapipe's points, then a fit of the 3DMM (section 3.2, eq. 1).

`track` gives pose h, expression F_exp, identity F_id and the frontal, identity-free landmarks l.
mediapipe's image points are good and its depths are a guess, so depth comes from the face model.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import torch
from scipy.ndimage import gaussian_filter1d
from scipy.spatial.transform import Rotation
from tqdm import tqdm

from ..media import (
    FPS,
    InputError,
    iter_frames,
    sha256,
    square,
)
from ..recipe import code_of, digest
from ..recording import Attributes
from . import face
from .face import FOCAL, LEFT_EYE, MP_68, RIGHT_EYE, FaceModel, matrix_to_euler

SHORTEST = 2.0  # seconds: less shows neither blinks nor enough of the face's shape
LONGEST_GAP = 0.4  # seconds without a face that are filled by interpolation
CROP = 2.2  # side of the square around the face, in face heights
LOOK_EVERY = 15  # frames between those that are searched for a second face
DETECT_SIZE = 512  # larger frames are reduced before detection
IDENTITY_FRAMES = 64  # frames from which the identity is fitted

# The fit. All 468 points are smooth outputs of one network and its errors are much the same in
# all frames, so they count as fewer: the expression is fitted as if from 468 / 25 points a frame,
# the identity as if from IDENTITY_FRAMES / 30 frames. Chosen on renders with known pose.
POINT_NOISE = 0.002  # units of the image, by which a point strays wherever it lies
CORRELATED, REPEATED = 25.0, 30.0
POSE_SMOOTHING = 1.0  # frames, standard deviation; expressions are not smoothed: blinks are short


# --------------------------------------------------------------------------------- detection


@contextmanager
def _quiet() -> Iterator[None]:
    """mediapipe's C++ parts greet on file descriptor 2, whatever Python's loggers say."""
    sys.stderr.flush()
    kept, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(null)


class Detector:
    """mediapipe's face mesh: the points of up to `faces` faces in a frame.

    static: look for the face anew in each frame instead of near its last place.
    """

    def __init__(self, static: bool = False, faces: int = 1) -> None:
        with _quiet():
            from mediapipe.python.solutions.face_mesh import FaceMesh

            self.mesh = FaceMesh(
                static_image_mode=static, max_num_faces=faces, refine_landmarks=True
            )
            self.mesh.process(np.zeros((64, 64, 3), np.uint8))
        self.greeted = False  # more greetings come with the first face

    def __call__(self, image: np.ndarray) -> list[np.ndarray]:
        """(H, W, 3) uint8 -> for each face (478, 3): x, y, z in units of the frame's width."""
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
    """(..., 68, 2) -> (...): height of the eye openings by their width, mean of both eyes."""

    def ratio(eye: np.ndarray) -> np.ndarray:
        p = np.moveaxis(points[..., eye, :], -2, 0)  # corner, 2 upper, corner, 2 lower
        tall = np.linalg.norm(p[1] - p[5], axis=-1) + np.linalg.norm(p[2] - p[4], axis=-1)
        return tall / (2 * np.linalg.norm(p[0] - p[3], axis=-1))

    return (ratio(RIGHT_EYE) + ratio(LEFT_EYE)) / 2


def detect(frames: Iterable[np.ndarray]) -> np.ndarray:
    """Square frames (S, S, 3) uint8 in order -> (T, 478, 3) points in unit coordinates.

    Rows of frames without a face are NaN.
    """
    with Detector() as detector:
        found = [detector(image) for image in frames]
    return np.stack([f[0] if f else np.full((478, 3), np.nan) for f in found])


def face_points(frames: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Square frames -> iBUG points (T, 68, 2) in unit coordinates and eye-aspect ratio (T,).

    NaN where no face is found.
    """
    points = detect(frames)[:, MP_68, :2]
    return points, eye_aspect_ratio(points)


def find_crop(path: str | Path, progress: bool = False, seconds: float | None = None) -> np.ndarray:
    """Look through a video for its one face: the square (x0, y0, side) that becomes the image.

    The whole frame where it is square, else CROP face heights around the face's usual place.
    Raises InputError for a video that is too short, without a face, or with two.
    """
    boxes, looked, pairs, n = [], 0, 0, 0  # boxes: x0, y0, x1, y1 in pixels
    with Detector(static=True, faces=2) as detector:
        for n, image in enumerate(_bar(_start(path, seconds), progress, "looking"), 1):  # noqa: B007
            if (n - 1) % LOOK_EVERY:
                continue
            looked += 1
            height, width = image.shape[:2]
            found = [f[:, :2] * width for f in detector(image)]
            found = sorted((np.r_[f.min(0), f.max(0)] for f in found), key=lambda b: b[1] - b[3])
            boxes += found[:1]
            pairs += len(found) == 2 and _two_people(*found)
    if n < SHORTEST * FPS:
        raise InputError(
            f"{path} lasts {n / FPS:.1f} s: give at least {SHORTEST:.0f} s, better minutes"
        )
    if len(boxes) < looked / 2:
        seen = f"a face in only {len(boxes)} of {looked} frames" if boxes else "no face"
        raise InputError(f"{path} shows {seen}: give a video of one person facing the camera")
    if pairs > looked / 5:
        raise InputError(f"{path} shows two faces: crop it to one speaker")
    if height == width:
        return np.array([0, 0, width])
    box = np.array(boxes)
    middle = (np.median(box[:, :2], 0) + np.median(box[:, 2:], 0)) / 2
    low, high = np.percentile(box[:, :2], 2, axis=0), np.percentile(box[:, 2:], 98, axis=0)
    tall = np.median(box[:, 3] - box[:, 1])
    side = max(CROP * tall, 2.2 * np.max([high - middle, middle - low]))
    side = int(min(side, height, width))
    x0, y0 = np.clip(np.round(middle - side / 2), 0, [width - side, height - side])
    return np.array([int(x0), int(y0), side])


def _two_people(a: np.ndarray, b: np.ndarray) -> bool:
    """Boxes of two faces of like size in different places, not a portrait on the wall."""
    overlap = np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None).prod()
    return bool(b[3] - b[1] > 0.5 * (a[3] - a[1]) and overlap < 0.3 * (b[2:] - b[:2]).prod())


def _start(path: str | Path, seconds: float | None) -> Iterator[np.ndarray]:
    return islice(iter_frames(path), None if seconds is None else round(seconds * FPS))


def _bar(frames: Iterable[np.ndarray], progress: bool, what: str) -> Iterable[np.ndarray]:
    return tqdm(frames, desc=what, unit=" frames", disable=not progress, mininterval=1.0)


# --------------------------------------------------------------------------------------- fit


class Fit:
    """Eq. 1, fitted: Gauss-Newton on the distance between projected model points and tracked ones.

    Unknowns are a rotation and translation a frame, F_exp a frame, and one F_id. Gaussian priors
    keep F_exp and F_id near the faces that the bases were made of.
    """

    def __init__(self, model: FaceModel | None = None) -> None:
        self.model = model or FaceModel.load()
        self.mean, self.B_id, self.B_exp = self.model.at_mediapipe()  # (P, 3), (P, 3, K)
        self.k_id, self.k_exp = self.B_id.shape[-1], self.B_exp.shape[-1]

    def start(self, seen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """First poses R (T, 3, 3), t (T, 3): similarity of mediapipe's own 3-D points (Procrustes).

        seen: (T, 478, 3). Its depths are rough, but good enough to start from.
        """
        x = seen[:, : len(self.mean)] - [0.5, 0.5, 0]
        centre, middle = x.mean(1, keepdims=True), self.mean.mean(0)
        U, s, Vt = np.linalg.svd(np.einsum("tpi,pj->tij", x - centre, self.mean - middle))
        flip = np.ones_like(s)
        flip[:, 2] = np.linalg.det(U @ Vt)
        R = (U * flip[:, None]) @ Vt
        size = (s * flip).sum(1) / ((self.mean - middle) ** 2).sum()  # image units per metre
        depth = FOCAL / size
        t = np.concatenate([centre[:, 0, :2] * depth[:, None] / FOCAL, depth[:, None]], 1)
        return R, t - R @ middle

    def system(self, seen, R, t, F_exp, F_id, with_id=False):
        """Weighted residuals r (T, 2P), their derivatives J (T, 2P, 6 + K_exp) by a small turn, t
        and F_exp, and J_id (T, 2P, K_id) by F_id where wanted."""
        n, p = len(seen), len(self.mean)
        x = self.mean + self.B_id @ F_id + np.tensordot(F_exp, self.B_exp, (1, 2))  # (T, P, 3)
        pitch_yaw = matrix_to_euler(torch.from_numpy(R)).numpy()[:, :2]
        x[..., :2] += np.tensordot(pitch_yaw, self.model.mp_slide, (1, 2))
        turned = x @ R.transpose(0, 2, 1)
        X = turned + t[:, None]
        depth = X[..., 2:]
        r = 0.5 + FOCAL * X[..., :2] / depth - seen[:, :p, :2]
        du = np.zeros((n, p, 2, 3))  # by the point in the camera
        du[..., [0, 1], [0, 1]] = FOCAL / depth
        du[..., 2] = -FOCAL * X[..., :2] / depth**2
        by_turn = np.cross(turned[:, :, None], du)  # du . (w x turned) = w . (turned x du)
        by_turn[..., :2] += du[..., :2] @ self.model.mp_slide  # up to second order in the angles
        # Point by point one product for all frames: 10 times faster than frame by frame.
        du_canonical = (du @ R[:, None]).transpose(1, 0, 2, 3).reshape(p, 2 * n, 3)
        place = self.model.mp_sigma * FOCAL / t[:, 2:]  # (T, P) in units of the image
        w = (1 / np.sqrt(CORRELATED * (place**2 + POINT_NOISE**2)))[..., None]

        def by(B: np.ndarray) -> np.ndarray:
            return (du_canonical @ B).reshape(p, n, 2, -1).transpose(1, 0, 2, 3)

        J = np.concatenate([by_turn, du, by(self.B_exp)], -1) * w[..., None]
        J_id = (by(self.B_id) * w[..., None]).reshape(n, 2 * p, -1) if with_id else None
        return (r * w).reshape(n, -1), J.reshape(n, 2 * p, -1), J_id

    def step(self, R, t, F_exp, d):
        """Apply d (T, 6 + K_exp): a small rotation, a translation, an expression."""
        R = Rotation.from_rotvec(d[:, :3]).as_matrix() @ R
        return R, t + d[:, 3:6], F_exp + d[:, 6:]

    def identity(self, seen: np.ndarray, iterations: int = 8) -> np.ndarray:
        """F_id (K_id,) of the one person in `seen` (T, 478, 3), all frames at once.

        The frames' own unknowns are eliminated (Schur complement), so a step costs T small systems.
        """
        R, t = self.start(seen)
        F_exp, F_id = np.zeros((len(seen), self.k_exp)), np.zeros(self.k_id)
        prior = np.r_[np.zeros(6), np.ones(self.k_exp)]
        for _ in range(iterations):
            r, J, J_id = self.system(seen, R, t, F_exp, F_id, with_id=True)
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
        self, seen: np.ndarray, F_id: np.ndarray, iterations: int = 4
    ) -> tuple[np.ndarray, np.ndarray]:
        """Pose h (T, 6) and F_exp (T, K_exp) of each frame of `seen` (T, 478, 3) by itself."""
        R, t = self.start(seen)
        F_exp = np.zeros((len(seen), self.k_exp))
        prior = np.r_[np.zeros(6), np.ones(self.k_exp)]
        for part in (slice(i, i + 64) for i in range(0, len(seen), 64)):
            for _ in range(iterations):
                r, J, _ = self.system(seen[part], R[part], t[part], F_exp[part], F_id)
                Jt = J.transpose(0, 2, 1)
                g = (Jt @ r[..., None])[..., 0]
                g[:, 6:] += F_exp[part]
                d = -np.linalg.solve(Jt @ J + np.diag(prior), g[..., None])[..., 0]
                R[part], t[part], F_exp[part] = self.step(R[part], t[part], F_exp[part], d)
        return _pose(R, t), F_exp


def _pose(R: np.ndarray, t: np.ndarray) -> np.ndarray:
    """(T, 3, 3), (T, 3) -> h (T, 6)."""
    return np.concatenate([matrix_to_euler(torch.from_numpy(R)).numpy(), t], 1)


def track(path: str | Path, *, seconds: float | None = None, progress: bool = True) -> Attributes:
    """Face attributes of every frame of a video (at 25 fps) that shows one person.

    seconds: only the beginning, as much as that.

    Raises InputError where there is no face or two, less than SHORTEST seconds, or no face for
    longer than LONGEST_GAP.
    """
    crop = find_crop(path, progress, seconds)
    images = (square(image, crop, int(crop[2])) for image in _start(path, seconds))
    seen = detect(_bar(images, progress, "tracking"))
    lost = np.isnan(seen[:, 0, 0])
    _check_gaps(path, lost)
    fit = Fit()
    found = seen[~lost]
    some = np.unique(np.linspace(0, len(found) - 1, IDENTITY_FRAMES).round().astype(int))
    F_id = fit.identity(found[some])
    h, F_exp = fit.frames(found, F_id)
    points, h_raw = found[:, MP_68, :2], _pose(*fit.start(found))
    h, F_exp, points, h_raw = (_filled(a, lost) for a in (h, F_exp, points, h_raw))
    h = gaussian_filter1d(h, POSE_SMOOTHING, axis=0, mode="nearest")
    return Attributes(
        h=h.astype(np.float32),
        F_exp=F_exp.astype(np.float32),
        F_id=F_id.astype(np.float32),
        landmarks=fit.model.landmarks(0 * F_id, F_exp).astype(np.float32),
        points=points.astype(np.float32),
        ear=eye_aspect_ratio(points).astype(np.float32),
        lost=lost,
        crop=crop,
        h_raw=h_raw.astype(np.float32),
    )


def _check_gaps(path: str | Path, lost: np.ndarray) -> None:
    edges = np.flatnonzero(np.diff(np.r_[False, lost, False].astype(int)))  # starts and ends
    long = [(a / FPS, b / FPS) for a, b in edges.reshape(-1, 2) if b - a > LONGEST_GAP * FPS]
    if long:
        times = ", ".join(f"{a:.1f}-{b:.1f} s" for a, b in long[:4]) + (", ..." if long[4:] else "")
        raise InputError(f"{path} shows no face at {times}: cut those parts out")


def _filled(values: np.ndarray, lost: np.ndarray) -> np.ndarray:
    """(n, ...) values of the frames that are not lost -> (T, ...), linear in between."""
    at, flat = np.flatnonzero(~lost), values.reshape(len(values), -1)
    columns = [np.interp(np.arange(len(lost)), at, c) for c in flat.T]
    return np.stack(columns, 1).reshape(len(lost), *values.shape[1:])


@cache
def tracker() -> str:
    """The identity of the code and the face model that track, SHA-256."""
    return digest(code_of(track), sha256(face.FILE))


def tracked(video: str | Path, path: Path, seconds: float | None = None) -> Attributes:
    """Attributes of a video, from `path` if this tracker tracked this very video before."""
    key = digest(sha256(video), seconds, tracker())
    marker = path.with_suffix(".key")
    if not (path.exists() and marker.exists() and marker.read_text() == key):
        path.parent.mkdir(parents=True, exist_ok=True)
        marker.unlink(missing_ok=True)
        track(video, seconds=seconds).save(path)
        marker.write_text(key)
    return Attributes.load(path)
