"""DFA-NeRF with the rivals' interface: a model that `dfa fit` or notebooks 02 to 05 trained."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from ..media import frame_count, to_and_fro
from ..method.talking_head import Corpus, Subject
from ..recording import Recording
from ..training import metadata
from .method import Method


class DFANeRF(Method):
    """A subject's model, read from `folder`, and the corpus networks that it needs.

    Args:
        folder: of the subject's model. corpus: the networks trained on the corpus.
    """

    name, learns_from = "DFA-NeRF", "subject"
    takes, own = ("pose", "eyes"), ("heads", "eyes")

    def __init__(self, folder: str | Path, *args, corpus: Corpus, **options) -> None:
        super().__init__(folder, *args, **options)
        self.corpus = corpus

    def fit(self, corpus: list[Recording], subject: Recording) -> None:
        """Load the model that was fitted on the subject's training recording.

        Raises InputError if it is missing.
        """
        self.subject, self.size = Subject.load(self.folder, self.corpus), subject.frames.shape[1]
        self.field, self.sync = self.subject.field.to(self.device), self.corpus.sync
        for name in ("field", "personal"):
            self.seconds[name] = metadata(self.folder / f"{name}.safetensors")["seconds"]

    def render(
        self,
        audio: np.ndarray,
        pose: Recording | None = None,
        eyes: Recording | None = None,
        size: int | None = None,
    ) -> Iterator[np.ndarray]:
        """As `Method.render`, with frames of any `size`, by default that of the recording of `fit`.

        Without `pose` the head motion is sampled, without `eyes` the eyes are.
        """
        n, personal = frame_count(audio), None
        if pose and eyes:
            personal = self.subject.x.new_empty(n, self.subject.x.shape[1])
        elif pose or eyes:
            f_a = self.corpus.f_a(audio, n)
            personal = self.subject.sample(f_a, self.seed)
        if pose:
            personal[:, :6] = torch.from_numpy(to_and_fro(pose.attributes.h, n))
        if eyes:
            f_e = self.corpus.f_e(eyes.attributes).numpy()
            personal[:, 6:] = torch.from_numpy(to_and_fro(f_e, n))
        size = size or self.size
        yield from self.subject.speak(audio, seed=self.seed, personal=personal, size=size)
