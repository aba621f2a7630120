"""What is rated: a few seconds of every method saying every sentence; and attention checks."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from ..captures import RATED
from ..media import FPS, SAMPLES_PER_FRAME, InputError, frames_of, read_audio, video_of, write_video
from ..paper import METHODS, TRUTH

# The paper's study drives with English, Chinese and German (section 4.2).
LANGUAGES = {"own": "English", "zh": "Mandarin", "de": "German"}
SIZE = 256  # px, as it is shown; smaller frames are enlarged, for every method alike
CHECKS = (2, 4)  # what the attention checks ask to choose


@dataclass(frozen=True)
class Clip:
    """A video to rate, whose file name says nothing; `wanted` is the score that an attention check
    asks for, 0 of any other clip."""

    id: str
    method: str
    testset: str
    language: str
    path: Path
    wanted: int = 0


def prepare(results: str | Path, folder: str | Path) -> list[Clip]:
    """Clips of every own video in a folder of results (`dfa.comparison`), written to `folder`.

    All are cut to at most 6 s, made alike in size and coding, and named by a hash. What a method
    has not made is not there to be rated. A check is a real video with a request written into it.
    InputError where there is nothing to rate.
    """
    results, folder = Path(results), Path(folder)
    real = sorted((results / TRUTH).glob("*.*"))
    clips = [
        _clip(source, folder, method, truth.stem, language)
        for method in METHODS
        for truth in real
        for key, language in LANGUAGES.items()
        if (source := video_of(results / method, f"{truth.stem}.{key}"))
    ]
    if not clips:
        raise InputError(f"no video to rate in {results}: `make figures` makes some")
    checks = zip(CHECKS, real * len(CHECKS), strict=False)
    return clips + [_clip(path, folder, TRUTH, path.stem, "", wanted) for wanted, path in checks]


def _clip(
    source: Path, folder: Path, method: str, testset: str, language: str, wanted: int = 0
) -> Clip:
    name = hashlib.sha256(source.read_bytes() + f"{RATED} {SIZE} {wanted}".encode()).hexdigest()
    path = folder / f"{name[:12]}.mp4"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        frames = frames_of(source, None, SIZE, RATED * FPS)
        if wanted:
            frames = asking(frames, wanted)
        sound = read_audio(source)[: len(frames) * SAMPLES_PER_FRAME]
        write_video(path, frames, sound, crf=16)
    return Clip(name[:12], method, testset, language, path, wanted)


def asking(frames: np.ndarray, wanted: int) -> np.ndarray:
    """Frames (T, S, S, 3) with the request to choose `wanted` everywhere written into them."""
    out = frames.copy()
    for image in out:
        image[: SIZE // 3] //= 4
        for k, line in enumerate(("A check: please choose", f"{wanted} in all four rows")):
            cv2.putText(image, line, (14, 34 + 30 * k), cv2.FONT_HERSHEY_SIMPLEX, 0.6,
                        (255, 255, 255), 1, cv2.LINE_AA)  # fmt: skip
    return out
