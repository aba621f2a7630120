"""One person from end to end: a recording in, a talking head out.

`Corpus` holds what is learnt once from many people (F_d, E_a, the GP-VAE); `fit` learns the rest
from one person, and gives a `Subject`, which can speak.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..media import SAMPLES_PER_FRAME, atomic, frame_count, to_and_fro
from ..recording import Attributes, Recording
from ..training import load, rank_and_world, save, say
from .audio import mfcc
from .crossmodal import CrossModalEncoder, CrossModalRecipe, sample_personal, train_cme
from .disentangle import DIM_M, Disentangler
from .face import LEFT_EYE, LOWER_LIDS, RIGHT_EYE, UPPER_LIDS
from .field import Field, conditions, render
from .field_training import FieldRecipe, load_field, train_field
from .gpvae import AttributeVAE
from .sync import SyncModel

if TYPE_CHECKING:
    from ..profiles import Profile

WEIGHTS = Path(__file__).parents[1] / "data" / "weights"  # trained on the sample captures' corpus
STAGES = ("disentangle", "sync", "gpvae", "cme")  # files of a corpus, in the order of training


# --- what is learnt from many people -------------------------------------------------------------


class Codes(NamedTuple):
    """What the networks of a corpus say of a recording of T frames."""

    f_m: Tensor  # (T, 32) mouth
    x: Tensor  # (T, 14) [h ; f_e], the attributes that the GP-VAE models
    f_a: Tensor | None = None  # (T, 64) sound; None before E_a is trained, as `cond`
    cond: Tensor | None = None  # (T, DIM_C) what the field is conditioned on


@dataclass
class Corpus:
    """The stages that are learnt once: F_d, E_a, the GP-VAE and the cross-modal encoder. Those
    that are not trained yet are None."""

    f_d: Disentangler
    sync: SyncModel | None = None
    vae: AttributeVAE | None = None
    cme: CrossModalEncoder | None = None  # what fine-tuning on a person starts from

    @classmethod
    def load(cls, folder: str | Path = WEIGHTS, last: str = STAGES[-1]) -> Corpus:
        """Read the networks up to the stage `last` from a folder (the package ships one).

        Raises InputError where one is missing or of another version.
        """
        vae = AttributeVAE()
        names = STAGES[: STAGES.index(last) + 1]
        models = (Disentangler(), SyncModel(), vae, CrossModalEncoder(vae))[: len(names)]
        for model, name in zip(models, names, strict=True):
            load(model, Path(folder) / f"{name}.safetensors")
        return cls(*models)

    def save(self, folder: str | Path) -> None:
        """Write the networks to a folder, which becomes independent of where they came from."""
        for model, name in zip((self.f_d, self.sync, self.vae, self.cme), STAGES, strict=True):
            if model is not None:
                save(model, Path(folder) / f"{name}.safetensors")

    @torch.inference_mode()
    def f_a(self, audio: np.ndarray, n_frames: int | None = None) -> Tensor:
        """E_a of a whole utterance (n,), (T, 64)."""
        return self.sync.audio(torch.from_numpy(mfcc(audio, n_frames))[None])[0].clone()

    @torch.inference_mode()
    def f_e(self, attributes: Attributes) -> Tensor:
        """Eye codes of T tracked frames, (T, 8)."""
        return self.f_d.encode(torch.from_numpy(attributes.landmarks))[1].clone()

    def personal(self, attributes: Attributes) -> Tensor:
        """[h ; f_e] of T tracked frames, (T, 14)."""
        return torch.cat([torch.from_numpy(attributes.h), self.f_e(attributes)], 1)

    @torch.no_grad()  # what is learnt from may not be an inference tensor
    def codes(self, recording: Recording) -> Codes:
        """All codes of a recording. Of a part they are computed over the whole, and cut."""
        whole, cut = recording.whole, recording.cut
        f_m = self.f_d.encode(torch.from_numpy(whole.attributes.landmarks))[0].clone()[cut]
        x = self.personal(whole.attributes)
        if self.sync is None:
            return Codes(f_m, x[cut])
        f_a = self.f_a(whole.audio, len(whole))
        return Codes(f_m, x[cut], f_a[cut], conditions(x[:, :6], f_a, x[:, 6:])[cut])

    @torch.inference_mode()
    def lid_opening(self, f_e: Tensor) -> np.ndarray:
        """Lid opening (T,) of eye codes (T, 8), as a share of inter-ocular distance."""
        l = self.f_d.decode(torch.zeros(len(f_e), DIM_M), f_e)  # (T, 68, 3)
        lids = (l[:, UPPER_LIDS] - l[:, LOWER_LIDS]).norm(dim=-1).mean(1)
        return (lids / (l[:, RIGHT_EYE].mean(1) - l[:, LEFT_EYE].mean(1)).norm(dim=-1)).numpy()


def ship(runs: str | Path) -> None:
    """Copy a run's corpus networks into the package, for `dfa fit`."""
    for name in STAGES:
        with atomic(WEIGHTS / f"{name}.safetensors") as part:
            shutil.copyfile(Path(runs) / f"{name}.safetensors", part)


# --- what is learnt from one person --------------------------------------------------------------


