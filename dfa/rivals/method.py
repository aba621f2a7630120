"""What every method of table 2 is: fitted on recordings, then asked for frames."""

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
from ..training import pick_device, seconds_spent, train


class Method(ABC):
    """A method of talking heads: `fit`, then `render`.

    Args:
        folder: where its trainings are kept; one that is there already is not made again.
        effort: 1 is the quick profile's budget; every training's steps are multiplied by it.
        seed: of everything random.
        device: of its networks.
    """

    name: ClassVar[str]
    learns_from: ClassVar[Literal["corpus", "subject"]]
    takes: ClassVar[tuple[str, ...]]  # of a test video: reference, video, pose, eyes
    own: ClassVar[tuple[str, ...]] = ()  # what it makes in a person's own manner: heads, eyes
    face_model: ClassVar[str | None] = None  # what stands between sound and picture
    no_eyes: ClassVar[bool] = False  # True: its eyes are those of the reference or the source video

    def __init__(
        self, folder: str | Path, effort: float = 1.0, seed: int = 0, device: str = "auto"
    ) -> None:
        self.folder, self.effort, self.seed = Path(folder), effort, seed
        self.device = pick_device(device)
        self.curves: dict[str, list[dict[str, float]]] = {}  # of each training, as `train` returns
        self.seconds: dict[str, float] = {}  # that each took

    @abstractmethod
    def fit(self, corpus: list[Recording], subject: Recording) -> None:
        """Learn from the corpus, or from the subject, whichever `learns_from` says.

        A method that learns from the corpus sees of the subject its first frame alone, and that
        frame's attributes: the reference.
        """

    @abstractmethod
    def render(
        self, audio: np.ndarray, pose: Recording | None = None, eyes: Recording | None = None
    ) -> Iterator[np.ndarray]:
        """Frames (S, S, 3) uint8 of the subject saying `audio` (640 T,).

        pose, eyes: recordings of T frames whose head motion and eyes it is to follow, as far as
        it `takes` them; None leaves them to the method.
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
    ) -> None:
        """`train`, in this method's folder, with its seed and effort; the curve is kept.

        A training is known by all code of this method's `fit` too, since that prepares its data.
        """
        path = self.folder / f"{what}.safetensors"
        recipe = replace(recipe, steps=max(2, round(recipe.steps * self.effort)))
        self.curves[what] = train(
            model, loss, recipe, path=path, seed=self.seed, data=data, groups=groups, uses=uses,
            code=[type(self).fit], label=f"{self.name} {what}",
        )  # fmt: skip
        self.seconds[what] = seconds_spent(path)

    @classmethod
    def any_size(cls) -> bool:
        """Whether its `render` takes a `size`."""
        return "size" in inspect.signature(cls.render).parameters

    def aspects(self) -> dict[str, str | None]:
        """The columns of table 1, read off what has been fitted.

        A method is `arbitrary` if it learns from the corpus; `sync` if a network that was trained
        to tell which sound belongs to which mouth hears for it or has taught it (`judges_sync`);
        a NeRF or a GAN by whether a radiance field or a discriminator (`tells_real`) is among its
        networks.
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
