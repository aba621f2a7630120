"""AD-NeRF (Guo et al., ICCV 2021): a head field and a torso field, driven by DeepSpeech's kind of
features, without control of the eyes.

- Sound: windows of 16 steps of a recogniser's character scores, a small network on each, and
  self-attention over eight of them in time, which smooths (section 3.2).
- The head is a field in the head's own space; the torso one in the space of the mean pose, told
  the pose as a condition (section 3.3). The torso is composited over the head's picture.

Both are the `FastField` that DFA-NeRF has here, in less than half its steps each: what differs is
the method, not the encoding. The recogniser is table 5's, not DeepSpeech. Where the head ends and
the torso begins is read off the tracked jaw, not off a face parser.
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..asr import BLANK, STEPS, SpeechRecogniser
from ..audio import mfcc
from ..disentangle import DIM_E
from ..face import euler_to_matrix
from ..fields import FastField, FastTold, decibels
from ..media import frame_count
from ..nerf import conditions, region_weights
from .method import Method, Recording
from .parts import as_frames, pictures, to_and_fro

AROUND = STEPS // 2 - 1  # frames either way: eight windows of 16 steps, two steps a frame
CHARACTERS = BLANK + 1
STEPS_EACH = 400


class AudioNet(nn.Module):
    """Scores of 15 frames (B, 15 * 2 * 29) -> f_a (B, 16) of the one in the middle.

    Windows go through two dense layers; the authors' four convolutions did worse in the steps that
    there are. Attention begins on the moment itself, as the authors switch smoothing on late.
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
        f = self.windows(windows.flatten(0, 1)).view(len(scores), STEPS // 2, -1)
        return (self.attention(f.mT)[..., None] * f).sum(1)


class HeadField(FastField):
    """The head, in its own space, and what is behind it."""

    def __init__(self, cond: Tensor, size: int) -> None:
        super().__init__(cond, size, AROUND)
        self.lips = AudioNet()

    def frame_of(self, h: Tensor) -> Tensor:
        """The pose (B, 6) whose space the field lives in."""
        return h

    def canonical(self, depth: Tensor, rays: Tensor, h: Tensor, carries: Tensor) -> Tensor:
        h = self.frame_of(h)
        X = depth[..., None] * rays[:, :, None] - h[:, None, None, 3:]
        x = torch.einsum("bmki,bij->bmkj", X, euler_to_matrix(h[:, :3]))
        return (x - self.lo) * 2 / (self.hi - self.lo) - 1

    def layer(
        self, cond: Tensor, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Conditions (B, ...) -> picture (B, 3, S, S), opacity (B, 1, S, S) of the field before
        its background, and composited colours (B, 3, S/2, S/2) before the convolutions."""
        told: FastTold = self.tell(cond)
        f = self.composite(told, self.bounds(told, int(self.size) // 2), generator=generator)
        opacity = F.interpolate(f[:, -1:], scale_factor=2, mode="bilinear", align_corners=False)
        return self.decode(f, told), opacity, f[:, :3]


class TorsoField(HeadField):
    """The torso, in the space of the mean pose: nothing but its condition tells it to move."""

    def frame_of(self, h: Tensor) -> Tensor:
        return self.h_mean.expand_as(h)


def torso_mask(points: np.ndarray, size: int) -> np.ndarray:
    """Where the torso is: below the jaw (T, 68, 2), and on either side below lines from its corners
    to the height of the chin at a head's width from them. (T, size, size) bool."""
    out = np.zeros((len(points), size, size), np.uint8)
    for mask, p in zip(out, points, strict=True):
        width, down = p[16, 0] - p[0, 0], p[8, 1] - p[33, 1]
        sides = [p[3] + [-width, 0.6 * down], p[13] + [width, 0.6 * down]]
        edges = [[-1, sides[0][1]], sides[0], *p[3:14], sides[1], [2, sides[1][1]], [2, 2], [-1, 2]]
        cv2.fillPoly(mask, [np.round(np.array(edges) * size * 8).astype(np.int32)], 1, shift=3)
    return out.astype(bool)


class ADNeRF(Method):
    """AD-NeRF on a recogniser of speech that is given."""

    name, learns_from, takes = "AD-NeRF", "subject", ("pose",)

    def __init__(self, *args, recogniser: SpeechRecogniser, **options) -> None:
        super().__init__(*args, **options)
        self.recogniser = recogniser.eval()

    @torch.inference_mode()
    def heard(self, audio: np.ndarray) -> Tensor:
        """The recogniser's scores, two steps a frame: (T, 58)."""
        sound = torch.from_numpy(mfcc(audio, frame_count(audio)))
        return self.recogniser([sound])[0].reshape(-1, 2 * CHARACTERS).clone()

    def told(self, audio: np.ndarray, h: np.ndarray) -> tuple[Tensor, Tensor]:
        """What the two fields are told of each frame: the torso's the pose in place of eyes too."""
        h, heard = torch.from_numpy(h), self.heard(audio)
        unit = (h - self.home[0]) / self.home[1]
        eyes = F.pad(unit.clamp(-4, 4), (0, DIM_E - 6))
        return tuple(conditions(h, heard, e, AROUND) for e in (torch.zeros_like(eyes), eyes))

    def fit(self, corpus: list[Recording], subject: Recording) -> None:
        self.subject = subject
        points, size = torch.from_numpy(subject.attributes.points), subject.frames.shape[1]
        h = torch.from_numpy(subject.attributes.h)
        self.home = h.mean(0), h.std(0).clamp_min(1e-3)
        cond = self.told(subject.audio, subject.attributes.h)
        torch.manual_seed(self.seed)
        self.head = HeadField(cond[0], size).to(self.device)
        self.torso = TorsoField(cond[1], size).to(self.device)
        torso = torch.from_numpy(torso_mask(subject.attributes.points, size))[:, None]

        def batch(g: torch.Generator) -> tuple[Tensor, ...]:
            i = torch.randint(len(subject), (FastField.frames_per_step,), generator=g)
            weight = region_weights(points[i].float(), size)
            parts = cond[0][i], cond[1][i], pictures(subject.frames[i.numpy()]), weight, torso[i]
            return tuple(x.to(self.device) for x in parts)

        def head_loss(g: torch.Generator) -> tuple[Tensor, dict[str, float]]:
            told, _, frames, weight, torso = batch(g)
            image, _, coarse = self.head.layer(told, g)
            mine = (~torso).float()
            error = mine * (image - frames) ** 2
            coarse = F.avg_pool2d(mine, 2) * (coarse - F.avg_pool2d(frames, 2)) ** 2
            return (weight * error).mean() + 0.3 * coarse.mean(), {"psnr": decibels(error)}

        def torso_loss(g: torch.Generator) -> tuple[Tensor, dict[str, float]]:
            told_head, told, frames, weight, torso = batch(g)
            with torch.no_grad():
                head = self.head.image(told_head, size)
            image, opacity, coarse = self.torso.layer(told, g)
            error = (torch.lerp(head, image, opacity) - frames) ** 2
            coarse = F.avg_pool2d(torso.float(), 2) * (coarse - F.avg_pool2d(frames, 2)) ** 2
            return (weight * error).mean() + 0.3 * coarse.mean(), {"psnr": decibels(error)}

        for what, field, loss in (
            ("head", self.head, head_loss),
            ("torso", self.torso, torso_loss),
        ):
            self.learn(
                what, field, loss, STEPS_EACH, field.parameter_groups(),
                inputs=subject.digest, clip=None, warmup=field.warmup,
            )  # fmt: skip

    @torch.inference_mode()
    def render(
        self,
        audio: np.ndarray,
        pose: Recording | None = None,
        eyes: Recording | None = None,
        size: int | None = None,
    ) -> Iterator[np.ndarray]:
        """Poses that nobody gives are those of the training part, in order. Any `size`."""
        size = size or self.subject.frames.shape[1]
        told = self.told(audio, to_and_fro((pose or self.subject).attributes.h, frame_count(audio)))
        for head, torso in zip(*(c.to(self.device).split(8) for c in told), strict=True):
            over, opacity, _ = self.torso.layer(torso)
            if size != over.shape[-1]:
                over = self.torso.image(torso, size)
                opacity = F.interpolate(opacity, (size, size), mode="bilinear", align_corners=False)
            yield from as_frames(torch.lerp(self.head.image(head, size), over, opacity))
