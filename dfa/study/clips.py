"""The clips to rate: a few seconds of each method speaking each sentence, and attention checks."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from ..captures import RATED
from ..evaluation.paper import METHODS, TRUTH
from ..media import FPS, SAMPLES_PER_FRAME, InputError, frames_of, read_audio, video_of, write_video

# The paper's study uses English, Chinese and German audio (section 4.2).
LANGUAGES = {"own": "English", "zh": "Mandarin", "de": "German"}  # by the video's suffix
SIZE = 256  # pixels, side of the clips; smaller frames are enlarged for every method
CHECKS = (2, 4)  # scores that the attention checks ask the rater to choose


@dataclass(frozen=True)
class Clip:
    """A video to rate."""

    id: str  # a hash, so that the file name does not reveal the method
    method: str
    testset: str
    language: str
    path: Path
    wanted: int = 0  # the score that an attention check asks for; 0 for other clips


def prepare(results: str | Path, folder: str | Path) -> list[Clip]:
    """Write the clips of all methods' own videos in a results folder to `folder`.

    `evaluation.comparison` describes the results folder. All clips are cut to the same maximal
    length, have the same size and coding, and are named by a hash. Missing videos are left out. An
    attention check is a real video with a request written into its frames.

    Raises InputError if there is no video to rate.
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
        raise InputError(f"no video to rate in {results}: run `make figures` first")
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
    """Frames (T, S, S, 3) with a text that asks to choose `wanted` for all questions."""
    out = frames.copy()
    for image in out:
        image[: SIZE // 3] //= 4
        for k, line in enumerate(("A check: please choose", f"{wanted} in all four rows")):
            cv2.putText(image, line, (14, 34 + 30 * k), cv2.FONT_HERSHEY_SIMPLEX, 0.6,
                        (255, 255, 255), 1, cv2.LINE_AA)  # fmt: skip
    return out
