"""The whole method for one person, from a recording to a talking head (section 3.1, figure 2).

`Corpus` holds the networks that are trained once on many people (F_d, E_a, the GP-VAE). `fit`
trains the rest on one person and returns a `Subject`. `Subject.speak` renders it with new audio.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..media import frame_count, to_and_fro
from ..processes import rank_and_world, say
from ..recording import Attributes, Recording
from ..training import WEIGHTS, load, save
from .audio import mfcc
from .crossmodal import CrossModalEncoder, CrossModalRecipe, sample_personal, train_cme
from .disentangle import Disentangler
from .field import Field, conditions, render
from .field_training import FieldRecipe, load_field, train_field
from .gpvae import AttributeVAE
from .person import Person
from .sync import SyncModel

if TYPE_CHECKING:
    from ..profiles import Profile

STAGES = ("disentangle", "sync", "gpvae", "cme")  # file names of a corpus, in order of training


class Codes(NamedTuple):
    """Codes of a recording of T frames. f_a and cond are None before E_a is trained."""

    f_m: Tensor  # (T, 32) mouth codes
    x: Tensor  # (T, 14) [h ; f_e], the attributes that the GP-VAE models
    f_a: Tensor | None = None  # (T, 64) audio codes
    cond: Tensor | None = None  # (T, DIM_C) conditions of the field


@dataclass
class Corpus:
    """The networks that are trained once on many people; None if not trained yet."""

    f_d: Disentangler
    sync: SyncModel | None = None
    vae: AttributeVAE | None = None
    cme: CrossModalEncoder | None = None  # initial weights of the fine-tuning on a person

    @classmethod
    def load(cls, folder: str | Path = WEIGHTS, last: str = STAGES[-1]) -> Corpus:
        """Read the networks, up to `last` of `STAGES`, from a folder; by default the package's.

        Raises InputError if a network is missing or of another version.
        """
        vae = AttributeVAE()
        names = STAGES[: STAGES.index(last) + 1]
        models = (Disentangler(), SyncModel(), vae, CrossModalEncoder(vae))[: len(names)]
        for model, name in zip(models, names, strict=True):
            load(model, Path(folder) / f"{name}.safetensors")
        return cls(*models)

    def save(self, folder: str | Path) -> None:
        """Write the networks to a folder, as safetensors files with the names of `STAGES`."""
        for model, name in zip((self.f_d, self.sync, self.vae, self.cme), STAGES, strict=True):
            if model is not None:
                save(model, Path(folder) / f"{name}.safetensors")

    @torch.inference_mode()
    def f_a(self, audio: np.ndarray, n_frames: int | None = None) -> Tensor:
        """E_a (section 3.3): audio (n,), 16 kHz -> f_a (T, 64)."""
        return self.sync.listen(torch.from_numpy(mfcc(audio, n_frames))).clone()

    @torch.inference_mode()
    def f_e(self, attributes: Attributes) -> Tensor:
        """Eye codes f_e (T, 8) of T tracked frames."""
        return self.f_d.encode(torch.from_numpy(attributes.landmarks))[1].clone()

    def personal(self, attributes: Attributes) -> Tensor:
        """Attributes [h ; f_e] (T, 14) of T tracked frames."""
        return torch.cat([torch.from_numpy(attributes.h), self.f_e(attributes)], 1)

    def codes(self, recording: Recording) -> Codes:
        """All codes of a recording; for a part, those of the whole recording, cut.

        Each of the recording's takes is encoded on its own: nothing crosses from one to the next.
        """
        takes = zip(*map(self._codes, recording.whole.takes), strict=True)
        return Codes(*(torch.cat(each)[recording.cut] for each in takes))

    @torch.no_grad()  # training cannot use inference tensors
    def _codes(self, take: Recording) -> tuple[Tensor, ...]:
        """The `Codes` of one continuous video, without those that need a missing E_a."""
        f_m = self.f_d.encode(torch.from_numpy(take.attributes.landmarks))[0].clone()
        x = self.personal(take.attributes)
        if self.sync is None:
            return f_m, x
        f_a = self.f_a(take.audio, len(take))
        return f_m, x, f_a, conditions(x[:, :6], f_a, x[:, 6:])


def fit_motion(
    corpus: Corpus, recording: Recording, steps: int, out: Path, seed: int, device: str = "auto"
) -> CrossModalEncoder:
    """Fine-tune the cross-modal encoder on the head motion and blinks of a person (eq. 9).

    Returns the encoder. Writes all files of `Subject.load` but the field to the folder `out`.
    """
    out.mkdir(parents=True, exist_ok=True)
    if rank_and_world()[0] == 0:
        corpus.save(out)
        recording.attributes.save(out / "attributes.npz")
    codes, path = corpus.codes(recording), out / "personal.safetensors"
    recipe, pair = CrossModalRecipe(steps), ([codes.x], [codes.f_a])
    return train_cme(corpus.vae, *pair, recipe, path, seed, corpus.cme, device)[0]


def fit_field(
    corpus: Corpus, recording: Recording, recipe: FieldRecipe, out: Path, seed: int,
    device: str = "auto", name: str = "field",
) -> tuple[Field, list[dict]]:  # fmt: skip
    """Train a radiance field on the frames of a person (eq. 10, 11).

    Returns the field and the history. Writes it as `name`.safetensors to the folder `out`.
    """
    path, cond = out / f"{name}.safetensors", corpus.codes(recording).cond
    points, person = recording.attributes.points, Person.of(recording)
    return train_field(recording.frames, points, cond, recipe, path, seed, device, person=person)


def fit(
    recording: Recording, profile: Profile, out: str | Path, corpus: Corpus | None = None,
    seed: int = 0, device: str = "auto",
) -> Subject:  # fmt: skip
    """Train a talking head of one person: head motion and blinks, then the radiance field.

    Args:
        recording: all of it is training data. Give `recording.training` to keep a test part.
        profile: sets the numbers of steps.
        out: folder for the model, which `Subject.load` reads. A stopped run continues from there.
        corpus: the networks to start from; by default those in the package.
        device: of both trainings: "auto", "cpu" or "cuda".

    Returns the Subject. Raises as `training.train`.
    """
    out, corpus = Path(out), corpus or Corpus.load()
    say("head motion and blinks")
    cme = fit_motion(corpus, recording, profile.cme_steps // 2, out, seed, device)
    say("radiance field")
    field, _ = fit_field(corpus, recording, FieldRecipe(profile.field_steps), out, seed, device)
    return Subject(corpus, cme, field, corpus.codes(recording).x)


@dataclass
class Subject:
    """A fitted person, rendered with any audio by `speak`."""

    corpus: Corpus
    cme: CrossModalEncoder
    field: Field
    x: Tensor  # (T, 14) [h ; f_e] of the training recording

    @classmethod
    def load(cls, folder: str | Path, corpus: Corpus | None = None) -> Subject:
        """Read what `fit` wrote to `folder`. corpus: its networks, if they are loaded already.

        Raises InputError if a file is missing or of another version.
        """
        folder = Path(folder)
        corpus = corpus or Corpus.load(folder)
        attributes = Attributes.load(folder / "attributes.npz")
        cme, field = CrossModalEncoder(corpus.vae), load_field(folder / "field.safetensors")
        load(cme, folder / "personal.safetensors")
        return cls(corpus, cme, field, corpus.personal(attributes))

    def sample(self, f_a: Tensor | int, seed: int = 0) -> Tensor:
        """Sample [h ; f_e] (T, 14) of the person, for f_a (T, 64) or for T frames without audio."""
        return sample_personal(self.corpus.vae, self.cme, self.x, f_a, seed)

    def speak(
        self, audio: np.ndarray, *, seed: int = 0, personal: Tensor | None = None,
        size: int | None = None,
    ) -> Iterator[np.ndarray]:  # fmt: skip
        """Render this person saying `audio` (n,), 16 kHz: yields frames (S, S, 3) uint8, 25 fps.

        seed: of the sampled head motion and blinks.
        personal: [h ; f_e] (T, 14) in place of the sample. If too short, it plays back and forth.
        size: side S in pixels; by default the training size.
        """
        n = frame_count(audio)
        f_a = self.corpus.f_a(audio, n)
        if personal is None:
            personal = self.sample(f_a, seed)
        personal = personal[to_and_fro(np.arange(len(personal)), n)]
        cond = conditions(personal[:, :6], f_a, personal[:, 6:])
        yield from render(self.field, cond, size or int(self.field.size))
