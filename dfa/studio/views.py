"""Views of the test subjects from turned cameras, with depth: a truth for geometry."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from ..captures import DEPTH_UNIT
from ..media import FPS, atomic, write_video
from .motion import REST, Performance, rotations
from .render import Film

INSTANTS = 12
# Degrees of yaw and pitch, signs as in h: the camera sees the head turned so much further.
TURNS = ((0, 0), (-30, 0), (-20, 0), (-10, 0), (10, 0), (20, 0), (30, 0), (0, -10), (0, 10))
CENTRE = REST + np.array([0, 0, 0.08])  # the middle of the head at rest: the camera's pivot
CRF = 18  # H.264 quality: half-size chroma limits PSNR to 38 dB, to 35 dB where much is red


def instants(T: int) -> np.ndarray:
    """(INSTANTS,) frames, evenly spaced over a take of T: the middles of equal parts."""
    return ((np.arange(INSTANTS) + 0.5) * T / INSTANTS).astype(int)


def cameras() -> tuple[np.ndarray, np.ndarray]:
    """R (9, 3, 3) and t (9, 3) of the cameras of TURNS: X -> R X + t turns about CENTRE."""
    R = rotations(np.radians([[pitch, yaw, 0] for yaw, pitch in TURNS]))
    return R, CENTRE - R @ CENTRE


def shoot(film: Film, take: Performance) -> dict[str, np.ndarray]:
    """The arrays of `dfa.captures.views`, one camera after the other, each with all instants:
    pictures that follow one another are alike and take little room."""
    frames, (R, t), n = instants(len(take.h)), cameras(), len(TURNS)
    shots = {}
    for frame in frames:
        film.at(take, frame)
        for k in range(n):
            shots[k, frame] = film.picture(R=R[k], t=t[k]), film.depth(R[k], t[k])
    pictures, depth = zip(*(shots[k, frame] for k in range(n) for frame in frames), strict=True)
    return {
        "pictures": np.stack(pictures),
        "depth": np.stack(depth),
        "frame": np.tile(frames, n).astype(np.int32),
        "turn": np.repeat(np.array(TURNS), len(frames), axis=0).astype(np.int8),
        "R": np.repeat(R, len(frames), axis=0).astype(np.float32),
        "t": np.repeat(t, len(frames), axis=0).astype(np.float32),
        "h": np.tile(take.h[frames], (n, 1)).astype(np.float32),
    }


def write(name: str, film: Film, take: Performance, folder: Path) -> None:
    """Write NAME_views.mp4 (the pictures), NAME_views.mkv (depth), NAME_views.npz (the rest).

    take: of the second recording, so that no method has seen these instants.
    """
    views = shoot(film, take)
    write_video(folder / f"{name}_views.mp4", views.pop("pictures"), crf=CRF)
    steps = np.round(views.pop("depth") / DEPTH_UNIT).astype(np.uint16)
    write_levels(folder / f"{name}_views.mkv", steps)
    with atomic(folder / f"{name}_views.npz") as part:
        np.savez_compressed(part, **views)


def write_levels(path: str | Path, images: np.ndarray) -> None:
    """Write grey images (n, H, W) uint16 as FFV1, without loss, to an mkv.

    `media.read_levels` reads them. The bytes depend only on the arguments. Raises InputError if
    `path` cannot be written.
    """
    with (
        atomic(path) as part,
        av.open(str(part.absolute()), "w", "matroska", {"fflags": "+bitexact"}) as container,
    ):
        stream = container.add_stream("ffv1", rate=FPS)
        stream.pix_fmt, stream.thread_count = "gray16le", 1
        layout = {"level": "3", "coder": "1", "slices": "4", "g": "1000"}
        stream.options = layout | {"flags": "+bitexact"}
        stream.height, stream.width = images.shape[1:]
        for t, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="gray16le")
            frame.pts, frame.time_base = t, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
