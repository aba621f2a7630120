"""DFA-NeRF itself behind the rivals' interface: what `dfa fit` or notebooks 02 to 05 trained."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from ..media import frame_count
from ..talk import Corpus, Subject, sample_personal
from ..training import seconds_spent
from .method import Method, Recording
from .parts import to_and_fro


class DFANeRF(Method):
    """A subject's model, read from `folder`, and the corpus networks that it rests on."""

    name, learns_from = "DFA-NeRF", "subject"
    takes, own = ("pose", "eyes"), ("heads", "eyes")

    def __init__(self, folder: str | Path, *args, corpus: Corpus, **options) -> None:
        super().__init__(folder, *args, **options)
        self.corpus = corpus

    def fit(self, corpus: list[Recording], subject: Recording) -> None:
        self.subject = Subject.load(self.folder, self.corpus, subject.frames.shape[1])
        # their mean pose and beginning of pose: of the training part
        self.subject.x = self.subject.x[: len(subject)]
        self.field, self.sync = self.subject.field, self.corpus.sync
        for name in ("field", "personal"):
            self.seconds[name] = seconds_spent(self.folder / f"{name}.safetensors")

    def render(
        self,
        audio: np.ndarray,
        pose: Recording | None = None,
        eyes: Recording | None = None,
        size: int | None = None,
    ) -> Iterator[np.ndarray]:
        """Head motion and eyes that nobody gives are sampled. Any `size`."""
        n, personal = frame_count(audio), None
        if pose and eyes:
            personal = self.subject.x.new_empty(n, self.subject.x.shape[1])
        elif pose or eyes:
            f_a = self.corpus.f_a(audio, n)
            personal = sample_personal(
                self.corpus, self.subject.cme, self.subject.x, f_a, self.seed
            )
        if pose:
            personal[:, :6] = torch.from_numpy(to_and_fro(pose.attributes.h, n))
        if eyes:
            f_e = self.corpus.f_e(eyes.attributes).numpy()
            personal[:, 6:] = torch.from_numpy(to_and_fro(f_e, n))
        yield from self.subject.speak(audio, seed=self.seed, personal=personal, size=size)
