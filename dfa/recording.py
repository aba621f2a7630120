"""A tracked video with its audio, and its training and test parts."""

from __future__ import annotations

import operator
import os
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import IO, Any, ClassVar
from zipfile import BadZipFile

import cv2
import numpy as np

from .media import SAMPLES_PER_FRAME, InputError, atomic, iter_squares, read_audio
from .recipe import digest

MASK = 128  # largest side of a mask of the person, pixels
IN_MEMORY = 2**28  # bytes: more frames than this are kept in a file


@dataclass
class Attributes:
    """Face attributes of a video of T frames, from `method.tracking.track`."""

    h: np.ndarray  # (T, 6) head pose: pitch, yaw, roll (rad), t (m): X_camera = R x + t
    F_exp: np.ndarray  # (T, K_exp) expression coefficients of eq. 1
    F_id: np.ndarray  # (K_id,) identity coefficients of eq. 1
    landmarks: np.ndarray  # (T, 68, 3) l = (S_mean + B_exp F_exp) at the iBUG points, metres
    points: np.ndarray  # (T, 68, 2) tracked points, in sides of the square image
    ear: np.ndarray  # (T,) eye-aspect ratio, mean of both eyes
    lost: np.ndarray  # (T,) bool: frames without a face, interpolated
    crop: np.ndarray  # (3,) x0, y0, side of the square image in the video's pixels
    h_raw: np.ndarray  # (T, 6) pose from mediapipe's 3-D points, for comparison

    OF_FRAMES: ClassVar = ("h", "F_exp", "landmarks", "points", "ear", "lost", "h_raw")

    def __len__(self) -> int:
        return len(self.h)

    def save(self, path: str | Path) -> None:
        """Write an .npz file without pickles. Raises InputError if it cannot be written."""
        with atomic(path) as part, open(part, "wb") as file:
            np.savez_compressed(file, **{f.name: getattr(self, f.name) for f in fields(self)})

    @classmethod
    def load(cls, path: str | Path) -> Attributes:
        """Read a file of `save`. Raises InputError if it is missing or something else."""
        if not Path(path).is_file():
            raise InputError(f"{path} does not exist: make it with `dfa track VIDEO -o {path}`")
        try:
            with np.load(path, allow_pickle=False) as data:
                found = cls(**{f.name: data[f.name] for f in fields(cls)})
            if {len(getattr(found, name)) for name in found.OF_FRAMES} != {len(found)}:
                raise ValueError("arrays of different lengths")
            return found
        except (KeyError, ValueError, OSError, EOFError, AttributeError, BadZipFile,
                zlib.error) as e:  # fmt: skip
            raise InputError(f"{path} is not an output of `dfa track`: make it again") from e

    def part(self, cut: slice) -> Attributes:
        """The attributes of the frames in `cut`."""
        return replace(self, **{name: getattr(self, name)[cut] for name in self.OF_FRAMES})


