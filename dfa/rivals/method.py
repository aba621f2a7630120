"""The interface of every method of table 2: fit it on recordings, then render frames."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from ..method.field import Field
from ..recipe import Recipe
from ..recording import Recording
from ..training import metadata, pick_device, train


class Method(ABC):
    """A talking-head method: call `fit`, then `render`.

    Args:
        folder: for its checkpoints. A finished training in it is loaded, not repeated.
        effort: factor of the steps of every training; 1 is the quick profile's budget.
        seed: of all random numbers.
        device: of its networks, a torch device or "auto".
    """

    name: ClassVar[str]  # as in table 2
    learns_from: ClassVar[Literal["corpus", "subject"]]
    takes: ClassVar[tuple[str, ...]]  # inputs from a test video: reference, video, pose, eyes
    own: ClassVar[tuple[str, ...]] = ()  # what it generates in the person's own style: heads, eyes
    face_model: ClassVar[str | None] = None  # representation between audio and picture
    no_eyes: ClassVar[bool] = False  # True: eyes are copied from the reference or source video

    def __init__(
        self, folder: str | Path, effort: float = 1.0, seed: int = 0, device: str = "auto"
    ) -> None:
        self.folder, self.effort, self.seed = Path(folder), effort, seed
        self.device = pick_device(device)
        self.curves: dict[str, list[dict[str, float]]] = {}  # by training, as `train` returns them
        self.seconds: dict[str, float] = {}  # duration of each training

    @abstractmethod
    def fit(self, corpus: list[Recording], subject: Recording) -> None:
        """Train on the corpus or on the subject, as `learns_from` says.

        A method that learns from the corpus may use only the first frame of the subject and its
        attributes: the reference.
        """

    @abstractmethod
    def render(
        self, audio: np.ndarray, pose: Recording | None = None, eyes: Recording | None = None
    ) -> Iterator[np.ndarray]:
        """Yield T frames (S, S, 3) uint8 of the subject speaking `audio` (640 T,).

        pose, eyes: recordings of T frames whose head motion and eyes are followed, if the method
        `takes` them; with None the method generates its own.
        """

    def learn(
        self,
        what: str,
        model: nn.Module,
        loss: Callable[[torch.Generator], tuple[Tensor, dict[str, float]]],
        recipe: Recipe,
        data: str,
        groups: list[dict] | None = None,
        uses: Sequence[nn.Module] = (),
        precision: str | None = "32-true",
    ) -> None:
        """Run `training.train` with this method's folder, seed and effort, and keep its curve.

        Args:
            what: the training's name, for its file and log.
            data: digest of the training data.
            groups: the optimiser's parameter groups; by default all parameters of `model`.
            uses: other networks that the loss reads. precision: as of `train`.

        A stored training is reused only if the code of `fit` too, which prepares the data, is the
        same.
        """
        path = self.folder / f"{what}.safetensors"
        recipe = replace(recipe, steps=max(2, round(recipe.steps * self.effort)))
        self.curves[what] = train(
            model, loss, recipe, path=path, seed=self.seed, data=data, groups=groups, uses=uses,
            code=[type(self).fit], label=f"{self.name} {what}", precision=precision,
        )  # fmt: skip
        self.seconds[what] = metadata(path)["seconds"]

    @classmethod
    def any_size(cls) -> bool:
        """Whether `render` has an argument `size`."""
        return "size" in inspect.signature(cls.render).parameters

    def aspects(self) -> dict[str, str | None]:
        """The columns of table 1, computed from the fitted networks.

        - `target`: "arbitrary" if the method learns from the corpus, else "specific";
        - `audio_feature`: "sync" if one of its networks was trained to match audio and mouth
          (attribute `judges_sync`), either as audio encoder or as a loss;
        - `framework`: "NeRF" with a radiance field, else "GAN" with a discriminator (attribute
          `tells_real`), else None;
        - `personalized` and `face_model`: the class's `own` and `face_model`.
        """
        found = [m for part in vars(self).values() if isinstance(part, nn.Module)
                 for m in part.modules()]  # fmt: skip
        is_a = lambda trait: any(getattr(m, trait, False) for m in found)  # noqa: E731
        field = any(isinstance(m, Field) for m in found)
        framework = "NeRF" if field else "GAN" if is_a("tells_real") else None
        return dict(
            target="arbitrary" if self.learns_from == "corpus" else "specific",
            audio_feature="sync" if is_a("judges_sync") else "not sync",
            framework=framework,
            personalized=", ".join(self.own) or None,
            face_model=self.face_model,
        )
