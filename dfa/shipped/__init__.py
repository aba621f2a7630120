"""The networks in dfa/data/weights, trained on hours of speech and the captures: `dfa weights`.

`dfa fit`, `dfa speak` and table 5 start from these networks. The captures alone are six minutes of
speech. The mouth code, E_a, the GP-VAE and the recogniser learn from sound and landmarks, so they
also learn from talkers without pictures (`studio.talkers`). The functions that train are those of
the notebooks. A stopped run continues.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np
import torch

from .. import captures
from ..datasets.voices import augmented
from ..evaluation import expert
from ..gpu import proof
from ..media import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME, InputError, read_audio
from ..method.crossmodal import CrossModalRecipe, train_cme
from ..method.disentangle import DisentanglementRecipe, train_disentangler
from ..method.gpvae import VAERecipe, train_vae
from ..method.sync import SyncRecipe, train_sync
from ..method.talking_head import Corpus
from ..processes import say
from ..profiles import Profile, profile
from ..recording import Recording
from ..report.machine import root
from ..rivals.recogniser import SHIPPED, RecogniserRecipe, train_recogniser, utterances
from ..studio import readers, tracker_model
from ..studio import talkers as speech
from ..training import WEIGHTS, save


@dataclass(frozen=True)
class Effort:
    """How much is made and trained; minutes on two cores in brackets."""

    talkers: int = 48  # (45)
    seconds: float = speech.SECONDS  # of each
    sync_versions: int = 6  # of each sound, disturbed, for E_a (10)
    recogniser_versions: int = 3  # the same, for the recogniser (5)
    readers: int = 120  # of 90 s, for the recogniser, each also disturbed once (12)
    disentangle: int = 20_000  # steps (6)
    sync: int = 60_000  # steps (57)
    vae: int = 8_000  # steps (14)
    cme: int = 3_000  # steps (9)
    recogniser: int = 8_000  # steps (60)


MINIATURE = Effort(2, 6.0, 1, 1, 1, 20, 4, 2, 2, 2)


def check_run(files: Iterable[Path], runs: Path) -> None:
    """Raise InputError if one of the files of a run, in the folder `runs`, is missing."""
    missing = [file for file in files if not file.is_file()]
    if missing:
        raise InputError(
            f"{missing[0]} is missing: run `make figures PROFILE={runs.name}` first; its tracks and"
            " its Sync expert are used"
        )


def in_time(name: str, runs: Path) -> Recording:
    """A capture whose sound is moved to its picture, if it is late."""
    whole = captures.recording(name, runs, 128)
    late = int(captures.truth(name)["sound_late"]) * SAMPLES_PER_FRAME
    audio = np.pad(whole.audio[late:], (0, late))
    return Recording(name, lambda: whole.frames, audio, whole.attributes)


def spoken(
    names: tuple[str, ...], paths: list[Path], seconds: float
) -> Iterator[tuple[np.ndarray, np.ndarray, list[str]]]:
    """Audio (n,), spans (k, 2) in seconds and texts of all sentences, of captures and talkers."""
    for name in names:
        truth, n = captures.truth(name), round(seconds * FPS) * SAMPLES_PER_FRAME
        audio = read_audio(captures.path(name))[:n]
        whole = truth["sentences"][:, 1] * SAMPLE_RATE < len(audio)
        yield audio, truth["sentences"][whole], [str(t) for t in truth["transcripts"][whole]]
    for path in paths:
        yield speech.recording(path).audio, *speech.transcript(path)


def train(p: Profile, effort: Effort, runs: Path, out: Path, seed: int = 0) -> None:
    """Train all networks on the captures of a profile and on talkers; write them to `out`.

    runs: where notebook 01 wrote the tracks of the captures. Talkers go to its folder speech, and
    checkpoints to its folder weights. Raises InputError if tracks are missing.
    """
    if len(p.corpus) < 2:
        raise InputError("the tracker's model is learnt from two subjects or more: name more")
    check_run(captures.tracks(p.corpus, runs), runs)
    takes = [tracker_model.take(name, runs) for name in p.corpus]
    for what, share in tracker_model.explained(takes).items():
        say(f"the tracker's model explains {share:.0%} of the {what} of an actor left out")
    model = tracker_model.TrackerModel.fit(takes)
    paths = speech.make(runs / "speech", model, effort.talkers, effort.seconds, seed)

    def recordings() -> Iterator[Recording]:  # read again each time: an hour of sound is large
        yield from (in_time(name, runs) for name in p.corpus)
        yield from map(speech.recording, paths)

    def file(name: str) -> Path:
        return runs / "weights" / f"{name}.safetensors"

    landmarks = torch.cat([torch.from_numpy(r.attributes.landmarks) for r in recordings()])
    recipe = DisentanglementRecipe(effort.disentangle)
    corpus = Corpus(train_disentangler(landmarks, recipe, file("disentangle"), seed)[0])

    f_m = [corpus.codes(r).f_m for r in recordings()]  # (T, 32) each
    data = augmented(f_m, (r.audio for r in recordings()), seed, effort.sync_versions)
    corpus.sync = train_sync(*data, SyncRecipe(effort.sync), file("sync"), seed)[0]
    del data

    pairs = [(c.x, c.f_a) for c in map(corpus.codes, recordings())]
    x, f_a = map(list, zip(*pairs, strict=True))  # (T, 14), (T, 64) each
    corpus.vae = train_vae(x, VAERecipe(effort.vae), file("gpvae"), seed)[0]
    recipe = CrossModalRecipe(effort.cme)
    corpus.cme = train_cme(corpus.vae, x, f_a, recipe, file("cme"), seed)[0]
    del pairs, x, f_a

    sounds, texts = [], []
    read = (readers.read(i, effort.seconds, seed) for i in range(effort.readers))
    heard = ((each, effort.recogniser_versions) for each in spoken(p.corpus, paths, p.seconds))
    say(f"{effort.readers} readers speak: some minutes")
    for i, ((audio, spans, said), n) in enumerate(chain(heard, ((each, 1) for each in read))):
        rng = np.random.default_rng([seed, i])
        more_sounds, more_texts = utterances(audio, spans, said, rng, n)
        sounds, texts = sounds + more_sounds, texts + more_texts
    recipe = RecogniserRecipe(effort.recogniser)
    recogniser = train_recogniser(sounds, texts, recipe, file("recogniser"), seed)[0]

    corpus.save(out)
    save(recogniser.half(), out / SHIPPED.name)  # half precision, to save space


def ship(profile_name: str, minutes: float | None = None) -> None:
    """Train all networks on the tracks of a quick run, and put them into the package.

    Of profile smoke it is a miniature, written beside its run. minutes: of talkers that are made,
    and readers in proportion; 72 by default. Raises InputError if the run has not come so far.
    """
    p = profile(profile_name)
    runs, smoke = root() / "runs" / p.name, p.name.startswith("smoke")
    effort = MINIATURE if smoke else Effort()
    if minutes is not None:
        n = max(2, round(60 * minutes / effort.seconds))
        effort = replace(effort, talkers=n, readers=effort.readers * n // effort.talkers)
    if smoke:
        train(p, effort, runs, runs / "weights" / "shipped")
        return
    # what is missing is said now, not after hours
    check_run([*captures.tracks(p.test, runs), runs / "expert.safetensors"], runs)
    expert.load_expert(runs)
    train(p, effort, runs, WEIGHTS)
    expert.ship(runs)
    proof.ship(runs, Corpus.load())