class Frames:
    """Frames (T, S, S, 3) uint8 in a temporary file; in memory are only those that are asked for.

    Indexed like an array. A slice of more than IN_MEMORY bytes gives `Frames` again, all else reads
    what it names; `np.asarray` reads all. The file has no name and goes with the last object that
    uses it.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, file: IO[bytes], numbers: range, size: int) -> None:
        self.file, self.numbers, self.shape = file, numbers, (len(numbers), size, size, 3)

    def __len__(self) -> int:
        return len(self.numbers)

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[t] for t in range(len(self)))

    def __array__(self, dtype: object = None, copy: bool | None = None) -> np.ndarray:
        frames = np.stack([*self]) if len(self) else np.empty(self.shape, self.dtype)
        return frames.astype(dtype or self.dtype, copy=False)

    def __getitem__(self, index: Any) -> np.ndarray | Frames:
        if isinstance(index, tuple):
            frames, rest = np.asarray(self[index[0]]), index[1:]
            return frames[(slice(None), *rest)] if frames.ndim == 4 else frames[rest]
        if isinstance(index, slice):
            part = Frames(self.file, self.numbers[index], self.shape[1])
            return np.asarray(part) if np.prod(part.shape) <= IN_MEMORY else part
        if np.ndim(index):
            frames = [self[int(t)] for t in np.arange(len(self))[np.asarray(index)]]
            return np.stack(frames) if frames else np.empty((0, *self.shape[1:]), self.dtype)
        n = int(np.prod(self.shape[1:]))
        # A place of its own for each read: threads and forked processes share the file's.
        data = os.pread(self.file.fileno(), n, self.numbers[operator.index(index)] * n)
        return np.frombuffer(bytearray(data), np.uint8).reshape(self.shape[1:])


def scratch() -> str:
    """The folder for temporary frames: TMPDIR, or /var/tmp, since /tmp may be in memory."""
    usual = "/var/tmp" if os.access("/var/tmp", os.W_OK) else tempfile.gettempdir()
    folder = os.environ.get("TMPDIR") or usual
    if not os.path.isdir(folder):
        raise InputError(f"TMPDIR is {folder}, which is not a folder: set it to one with room")
    return folder


def check_room(T: int, size: int) -> None:
    """Raise InputError if the frames (T, size, size, 3) of a recording do not fit on the disk."""
    n = T * size * size * 3
    if n <= IN_MEMORY:
        return
    n, folder = n * int(os.environ.get("LOCAL_WORLD_SIZE", 1)), scratch()  # each process its own
    if n > (free := shutil.disk_usage(folder).free):
        raise InputError(
            f"{T} frames of {size}x{size} pixels are {n / 1e9:.1f} GB, but {folder} has only"
            f" {free / 1e9:.1f} GB free: set TMPDIR to a folder with more room, or choose a smaller"
            " --size"
        )


def keep(frames: Iterator[np.ndarray], T: int) -> np.ndarray | Frames:
    """At most T >= 1 frames (S, S, 3) uint8, as an array or, if they are many, in a file."""
    start = next(frames)
    size, frames = len(start), chain([start], frames)
    if T * size * size * 3 <= IN_MEMORY:
        kept, n = np.empty((T, size, size, 3), np.uint8), 0
        for frame in frames:
            kept[n], n = frame, n + 1
        return kept[:n]
    check_room(T, size)
    try:
        file = tempfile.TemporaryFile(dir=scratch())
        for frame in frames:
            file.write(np.ascontiguousarray(frame))
        file.flush()
    except OSError as error:
        raise InputError(
            f"frames cannot be kept in {scratch()}: {error.strerror}; set TMPDIR to another folder"
        ) from error
    return Frames(file, range(file.tell() // (size * size * 3)), size)


def decode(video: str | Path, crop: np.ndarray | None, size: int, T: int) -> np.ndarray | Frames:
    """The first T square frames of a video, as of `media.iter_squares`; many of them in a file."""
    return keep(iter_squares(video, crop, size, T), T)


def segment(frames: np.ndarray | Frames) -> np.ndarray:
    """Masks of the person in frames (T, S, S, 3), by mediapipe's selfie segmentation.

    (T, M, M) uint8, M = S but at most MASK; 255 is all person. 200 frames a second.
    """
    from mediapipe.python.solutions.selfie_segmentation import SelfieSegmentation

    side = min(MASK, frames.shape[1])
    masks = np.empty((len(frames), side, side), np.uint8)
    with SelfieSegmentation(model_selection=0) as model:
        for t, frame in enumerate(frames):
            share = model.process(frame).segmentation_mask.clip(0, 1)
            masks[t] = np.round(255 * cv2.resize(share, (side, side), interpolation=cv2.INTER_AREA))
    return masks


class Recording:
    """A tracked video of T frames with its audio: the input of every method.

    Args:
        name: of the person.
        frames: (T, S, S, 3) uint8, or `Frames`, or a function that decodes them at the first use.
        audio: (640 T,) float32, 16 kHz.
        attributes: of the T frames.
        whole, cut: if this is a part, the whole recording and the frames of this part. MFCC are
            normalised by the speech around them, so audio features are computed over the `takes`
            of `whole`, then cut.
        videos: if this is two videos joined, both; the first is the training part.
        n_training: frames of the training part; by default the first video, or `training_frames`.
    """

    def __init__(
        self, name: str, frames: np.ndarray | Frames | Callable[[], np.ndarray | Frames],
        audio: np.ndarray, attributes: Attributes, whole: Recording | None = None,
        cut: slice | None = None, videos: tuple[Recording, ...] = (), n_training: int | None = None,
    ) -> None:  # fmt: skip
        self.name, self._frames, self.audio, self.attributes = name, frames, audio, attributes
        self.whole, self.cut, self.videos = whole or self, cut or slice(0, len(attributes)), videos
        if n_training is None:
            n_training = len(videos[0]) if videos else training_frames(len(attributes))
        self.n_training = n_training

    def __len__(self) -> int:
        return len(self.attributes)

    @classmethod
    def load(
        cls, name: str, video: str | Path, attributes: Attributes, size: int,
        audio: np.ndarray | None = None,
    ) -> Recording:  # fmt: skip
        """Read a tracked video, with frames of `size` pixels.

        audio: (n,), 16 kHz; by default the sound track of the video. It is cut, or padded with
        silence, to the length of the frames. Raises InputError if the video has no sound.
        """
        T = len(attributes)
        audio = (read_audio(video) if audio is None else audio)[: T * SAMPLES_PER_FRAME]
        audio = np.pad(audio, (0, T * SAMPLES_PER_FRAME - len(audio)))
        return cls(name, lambda: decode(video, attributes.crop, size, T), audio, attributes)

    @classmethod
    def join(cls, first: Recording, second: Recording) -> Recording:
        """One recording of two videos of a person: `first` to learn from, `second` to test with.

        The identity F_id and the crop in the attributes are those of the first. Frames of both are
        decoded at the first use, as (T_1 + T_2, S, S, 3).
        """
        a, b = first.attributes, second.attributes
        both = {name: np.concatenate([getattr(a, name), getattr(b, name)]) for name in a.OF_FRAMES}

        def frames() -> Iterator[np.ndarray]:
            for video in (first, second):  # so that one alone is held beside what is kept
                yield from video.decoded()

        return cls(
            first.name, lambda: keep(frames(), len(a) + len(b)),
            np.concatenate([first.audio, second.audio]), replace(a, **both), videos=(first, second),
        )  # fmt: skip

    @property
    def takes(self) -> tuple[Recording, ...]:
        """The videos of a whole recording, each continuous in time: itself, or the two joined."""
        return (self.training, self.test) if self.videos else (self,)

    def decoded(self) -> np.ndarray | Frames:
        """The frames as of `frames`, decoded anew and not kept."""
        found = self._frames() if callable(self._frames) else self._frames
        if len(found) != len(self):
            what = f"{self.name}: the video has {len(found)} frames, its attributes {len(self)}"
            raise InputError(f"{what}: track it again with `dfa track`")
        return found

    @cached_property
    def frames(self) -> np.ndarray | Frames:
        """Frames (T, S, S, 3) uint8 RGB, decoded once. Raises InputError if there are not T."""
        return self.decoded()

    @cached_property
    def masks(self) -> np.ndarray:
        """The share of the person in each pixel, as of `segment`, computed once."""
        return segment(self.frames)

    def part(self, start: int, stop: int | None = None) -> Recording:
        """Frames start to stop - 1, with their audio and attributes."""
        start, stop, _ = slice(start, stop).indices(len(self))
        cut, first, n = slice(start, stop), self.cut.start, self.n_training
        crosses = self.videos and start < n < stop

        def frames() -> np.ndarray | Frames:
            if not self.videos or crosses or "frames" in vars(self):
                return self.frames[cut]
            one, other = self.videos  # the one that the part is not of need not be decoded
            return other.frames[start - n : stop - n] if start >= n else one.frames[cut]

        sound = self.audio[start * SAMPLES_PER_FRAME : stop * SAMPLES_PER_FRAME]
        return Recording(
            self.name, frames, sound, self.attributes.part(cut), self.whole,
            slice(first + start, first + stop), n_training=n - start if crosses else None,
        )  # fmt: skip

    @property
    def training(self) -> Recording:
        """The training part: the first video of two, else the first 10/11 of the frames."""
        return self.part(0, self.n_training)

    @property
    def test(self) -> Recording:
        """The test part: the second video of two, else the last 1/11 of the frames."""
        return self.part(self.n_training)

    @property
    def digest(self) -> str:
        """SHA-256 of the data that a training uses."""
        a = self.attributes
        return digest(self.frames, self.audio, a.h, a.landmarks, a.points)


def training_frames(T: int) -> int:
    """Number of training frames of a video of T frames: 10/11, rounded down, as the authors do."""
    return T * 10 // 11
