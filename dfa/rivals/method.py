"""What every method of table 2 is: fitted on recordings, then asked for frames."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from ..face import pose, project
from ..media import SAMPLES_PER_FRAME, frames_of, read_audio
from ..nerf import Field
from ..tracking import Attributes
from ..training import digest, pick_device, seconds_spent, train


@dataclass(frozen=True)
class Recording:
    """A tracked video of T frames with its sound, as every method is given it."""

    name: str
    frames: np.ndarray  # (T, S, S, 3) uint8
    audio: np.ndarray  # (640 T,) 16 kHz
    attributes: Attributes

    def __len__(self) -> int:
        return len(self.frames)

    @classmethod
    def load(cls, name: str, video: str | Path, attributes: Attributes, size: int) -> Recording:
        """The frames of a video that `attributes` tell of, at this size, and their sound."""
        T = len(attributes)
        frames = frames_of(video, attributes.crop, size, T)
        audio = read_audio(video)[: T * SAMPLES_PER_FRAME]
        audio = np.pad(audio, (0, T * SAMPLES_PER_FRAME - len(audio)))
        return cls(name, frames, audio, attributes)

    def part(self, start: int, stop: int | None = None) -> Recording:
        """Frames start .. stop - 1, with their sound and attributes."""
        T = len(self)
        cut = slice(*slice(start, stop).indices(T))
        each = {f.name: getattr(self.attributes, f.name) for f in fields(self.attributes)}
        of_frame = {k: v[cut] for k, v in each.items() if k not in ("F_id", "crop")}
        sound = slice(cut.start * SAMPLES_PER_FRAME, cut.stop * SAMPLES_PER_FRAME)
        attributes = replace(self.attributes, **of_frame)
        return Recording(self.name, self.frames[cut], self.audio[sound], attributes)

    @property
    def digest(self) -> str:
        """The identity of what a training sees of it."""
        a = self.attributes
        return digest(self.frames, self.audio, a.h, a.landmarks, a.points)


def in_image(h: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """Frontal landmarks l (T, 68, 3) in metres under poses h (T, 6) -> the image, (T, 68, 2) in
    units of its side."""
    h, landmarks = (torch.from_numpy(np.asarray(x, np.float32)) for x in (h, landmarks))
    return project(pose(h, landmarks)).numpy()


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
        steps: int,
        lr: float | list[dict],
        inputs: str,
        **options: object,
    ) -> None:
        """`train`, in this method's folder, with its seed and effort; the curve is kept."""
        path = self.folder / f"{what}.safetensors"
        steps = max(2, round(steps * self.effort))
        self.curves[what] = train(
            model, loss, path=path, steps=steps, lr=lr, seed=self.seed, inputs=inputs,
            label=f"{self.name} {what}", **options,
        )  # fmt: skip
        self.seconds[what] = seconds_spent(path)

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
