"""What happens at the camera: zoom, exposure, marks on the picture, late sound.

Zoom and pan move the camera that VTK renders with (`stage.aim`). Exposure changes the light of the
large picture, before it is reduced; a station's marks are laid over the finished picture.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from scipy.ndimage import gaussian_filter1d

from dfa.studio.motion import generator
from dfa.studio.shaders import shown, unshown

from ..media import FPS, SAMPLES_PER_FRAME

SLOW = 2.0  # s: the width of the filter that makes zoom, pan and exposure drift
FINE = 4  # marks are drawn so many times larger, then reduced


@dataclass(frozen=True)
class Shot:
    """What the camera does in a take of T frames.

    camera (T, 3): zoom, 1 at rest, and the shift of the principal point to the right and down, in
    image sides; exposure (T,) in stops; sound_late: frames by which the sound is late; marks:
    (size, size, 4) colour in 8-bit sRGB times opacity, and opacity from 0 to 1; None without any.
    """

    camera: np.ndarray
    exposure: np.ndarray
    sound_late: int = 0
    marks: np.ndarray | None = None


def drift(T: int, rng: np.random.Generator) -> np.ndarray:
    """(T,) a slow random track that reaches from 0 to 1."""
    track = gaussian_filter1d(rng.standard_normal(T), SLOW * FPS)
    return (track - track.min()) / max(np.ptp(track), 1e-12)


def plan(name: str, look: dict, T: int, seed: int = 0, size: int = 256) -> Shot:
    """The Shot of a take of T frames; look: the keys under `camera` in actors.yaml."""
    rng = generator(name, "camera", seed)
    zoom, right, down, light = (drift(T, rng) for _ in range(4))
    nearest, farthest = look.get("zoom", [1, 1])
    pan, stops = look.get("pan", 0), look.get("exposure", 0)
    track = [
        nearest + (farthest - nearest) * zoom,
        pan * (2 * right - 1),
        pan * (2 * down - 1),
    ]
    marks = paint_marks(look, size) if {"logo", "caption"} & set(look) else None
    late = look.get("sound_late", 0)
    return Shot(np.stack(track, axis=1), stops * (2 * light - 1), late, marks)


def expose(image: np.ndarray, stops: float) -> np.ndarray:
    """An 8-bit image as float32, 0 to 255, with its light times 2^stops before the tone curve."""
    curve = 255 * shown(2.0**stops * unshown(np.arange(256) / 255))
    return cv2.LUT(image, curve.astype(np.float32))


def delayed(audio: np.ndarray, frames: int) -> np.ndarray:
    """Sound (n,) that starts `frames` later, with silence before it, and is as long."""
    return np.concatenate([np.zeros(frames * SAMPLES_PER_FRAME, audio.dtype), audio])[: len(audio)]


# -------------------------------------------------------------------------------------- marks


def write(opacity: np.ndarray, text: str, left: float, base: float, height: float) -> None:
    """Write white text into an image (n, n) uint8: its start, base line, and the height of its
    capitals as fractions of the side."""
    n, font = len(opacity), cv2.FONT_HERSHEY_DUPLEX
    thick = max(round(height * n / 7), 1)
    scale = cv2.getFontScaleFromHeight(font, round(height * n), thick)
    cv2.putText(
        opacity, text, (round(left * n), round(base * n)), font, scale, 255, thick, cv2.LINE_AA
    )


def paint_marks(look: dict, size: int) -> np.ndarray:
    """(size, size, 4) a station's marks, as in Shot.

    look: `logo`, a few letters on a tile in the upper right corner; `caption`, a list of two lines
    on a bar in the lower third: a name, and what the person is.
    """
    n = FINE * size
    marks = np.zeros((n, n, 4), np.float32)

    def lay(colour, opacity: np.ndarray) -> None:
        marks[:] *= 1 - opacity[..., None]
        marks[:] += opacity[..., None] * np.array([*colour, 1.0], np.float32)

    def box(colour, left, top, right, bottom, opacity=1.0) -> None:
        shape = np.zeros((n, n), np.float32)
        shape[round(top * n) : round(bottom * n), round(left * n) : round(right * n)] = opacity
        lay(colour, shape)

    def text(colour, *where) -> None:
        letters = np.zeros((n, n), np.uint8)
        write(letters, *where)
        lay(colour, letters / np.float32(255))

    if "logo" in look:
        box([196, 30, 42], 0.845, 0.05, 0.95, 0.115)
        text([255, 255, 255], look["logo"], 0.862, 0.1, 0.036)
    if "caption" in look:
        box([18, 34, 66], 0.06, 0.83, 0.94, 0.95, 0.88)
        box([196, 30, 42], 0.06, 0.83, 0.072, 0.95)
        first, second = look["caption"]
        text([255, 255, 255], first, 0.095, 0.885, 0.034)
        text([206, 214, 230], second, 0.095, 0.932, 0.025)
    return cv2.resize(marks, (size, size), interpolation=cv2.INTER_AREA)


def stamp(image: np.ndarray, marks: np.ndarray | None) -> np.ndarray:
    """An image (size, size, 3) uint8 under the marks of a Shot."""
    if marks is None:
        return image
    return np.round(image * (1 - marks[..., 3:]) + marks[..., :3]).astype(np.uint8)
