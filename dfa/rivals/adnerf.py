"""AD-NeRF (Guo et al., ICCV 2021): a head field and a torso field, driven by speech-recogniser
features, without control of the eyes. Sections are those of that paper.

- Audio: windows of 16 steps of a recogniser's character scores. A small network encodes each
  window; self-attention over eight windows in time smooths the result (section 3.2).
- The head is a field in the head's own space. The torso is a field in the space of the mean pose;
  the pose is one of its conditions (section 3.3). The torso is composited over the head's picture.

Differences from the paper: both fields are the `FastField` that DFA-NeRF uses here, each trained
for less than half as many steps; so the methods are compared, not their encodings. The recogniser
is that of table 5, not DeepSpeech; it learnt from more speech than E_a, which favours AD-NeRF. The
border between head and torso comes from the tracked jaw, not from a face parser.
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..media import frame_count, to_and_fro
from ..method.audio import mfcc
from ..method.disentangle import DIM_E
from ..method.fast_field import FastField
from ..method.field import conditions
from ..method.field_training import region_weights
from ..method.person import Person
from ..recipe import Recipe, digest
from ..recording import Recording
from .method import Method
from .parts import as_frames, pictures
from .recogniser import BLANK, STEPS, SpeechRecogniser

AROUND = STEPS // 2 - 1  # frames before and after a frame: eight windows of 16 steps, two per frame
CHARACTERS = BLANK + 1  # scores per step of the recogniser
# The learning rates are those of `FastField`. A step of the torso takes as long as three of the
# head, whose pictures it needs.
HEAD, TORSO = Recipe(400, clip=None), Recipe(200, clip=None)


class AudioNet(nn.Module):
    """Scores of 15 frames (B, 15 * 2 * 29) -> the audio feature f_a (B, 16) of the middle frame.

    Section 3.2 of AD-NeRF. Each window goes through two dense layers: with so few training steps
    they were better than the authors' four convolutions. The attention initially selects the
    middle window, because the authors too switch smoothing on late in the training.
    """

    def __init__(self, dim: int = 16) -> None:
        super().__init__()
        self.windows = nn.Sequential(
            nn.Flatten(), nn.Dropout(0.3), nn.Linear(STEPS * CHARACTERS, 32), nn.ReLU(),
            nn.Linear(32, dim),
        )  # fmt: skip
        widths, leak = (dim, 16, 8, 4, 2, 1), nn.LeakyReLU(0.02)
        last = nn.Linear(STEPS // 2, STEPS // 2)
        with torch.no_grad():
            last.bias.copy_(4.0 * (torch.arange(STEPS // 2) == STEPS // 4 - 1))
        self.attention = nn.Sequential(
            *(layer for a, b in zip(widths[:-1], widths[1:], strict=True)
              for layer in (nn.Conv1d(a, b, 3, 1, 1), leak)),
            nn.Flatten(), last, nn.Softmax(1),
        )  # fmt: skip

    def forward(self, scores: Tensor) -> Tensor:
        steps = scores.view(len(scores), -1, CHARACTERS)  # (B, 30, 29)
        windows = steps.unfold(1, STEPS, 2)  # (B, 8, 29, 16)
        f = self.windows(windows.flatten(0, 1)).view(len(scores), STEPS // 2, -1)  # (B, 8, 16)
        return (self.attention(f.mT)[..., None] * f).sum(1)  # (B, 16)


class HeadField(FastField):
    """The head in its own space, and the background."""

    def __init__(self, cond: Tensor, size: int) -> None:
        super().__init__(cond, size, AROUND)
        self.lips = AudioNet()

    def bodies(self, h: Tensor, torso: Tensor) -> tuple[Tensor, ...]:
        return (h,)


class TorsoField(HeadField):
    """The torso in the space of the mean pose: only its conditions make it move."""

    def __init__(self, cond: Tensor, size: int) -> None:
        super().__init__(cond, size)
        self.of_head.fill_(1)  # the pose is a condition of all its colours

    def bodies(self, h: Tensor, torso: Tensor) -> tuple[Tensor, ...]:
        return (self.h_mean.expand_as(h),)

    def shape_of(self, person: Person) -> Tensor:
        """Shoulders without a head."""
        return self._shoulders()


def torso_mask(points: np.ndarray, size: int) -> np.ndarray:
    """Masks of the torso, (T, size, size) bool, from points (T, 68, 2) in units of the side.

    The torso is below the jaw. Beside the jaw, it is below a line from each corner of the jaw that
    falls to about the height of the chin at a head's width.
    """
    out = np.zeros((len(points), size, size), np.uint8)
    for mask, p in zip(out, points, strict=True):
        width, height = p[16, 0] - p[0, 0], p[8, 1] - p[33, 1]  # of the head; nose to chin
        sides = [p[3] + [-width, 0.6 * height], p[13] + [width, 0.6 * height]]
        edges = [[-1, sides[0][1]], sides[0], *p[3:14], sides[1], [2, sides[1][1]], [2, 2], [-1, 2]]
        cv2.fillPoly(mask, [np.round(np.array(edges) * size * 8).astype(np.int32)], 1, shift=3)
    return out.astype(bool)


class ADNeRF(Method):
    """AD-NeRF; `recogniser` is the trained speech recogniser that gives the audio features."""

    name, learns_from, takes = "AD-NeRF", "subject", ("pose",)

    def __init__(self, *args, recogniser: SpeechRecogniser, **options) -> None:
        super().__init__(*args, **options)
        self.recogniser = recogniser.eval()

    @torch.inference_mode()
    def audio_scores(self, audio: np.ndarray) -> Tensor:
        """The recogniser's scores of audio (640 T,), two steps per frame: (T, 58)."""
        sound = torch.from_numpy(mfcc(audio, frame_count(audio)))
        return self.recogniser([sound])[0].reshape(-1, 2 * CHARACTERS).clone()

    def field_conditions(self, audio: np.ndarray, h: np.ndarray) -> tuple[Tensor, Tensor]:
        """The conditions (T, D) of the head field and of the torso field, for poses h (T, 6).

        A field has 8 inputs for the eyes f_e. The head field gets zeros there, because AD-NeRF does
        not control the eyes. The torso field gets the normalised pose.
        """
        h, scores = torch.from_numpy(h), self.audio_scores(audio)
        unit = (h - self.mean_std[0]) / self.mean_std[1]
        pose = F.pad(unit.clamp(-4, 4), (0, DIM_E - 6))  # (T, 8)
        return tuple(conditions(h, scores, e, AROUND) for e in (torch.zeros_like(pose), pose))

    def fit(self, corpus: list[Recording], subject: Recording) -> None:
        self.subject = subject
        points, size = torch.from_numpy(subject.attributes.points), subject.frames.shape[1]
        h = torch.from_numpy(subject.attributes.h)
        self.mean_std = h.mean(0), h.std(0).clamp_min(1e-3)
        cond = self.field_conditions(subject.audio, subject.attributes.h)
        torch.manual_seed(self.seed)
        self.head = HeadField(cond[0], size).to(self.device)
        self.torso = TorsoField(cond[1], size).to(self.device)
        person = Person.of(subject)
        for field in (self.head, self.torso):
            field.begin(person)
        torso = torch.from_numpy(torso_mask(subject.attributes.points, size))[:, None]

        def batch(g: torch.Generator) -> tuple[Tensor, ...]:
            i = torch.randint(len(subject), (FastField.frames_per_step,), generator=g)
            weight = region_weights(points[i].float(), size)
            frames, masks = pictures(subject.frames[i.numpy()]), person.shares(i, size)
            parts = cond[0][i], cond[1][i], frames, weight, masks, torso[i]
            return tuple(x.to(self.device) for x in parts)

        def head_loss(g: torch.Generator) -> tuple[Tensor, dict[str, float]]:
            head_cond, _, frames, weight, masks, torso = batch(g)
            return self.head.loss(head_cond, frames, weight * ~torso, g, masks)

        def torso_loss(g: torch.Generator) -> tuple[Tensor, dict[str, float]]:
            head_cond, torso_cond, frames, weight, masks, torso = batch(g)
            with torch.no_grad():
                head = self.head.image(head_cond, size)
            return self.torso.loss(torso_cond, frames, weight, g, masks * torso, head)

        data = digest(subject.digest, person.masks, *cond)
        for what, field, loss, recipe in (
            ("head", self.head, head_loss, HEAD),
            ("torso", self.torso, torso_loss, TORSO),
        ):
            uses = [self.head] if field is self.torso else []
            groups = field.parameter_groups()
            self.learn(what, field, loss, recipe, data, groups, uses, precision=None)

    @torch.inference_mode()
    def render(
        self,
        audio: np.ndarray,
        pose: Recording | None = None,
        eyes: Recording | None = None,
        size: int | None = None,
    ) -> Iterator[np.ndarray]:
        """As `Method.render`, with frames of any `size`.

        Without `pose` the head moves as in the training recording, forwards and backwards.
        """
        size = size or self.subject.frames.shape[1]
        h = to_and_fro((pose or self.subject).attributes.h, frame_count(audio))
        cond = self.field_conditions(audio, h)
        for head, torso in zip(*(c.to(self.device).split(8) for c in cond), strict=True):
            yield from as_frames(self.torso.image(torso, size, self.head.image(head, size)))