def fit_motion(
    corpus: Corpus, recording: Recording, steps: int, out: Path, seed: int
) -> CrossModalEncoder:
    """Fine-tune the cross-modal encoder on a person's head motion and blinks (eq. 9).

    It goes to the folder `out`, with all that `Subject.load` needs but the field.
    """
    out.mkdir(parents=True, exist_ok=True)
    if rank_and_world()[0] == 0:
        corpus.save(out)
        recording.attributes.save(out / "attributes.npz")
    codes, path = corpus.codes(recording), out / "personal.safetensors"
    recipe = CrossModalRecipe(steps)
    return train_cme(corpus.vae, [codes.x], [codes.f_a], recipe, path, seed, corpus.cme)[0]


def fit_field(
    corpus: Corpus,
    recording: Recording,
    recipe: FieldRecipe,
    out: Path,
    seed: int,
    device: str = "auto",
    name: str = "field",
) -> tuple[Field, list[dict]]:
    """Train a radiance field on a person's frames (eq. 10, 11), as `name` in the folder `out`;
    the field and its history."""
    path, cond = out / f"{name}.safetensors", corpus.codes(recording).cond
    points = recording.attributes.points
    return train_field(recording.frames, points, cond, recipe, path, seed, device)


def fit(
    recording: Recording,
    profile: Profile,
    out: str | Path,
    corpus: Corpus | None = None,
    seed: int = 0,
    device: str = "auto",
) -> Subject:
    """Learn to be the person of a recording: head motion and blinks, then the field.

    Args:
        recording: all of it is learnt from: give `recording.training` where the rest shall test.
        profile: gives the steps.
        out: folder for the model, which `Subject.load` reads. A killed run goes on where it was.
        corpus: the networks to start from, by default those that the package ships.
        device: where the field is trained.
    """
    out, corpus = Path(out), corpus or Corpus.load()
    say("head motion and blinks")
    cme = fit_motion(corpus, recording, profile.cme_steps // 2, out, seed)
    say("radiance field")
    field, _ = fit_field(corpus, recording, FieldRecipe(profile.field_steps), out, seed, device)
    return Subject(corpus, cme, field, corpus.codes(recording).x)


def among_pauses(audio: np.ndarray) -> tuple[np.ndarray, int]:
    """A sound (n,) that hardly pauses, with silence around it, and the frames of it that stand
    before; any other sound as it is, and 0.

    MFCC are normalised over the utterance, and the captures pause for a fifth of their time. Where
    nobody pauses, speech itself would be the mean, and the lips would hardly open.
    """
    T = max(1, len(audio) // SAMPLES_PER_FRAME)
    whole = np.pad(audio, (0, SAMPLES_PER_FRAME))[: T * SAMPLES_PER_FRAME]
    level = np.square(whole.reshape(T, -1)).mean(1)
    pauses = float((level < 1e-3 * np.percentile(level, 95)).mean())  # 30 dB below speech
    if pauses >= 0.1:
        return audio, 0
    lead = math.ceil((0.2 - pauses) / 0.8 * T / 2)
    return np.pad(audio, lead * SAMPLES_PER_FRAME), lead


@dataclass
class Subject:
    """A fitted person, who can say any sound."""

    corpus: Corpus
    cme: CrossModalEncoder
    field: Field
    x: Tensor  # (T, 14) the person's own [h ; f_e], of what was learnt from

    @classmethod
    def load(cls, folder: str | Path, corpus: Corpus | None = None) -> Subject:
        """Read what `fit` wrote. corpus: where its networks are loaded already.

        Raises InputError where something is missing or of another version.
        """
        folder = Path(folder)
        corpus = corpus or Corpus.load(folder)
        attributes = Attributes.load(folder / "attributes.npz")
        cme, field = CrossModalEncoder(corpus.vae), load_field(folder / "field.safetensors")
        load(cme, folder / "personal.safetensors")
        return cls(corpus, cme, field, corpus.personal(attributes))

    def sample(self, f_a: Tensor | int, seed: int = 0) -> Tensor:
        """Head motion and eyes [h ; f_e] (T, 14) in this person's manner, for sound f_a (T, 64), or
        for T frames without sound."""
        return sample_personal(self.corpus.vae, self.cme, self.x, f_a, seed)

    def speak(
        self,
        audio: np.ndarray,
        *,
        seed: int = 0,
        personal: Tensor | None = None,
        size: int | None = None,
    ) -> Iterator[np.ndarray]:
        """Frames (S, S, 3) uint8 of this person saying `audio` (n,), one by one.

        personal: (T, 14) replaces the sampled pose and eyes; it goes to and fro if it is too short.
        size: side of the frames, by default that of the frames it learnt from.
        """
        n = frame_count(audio)
        sound, lead = among_pauses(audio)
        f_a = self.corpus.f_a(sound, n + 2 * lead)[lead : lead + n]
        if personal is None:
            personal = self.sample(f_a, seed)
        personal = personal[to_and_fro(np.arange(len(personal)), n)]
        cond = conditions(personal[:, :6], f_a, personal[:, 6:])
        yield from render(self.field, cond, size or int(self.field.size))
