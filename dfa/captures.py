"""The sample captures in the package: videos of synthetic actors, with their true motion.

There are two recordings of each test subject: NAME.mp4 to learn from, and NAME.test.mp4, in which
the same person says other words, to test with.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import BadZipFile

import numpy as np

from .media import (
    FPS,
    SAMPLES_PER_FRAME,
    InputError,
    iter_frames,
    packaged,
    read_audio,
    read_levels,
)

if TYPE_CHECKING:
    from .recording import Recording

TEST = ("subject_a", "subject_b")
CORPUS = tuple(f"corpus_{i:02d}" for i in range(1, 13))
NAMES = TEST + CORPUS
FOLDER = Path(__file__).parent / "data" / "captures"
SPEAKERS = {"zh": "corpus_02", "de": "corpus_05"}  # language -> subject whose voice speaks it
SAMPLES = "sample captures, synthetic actors"  # what was measured, in words
DEPTH_UNIT = 1e-3  # metres: of the depth maps in NAME_views.mkv
RATED = 6  # seconds of each video that people rate (`dfa.study`)


def path(name: str, second: bool = False) -> Path:
    """Path of the video of a sample capture, or of the second recording of a test subject.

    Raises InputError if it does not exist.
    """
    if name not in (TEST if second else NAMES):
        what, known = ("second recording of", TEST) if second else ("sample capture", NAMES)
        raise InputError(f"there is no {what} {name!r}: choose one of {', '.join(known)}")
    return packaged(FOLDER / f"{titled(name, second)}.mp4")


def titled(name: str, second: bool = False) -> str:
    """What the files of a recording are called: the name, or NAME.test of the second one."""
    return f"{name}.test" if second else name


def recordings_of(names: Iterable[str]) -> list[tuple[str, bool]]:
    """Each capture as (name, second): one of a corpus subject, two of a test subject."""
    return [(name, second) for name in names for second in (False, True)[: 1 + (name in TEST)]]


def videos(names: Iterable[str]) -> list[Path]:
    """All videos of the captures `names`. Raises InputError as `path`."""
    return [path(*each) for each in recordings_of(names)]


def tracks(names: Iterable[str], runs: str | Path) -> list[Path]:
    """The files of `Attributes` of all videos of `names`: notebook 01 writes them in `runs`."""
    return [Path(runs) / titled(*each) / "attributes.npz" for each in recordings_of(names)]


def unseen(name: str) -> Path:
    """Path (FLAC) of speech that is in no capture, in the voice of `name`: TEST or SPEAKERS.

    Raises InputError for another name.
    """
    known = (*TEST, *SPEAKERS.values())
    if name not in known:
        raise InputError(f"{name!r} says nothing unseen: choose one of {', '.join(known)}")
    return path(name).with_name(f"{name}_unseen.flac")


def recording(name: str, runs: str | Path, size: int) -> Recording:
    """A sample capture with frames of `size` pixels and the attributes of notebook 01 in `runs`.

    Of a test subject both recordings, joined: `training` is the first, `test` the second. Raises
    InputError if the capture or the attributes do not exist.
    """
    from .recording import Attributes, Recording  # slow: they import torch

    films, files = videos([name]), tracks([name], runs)
    for file in files:
        if not file.is_file():
            raise InputError(f"{file} does not exist: run notebook 01, or `make figures`")
    loaded = [
        Recording.load(name, film, Attributes.load(file), size)
        for film, file in zip(films, files, strict=True)
    ]
    return Recording.join(*loaded) if name in TEST else loaded[0]


def sentences(name: str, seconds: float) -> dict[str, np.ndarray]:
    """Speech, not in any capture, for the generated videos of a test subject.

    Returns audio (640 T,) by name: `own`, in the voice of the subject, at most `seconds` long; `zh`
    and `de`, in the voices of two corpus subjects, also at most RATED seconds long.
    """
    rated = min(seconds, RATED)
    speech = {"own": (name, seconds)} | {k: (who, rated) for k, who in SPEAKERS.items()}
    return {
        key: read_audio(unseen(voice))[: round(longest * FPS) * SAMPLES_PER_FRAME]
        for key, (voice, longest) in speech.items()
    }


def truth(name: str, second: bool = False) -> dict[str, np.ndarray]:
    """The true motion and speech of the actor in a capture of T frames, arrays by name.

    second: of the second recording of a test subject.

    - h (T, 6): head pose in rad and m (X_cam = R X + t, origin between the eyeballs).
    - actions (T, 52), 0 to 1, and action_names (52,): facial actions.
    - blink (T,): closure of the lids, 0 to 1. blink_onsets (n,): frames.
    - gaze (T, 2): of the eyes in the head, rad, to the right and down in the image.
    - phonemes (n, 2), seconds of start and end, and phoneme_names (n,) in IPA.
    - sentences (n, 2), seconds of start and end of complete sentences, and transcripts (n,) in a to
      z, space and apostrophe (Mandarin in pinyin).
    - torso (T, 6): pose of the torso, as h.
    - camera (T, 3): zoom, 1 at rest, and the shift of the principal point to the right and down in
      image sides: X_cam is seen at 0.5 + zoom FOCAL (x, y) / z + shift, FOCAL of `dfa.method.face`.
    - exposure (T,): stops, 0 at rest.
    - sound_late (): frames by which the sound comes after the picture. The times of phonemes and
      sentences are those of the file's sound.
    """
    return _arrays(path(name, second).with_suffix(".npz"))


def _arrays(file: Path) -> dict[str, np.ndarray]:
    """The arrays of a packaged .npz. Raises InputError if it is missing or damaged."""
    try:
        with open(packaged(file), "rb") as opened, np.load(opened, allow_pickle=False) as data:
            return dict(data)
    except (ValueError, OSError, EOFError, KeyError, BadZipFile, zlib.error) as error:
        raise _damaged(file) from error


def _damaged(file: Path) -> InputError:
    return InputError(f"{file} is damaged: get it again (git checkout {file})")


def views(name: str) -> dict[str, np.ndarray]:
    """Pictures and depth of a test subject from turned cameras: a truth for geometry.

    Nine cameras film the same 12 held-out instants. A camera sees X' = R X + t, where X are the
    coordinates of the camera at rest: the actor, the lights and the room stand still. A head of
    pose h, with rotation R_h and translation t_h, has R R_h and R t_h + t in the turned camera.
    Arrays of n = 108 views by name, one camera after the other:

    - pictures (n, 256, 256, 3) uint8 RGB, compressed like the captures. Behind the actor is the
      painted wall, mirrored where the camera sees beyond its edges: no truth.
    - depth (n, 256, 256) float32: metres along the camera's axis (X'_z) to the actor with hair and
      shirt, through the middle of each pixel, in steps of 1 mm; 0 where no actor is.
    - frame (n,): the instant, in frames of the recording. h (n, 6): the head, as in `truth`.
    - turn (n, 2): yaw and pitch of the camera in degrees; (0, 0) is the camera at rest.
    - R (n, 3, 3) and t (n, 3), in metres.

    Raises InputError if the files are missing or damaged.
    """
    if name not in TEST:
        raise InputError(f"there are no views of {name!r}: choose one of {', '.join(TEST)}")
    file = path(name).with_name(f"{name}_views.npz")
    views = _arrays(file)
    views["pictures"] = np.stack([*iter_frames(file.with_suffix(".mp4"))])
    views["depth"] = read_levels(file.with_suffix(".mkv")) * np.float32(DEPTH_UNIT)
    for name, suffix in (("pictures", ".mp4"), ("depth", ".mkv")):
        if len(views[name]) != len(views["frame"]):
            raise _damaged(file.with_suffix(suffix))
    return views
