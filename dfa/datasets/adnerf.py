"""The dataset folder of AD-NeRF and its family (RAD-NeRF, ER-NeRF, SyncTalk): reading, and cameras.

Their convention, from data_util/process_data.py and face_tracking/util.py:

- Camera: x right, y up, looking along -z. World: that of the head, x right, y up, the face looks
  along +z. transform_matrix maps camera to world.
- Units: the tracker uses BFM / 1e5, which is decimetres. The json divides by 10, so its units are
  metres.
- Projection: a camera point (X, Y, Z), Z < 0, is at pixel cx - f X / Z, cy + f Y / Z. Pixel centres
  are at halves.

Ours is that of `face.project`, with y and z reversed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from ..media import FPS, SAMPLES_PER_FRAME, InputError, atomic, read_voice
from ..method.face import euler_to_matrix, matrix_to_euler
from ..recording import training_frames

# Their world's origin is the mean of BFM's vertices; ours is the middle of the eyeballs. ORIGIN is
# about the position of theirs. With it, the head is inside RAD-NeRF's box (scale 4, bound 1: 25 cm
# around, 12.5 cm in depth) and between AD-NeRF's near and far (20 cm before, 40 cm behind).
ORIGIN = np.array([0.0, 0.03, 0.0])  # metres, their origin in our canonical space
FLIP = np.diag([1.0, -1.0, -1.0])  # converts our axes to theirs and back, for camera and head


# -------------------------------------------------------------------------------------- cameras


def camera_to_world(h: np.ndarray) -> np.ndarray:
    """Our poses h (T, 6), X_camera = R x + t -> their transform_matrix (T, 4, 4), metres."""
    R = euler_to_matrix(torch.from_numpy(np.asarray(h, np.float64)[:, :3])).numpy()
    t = R @ ORIGIN + h[:, 3:]
    rot, trans = FLIP @ R @ FLIP, t @ FLIP
    M = np.tile(np.eye(4), (len(h), 1, 1))
    M[:, :3, :3] = rot.transpose(0, 2, 1)
    M[:, :3, 3] = -np.einsum("tji,tj->ti", rot, trans)
    return M


def poses(M: np.ndarray) -> np.ndarray:
    """The inverse of `camera_to_world`: (T, 4, 4) -> h (T, 6), radians and metres."""
    rot = M[:, :3, :3].transpose(0, 2, 1)
    trans = -np.einsum("tij,tj->ti", rot, M[:, :3, 3])
    R = FLIP @ rot @ FLIP
    angles = matrix_to_euler(torch.from_numpy(R)).numpy()
    return np.concatenate([angles, trans @ FLIP - R @ ORIGIN], 1)


def track_params(M: np.ndarray, focal: float) -> dict[str, Tensor]:
    """The contents of the track_params.pt that their face_tracker.py saves.

    M: transform_matrix (T, 4, 4). focal: pixels. Returns euler (T, 3), the angles a, b, c of
    rot = Rx(-a) Ry(-b) Rz(c) in radians, trans (T, 3) in decimetres, and focal (1,).
    """
    rot = M[:, :3, :3].transpose(0, 2, 1)
    euler = Rotation.from_matrix(rot).as_euler("XYZ") * [-1, -1, 1]
    trans = -10 * np.einsum("tij,tj->ti", rot, M[:, :3, 3])
    values = dict(euler=euler, trans=trans, focal=np.array([focal]))
    return {name: torch.from_numpy(value).float() for name, value in values.items()}


def _from_track_params(params: dict[str, Tensor]) -> np.ndarray:
    """The inverse of `track_params`: transform_matrix (T, 4, 4)."""
    euler, trans = (params[name].double().numpy() for name in ("euler", "trans"))
    M = np.tile(np.eye(4), (len(euler), 1, 1))
    M[:, :3, :3] = Rotation.from_euler("XYZ", euler * [-1, -1, 1]).as_matrix().transpose(0, 2, 1)
    M[:, :3, 3] = -np.einsum("tij,tj->ti", M[:, :3, :3], trans / 10)
    return M


# -------------------------------------------------------------------------------------- reading


@dataclass(frozen=True)
class AdNerf:
    """A dataset folder of T frames, sorted by their numbers."""

    h: np.ndarray  # (T, 6) our convention, radians and metres; other trackers: origin 1-2 cm off
    focal: float  # pixels, as cx and cy
    cx: float
    cy: float
    ids: np.ndarray  # (T,) img_id
    train: np.ndarray  # (T,) bool: the frame is in transforms_train.json
    images: list[Path]  # T files
    sound: Path | None  # aud.wav
    aud: np.ndarray | None  # audio features, usually (N, 16, 29); row aud_id belongs to a frame


def is_adnerf(folder: str | Path) -> bool:
    """Whether a folder looks like a dataset of the AD-NeRF family."""
    return any((Path(folder) / name).exists() for name in ("transforms_train.json", "ori_imgs"))


def read_adnerf(folder: str | Path) -> AdNerf:
    """Read a dataset folder, written by `write_adnerf` or by the authors' scripts.

    Poses come from transforms_{train,val}.json, or from track_params.pt if these are missing.
    Raises InputError if a file is missing or broken.
    """
    folder = Path(folder)
    if (folder / "transforms_train.json").exists() or (folder / "transforms_val.json").exists():
        ids, M, train, camera = _read_transforms(folder)
        images = _images(folder)
        missing = [i for i in ids if i not in images]
        if missing:
            raise InputError(f"{folder} lacks image {missing[0]}.jpg and {len(missing) - 1} more")
        images = [images[i] for i in ids]
    else:
        found, params = _images(folder), _read_track_params(folder)
        M = _from_track_params(params)
        if len(found) != len(M):
            raise InputError(f"{folder} has {len(found)} images for {len(M)} tracked frames")
        ids, images = np.array(list(found)), list(found.values())
        height, width = cv2.imread(str(images[0])).shape[:2]
        train = np.arange(len(M)) < training_frames(len(M))
        camera = float(params["focal"].reshape(-1)[0]), width / 2, height / 2
    sound, aud = folder / "aud.wav", folder / "aud.npy"
    return AdNerf(poses(M), *camera, ids=ids, train=train, images=images,
                  sound=sound if sound.is_file() else None,
                  aud=read_features(aud) if aud.is_file() else None)  # fmt: skip


def _read_transforms(folder: Path):
    """Of transforms_{train,val}.json: ids (T,), matrices (T, 4, 4), train (T,), (focal, cx, cy)."""
    rows, camera = {}, None
    for split in ("train", "val"):
        path = folder / f"transforms_{split}.json"
        if not path.exists():
            raise InputError(f"{path} is missing: both splits are needed")
        try:
            data = json.loads(path.read_text("utf-8"))
            scale = float(data.get("dfa", {}).get("metres_per_unit", 1.0))
            camera = tuple(float(data[key]) for key in ("focal_len", "cx", "cy"))
            for frame in data["frames"]:
                M = np.array(frame["transform_matrix"], np.float64).reshape(4, 4)
                R = M[:3, :3]
                if abs(R @ R.T - np.eye(3)).max() > 1e-3 or np.linalg.det(R) < 0:
                    raise ValueError(f"frame {frame['img_id']} has no rotation")
                M[:3, 3] *= scale
                rows[int(frame["img_id"])] = M, split == "train"
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            what = f"no {error}" if isinstance(error, KeyError) else error
            raise InputError(f"{path} is no transforms file of that family: {what}") from error
    if not rows:
        raise InputError(f"{folder} lists no frames in its transforms files")
    ids = np.array(sorted(rows))
    M, train = zip(*(rows[i] for i in ids), strict=True)
    return ids, np.stack(M), np.array(train), camera


def _read_track_params(folder: Path) -> dict[str, Tensor]:
    path = folder / "track_params.pt"
    if not path.exists():
        raise InputError(f"{folder} has neither transforms_train.json nor track_params.pt")
    try:
        params = torch.load(path, map_location="cpu", weights_only=True)  # carries no code
        if all(params[k].shape[1:] == (3,) for k in ("euler", "trans")) and "focal" in params:
            return params
    except Exception as error:  # torch.load raises as many kinds as there are broken files
        raise InputError(f"{path} holds no euler, trans and focal: make it again") from error
    raise InputError(f"{path} holds no euler, trans and focal: make it again")


def _images(folder: Path) -> dict[int, Path]:
    """The images by frame number: ori_imgs, or the cut-out images if there are none."""
    for name in ("ori_imgs", "gt_imgs", "com_imgs"):
        found = {int(p.stem): p for p in (folder / name).glob("*.jpg") if p.stem.isdigit()}
        if found:
            return dict(sorted(found.items()))
    raise InputError(f"{folder} has no images: ori_imgs/0.jpg and so on are missing")


def read_sound(folder: str | Path) -> np.ndarray:
    """aud.wav from the first image to the last, (n,) at 16 kHz.

    Raises InputError if it is missing.
    """
    folder, images = Path(folder), _images(Path(folder))
    if not (folder / "aud.wav").is_file():
        raise InputError(
            f"{folder} has no aud.wav: put the audio of its video there (dfa does not use the"
            " features in aud.npy)"
        )
    audio = read_voice(folder / "aud.wav")
    return audio[min(images) * SAMPLES_PER_FRAME : (max(images) + 1) * SAMPLES_PER_FRAME]


def as_video(folder: str | Path, path: str | Path) -> Path:
    """Write the images of a dataset folder as a 25 fps video, `path` (.mkv); returns `path`.

    The jpeg data are copied, so there is no loss. If a number is missing, the image before it is
    shown longer. Raises InputError if there are no images or the first is broken.
    """
    images = _images(Path(folder))
    first = min(images)
    image = cv2.imread(str(images[first]))
    if image is None:
        raise InputError(f"{images[first]} is no jpeg image: make it again")
    options = {"fflags": "+bitexact"}
    with atomic(path) as part, av.open(str(part.absolute()), "w", "matroska", options) as film:
        stream = film.add_stream("mjpeg", rate=FPS)
        stream.height, stream.width = image.shape[:2]
        stream.pix_fmt, stream.time_base = "yuvj420p", Fraction(1, FPS)
        for i, file in images.items():
            packet = av.Packet(file.read_bytes())
            packet.stream, packet.time_base = stream, Fraction(1, FPS)
            packet.pts = packet.dts = i - first
            packet.duration, packet.is_keyframe = 1, True
            film.mux(packet)
    return Path(path)


def read_features(aud: str | Path) -> np.ndarray:
    """The audio features of a .npy file, (N, D) or (N, 16, 29).

    Raises InputError if it is no such array.
    """
    try:
        values = np.load(aud, allow_pickle=False)
        if values.ndim in (2, 3):
            return values
    except (OSError, ValueError, EOFError):
        pass
    raise InputError(f"{aud} is no array of sound features, (frames, 16, 29) or so, in a .npy")
