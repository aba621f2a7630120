"""The sample captures that come with the package: synthetic actors, and what they really did."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .media import FPS, SAMPLES_PER_FRAME, InputError, read_audio

if TYPE_CHECKING:
    from .recording import Recording

TEST = ("subject_a", "subject_b")
CORPUS = tuple(f"corpus_{i:02d}" for i in range(1, 13))
NAMES = TEST + CORPUS
FOLDER = Path(__file__).parent / "data" / "captures"
SPEAKERS = {"zh": "corpus_02", "de": "corpus_05"}  # of what is in no capture, beside TEST
SAMPLES = "sample captures, synthetic actors"  # what was measured, in words
RATED = 6  # s that people rate of each video (`dfa.study`)
VOWELS = set("aɑæʌɐəᵻɨeɛɪiɒɔoɤuʊyʏøœɜɝɚ")
HELD = 0.12  # s from which a vowel counts as held


def path(name: str) -> Path:
    """The video of a sample capture; InputError if there is none of that name."""
    if name not in NAMES:
        raise InputError(f"there is no sample capture {name!r}: choose one of {', '.join(NAMES)}")
    file = FOLDER / f"{name}.mp4"
    if not file.exists():
        raise InputError(f"{file} is missing: make it again with `dfa captures {name}`")
    return file


def unseen(name: str) -> Path:
    """A recording of the voice of a test subject, or one of `SPEAKERS`, saying what is in none of
    the captures (FLAC)."""
    return path(name).with_name(f"{name}_unseen.flac")


def recording(name: str, runs: str | Path, size: int) -> Recording:
    """A sample capture at a frame side of `size` pixels, as notebook 01 tracked it to the folder
    `runs`."""
    from .recording import Attributes, Recording  # they load torch, which raters' pages do not

    attributes = Attributes.load(Path(runs) / name / "attributes.npz")
    return Recording.load(name, path(name), attributes, size)


def sound(name: str, seconds: float | None = None) -> np.ndarray:
    """The sound of a sample capture, or its beginning: (n,) at 16 kHz."""
    n = None if seconds is None else int(seconds * FPS) * SAMPLES_PER_FRAME
    return read_audio(path(name))[:n]


def sentences(name: str, seconds: float) -> dict[str, np.ndarray]:
    """What methods' own videos of a test subject say, each (640 T,) and at most this long: `own`
    in the subject's voice, `zh` and `de` in those of two corpus speakers, as long as people rate.
    None is in a capture."""
    rated = min(seconds, RATED)
    said = {"own": (name, seconds)} | {k: (who, rated) for k, who in SPEAKERS.items()}
    return {
        key: read_audio(unseen(voice))[: int(longest * FPS) * SAMPLES_PER_FRAME]
        for key, (voice, longest) in said.items()
    }


def truth(name: str) -> dict[str, np.ndarray]:
    """What the actor of a capture of T frames really did.

    h (T, 6) head pose (X_cam = R X + t, origin between the eyeballs); actions (T, 52) facial
    actions in [0, 1] and action_names (52,); blink (T,) lid closure; blink_onsets (n,) in frames;
    gaze (T, 2) of the eyes in the head, radians to the image's right and down; phonemes (n, 2)
    start and end in seconds and phoneme_names (n,) in IPA; sentences (n, 2) start and end in
    seconds of those spoken whole, and their transcripts (n,) in a to z, space and apostrophe
    (Mandarin in pinyin).
    """
    with np.load(path(name).with_suffix(".npz"), allow_pickle=False) as data:
        return dict(data)


def quiet_and_held(name: str, T: int) -> tuple[np.ndarray, np.ndarray]:
    """Which of the first T frames lie in silence, two frames from any phoneme, and which within a
    held vowel: (T,) bool each."""
    said = truth(name)
    quiet, held = np.ones(T, bool), np.zeros(T, bool)
    for (start, end), phone in zip(said["phonemes"] * FPS, said["phoneme_names"], strict=True):
        quiet[max(0, int(start) - 2) : int(np.ceil(end)) + 2] = False
        if end - start >= HELD * FPS and VOWELS & set(str(phone)):
            held[int(np.ceil(start)) : int(end)] = True
    return quiet, held
