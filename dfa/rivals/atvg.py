"""ATVG (Chen et al., CVPR 2019): audio -> landmarks -> a picture of one person with a fixed head.
Sections and equations are those of that paper.

- AT-net: a convolutional network encodes windows of MFCC. An LSTM reads its output and the example
  picture's landmarks, and returns principal components of landmarks (section 3.1).
- VG-net: a convolutional recurrent network. Its inputs are the example picture and the difference
  between the features of the target landmarks and those of the example's landmarks. Its outputs
  are a colour image and an attention map: out = att · colour + (1 - att) · example (section 3.2,
  eq. 6).
- Losses: L1 per pixel, weighted by the attention itself (eq. 8). A discriminator classifies real
  and generated frames, and regresses the landmarks of a frame (eq. 9 and 10).

As in the paper, the network works on a face crop aligned by eyes and nose (here half a frame wide);
head and background are those of the example. Landmarks are frontal and without identity (`l` of
eq. 1 of DFA-NeRF), so the example's proportions are added to the AT-net's landmarks.

Differences from the paper: the networks are smaller and learn from twelve people only. To
compensate, landmarks are drawn as lines for a convolutional network, not fed to a dense layer; of
several training examples, the one whose head pose is most similar to the target's is used; eyes
and mouth have a larger weight; colours and left/right are augmented. The colour image has a loss of
its own too: otherwise the attention closes while the colour is still poor, and never opens again.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.decomposition import PCA
from torch import Tensor, nn

from ..datasets.voices import variants
from ..media import frame_count
from ..method.audio import N_MFCC, PER_FRAME, mfcc
from ..method.field_training import region_weights
from ..recipe import Recipe, digest
from ..recording import Recording
from .crops import Faces, canonical, inner_mask, paste
from .method import Method
from .parts import (
    PatchDiscriminator,
    conv,
    draw_integer,
    draw_landmarks,
    least_squares,
    windows_around,
    with_frozen_weights,
)

COMPONENTS = 16  # principal components of the landmarks
AROUND = 3  # frames before and after a frame: windows of 28 MFCC vectors, as in the paper
DISTURBED = 4  # augmented versions of each person's audio, in addition to the original
PEOPLE, FRAMES = 2, 2  # people per step of the VG-net, and consecutive frames of each
NEAR = 24  # candidates for each training example
EDGE = 4.0  # factor of the drawn lines: they cover few pixels
WIDTH = 16  # channels of the VG-net at half the crop's resolution
REGION = 60.0  # weight of eyes and mouth in the pixel losses
ADVERSARIAL, REGRESSION = 0.003, 0.003  # weights of these losses; the pixel losses have 1
LANDMARKS = Recipe(350, lr=2e-3, weight_decay=0.02)  # of the AT-net
PICTURES = Recipe(2800, lr=2e-3, clip=None)  # of the VG-net
JUDGE_LR = 4e-4  # learning rate of the discriminator


class ATNet(nn.Module):
    """MFCC windows (B, T, 28, 20) and the example's components (B, 16) -> components (B, T, 16).

    Section 3.1 of ATVG.
    """

    def __init__(self, width: int = 96) -> None:
        super().__init__()
        self.sound = nn.Sequential(
            nn.Conv1d(N_MFCC, width, 5, 2, 2), nn.ReLU(),
            nn.Conv1d(width, width, 5, 2, 2), nn.ReLU(),
            nn.Flatten(), nn.Dropout(0.3), nn.Linear(width * 7, width), nn.ReLU(),
        )  # fmt: skip
        self.example = nn.Sequential(nn.Linear(COMPONENTS, 32), nn.ReLU())
        self.lstm = nn.LSTM(width + 32, width, batch_first=True)
        self.out = nn.Linear(width, COMPONENTS)

    def forward(self, windows: Tensor, example: Tensor) -> Tensor:
        audio = self.sound(windows.flatten(0, 1).mT).unflatten(0, windows.shape[:2])  # (B, T, 96)
        landmarks = self.example(example)[:, None].expand(-1, audio.shape[1], -1)  # (B, T, 32)
        return self.out(self.lstm(torch.cat([audio, landmarks], -1))[0])


class ConvGRU(nn.Module):
    """A GRU whose gates are convolutions (Ballas et al. 2016)."""

    def __init__(self, c_in: int, c: int) -> None:
        super().__init__()
        self.gates = nn.Conv2d(c_in + c, 2 * c, 3, padding=1)
        self.candidate = nn.Conv2d(c_in + c, c, 3, padding=1)

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        z, r = self.gates(torch.cat([x, h], 1)).sigmoid().chunk(2, 1)
        return torch.lerp(h, self.candidate(torch.cat([x, r * h], 1)).tanh(), z)


class VGNet(nn.Module):
    """Example picture and landmarks -> colour images and attention (section 3.2 of ATVG).

    Convolutions work at half the crop's resolution or less, the recurrent network at a quarter.
    """

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        w = width
        self.near, self.far = conv(12, w), nn.Sequential(conv(w, 2 * w, 2), conv(2 * w, 2 * w))
        self.lines = nn.Sequential(conv(12, w), conv(w, 2 * w, 2), conv(2 * w, 2 * w))
        self.deep = nn.Sequential(conv(4 * w, 2 * w, 2), conv(2 * w, 2 * w))
        self.gru = ConvGRU(6 * w, 2 * w)
        self.up = nn.Sequential(conv(3 * w, 2 * w), conv(2 * w, w))
        self.out = nn.Conv2d(w, 16, 3, padding=1)

    def forward(self, example: Tensor, known: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
        """Example (B, 3, s, s), its lines (B, 3, s, s) and the target lines (B, T, 3, s, s) ->
        colour (B, T, 3, s, s) and attention (B, T, 1, s, s), both in 0..1."""
        B, T = wanted.shape[:2]
        fold = lambda x: F.pixel_unshuffle(x, 2).contiguous(  # noqa: E731
            memory_format=torch.channels_last)  # fmt: skip
        near = self.near(fold(example))  # (B, w, s/2, s/2)
        far = self.far(near)  # (B, 2 w, s/4, s/4)
        lines = self.lines(EDGE * fold(torch.cat([known[:, None], wanted], 1).flatten(0, 1)))
        lines = lines.unflatten(0, (B, T + 1))
        difference = (lines[:, 1:] - lines[:, :1]).flatten(0, 1)  # (B T, 2 w, s/4, s/4)
        both = torch.cat([far.repeat_interleave(T, 0), difference], 1)
        deep = F.interpolate(self.deep(both), far.shape[2:], mode="nearest")
        features = torch.cat([both, deep], 1).unflatten(0, (B, T))  # (B, T, 6 w, s/4, s/4)
        h, states = torch.zeros_like(far), []
        for x in features.unbind(1):
            h = self.gru(x, h)
            states.append(h)
        y = F.interpolate(torch.stack(states, 1).flatten(0, 1), scale_factor=2, mode="nearest")
        y = self.up(torch.cat([y, near.repeat_interleave(T, 0)], 1))
        y = F.pixel_shuffle(self.out(y), 2).sigmoid().unflatten(0, (B, T))
        return y[:, :, :3], y[:, :, 3:]


def blend(colour: Tensor, attention: Tensor, example: Tensor) -> Tensor:
    """Eq. 6 of ATVG: attention 0 keeps the example, 1 replaces it by the colour.

    colour, example (..., 3, s, s); attention (..., 1, s, s) in 0..1. Returns (..., 3, s, s).
    """
    return torch.lerp(example, colour, attention)


class Judge(PatchDiscriminator):
    """The discriminator: pictures (B, 3, s, s) -> scores of patches (B, 1, s/8, s/8), and the
    landmark components (B, 16) that it regresses (eq. 9 and 10 of ATVG)."""

    def __init__(self, width: int = 16) -> None:
        super().__init__(3, width)
        self.regress = nn.Sequential(
            nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(64 * width, COMPONENTS)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.layers[:-1](x)
        return self.layers[-1](features), self.regress(features)


class ATVG(Method):
    """ATVG: the head stays as in the reference frame, only the face moves."""

    name, learns_from, takes = "ATVG", "corpus", ("reference",)
    face_model, no_eyes = "2D landmarks", True

    def fit(self, corpus: list[Recording], subject: Recording) -> None:
        self.subject = subject.part(0, 1)
        landmarks = np.concatenate([canonical(r.attributes.landmarks) for r in corpus])
        self.pca = PCA(COMPONENTS, random_state=0).fit(landmarks.reshape(len(landmarks), -1))
        self.spread = np.sqrt(self.pca.explained_variance_)
        # errors are weighted by how much a component moves the landmarks
        self.weight = torch.from_numpy(self.spread / self.spread[0]).float().to(self.device)
        torch.manual_seed(self.seed)
        self.at = ATNet().to(self.device)
        self.vg = nn.ModuleDict({"net": VGNet(), "judge": Judge()}).to(self.device)
        data = digest([r.digest for r in corpus])
        self._fit_landmarks(corpus, data)
        self._fit_pictures(corpus, data)

    def components(self, landmarks: np.ndarray) -> np.ndarray:
        """Landmarks (T, 68, 3) -> principal components in units of their spread, (T, 16)."""
        flat = canonical(landmarks).reshape(len(landmarks), -1)
        return (self.pca.transform(flat) / self.spread).astype(np.float32)

    def points(self, components: np.ndarray) -> np.ndarray:
        """Components (T, 16) -> points (T, 68, 2) in units of the crop's side, mean proportions."""
        flat = self.pca.inverse_transform(components * self.spread)
        return flat.reshape(len(flat), 68, 2).astype(np.float32)

    def lines(self, points: np.ndarray, faces: Faces, example: int) -> Tensor:
        """Draw points (T, 68, 2) as lines (T, 3, s, s) in 0..1, with the example's proportions.

        The points have the mean face's proportions; the first ones are those of frame `example` of
        `faces`.
        """
        points = points - points[:1] + faces.points[example]
        return torch.from_numpy(draw_landmarks(points, faces.side)).float() / 255

    def error(self, made: Tensor, real: Tensor) -> Tensor:
        """Mean squared difference of components (..., 16), weighted by how far they move points."""
        return (self.weight * (made - real)).square().sum(-1).mean()

    def _fit_landmarks(self, corpus: list[Recording], data: str) -> None:
        tracks, rng = [], np.random.default_rng(self.seed)
        for r in corpus:
            p = self.components(r.attributes.landmarks)
            tracks += [(mfcc(r.audio, len(r)), p), *variants(r.audio, p, DISTURBED, rng)]
        tracks = [(windows(sound), torch.from_numpy(p)) for sound, p in tracks]
        n, batch = min(50, *(len(p) for _, p in tracks)), 12

        def loss(g: torch.Generator) -> tuple[Tensor, dict[str, float]]:
            clips = []
            for _ in range(batch):
                sound, p = tracks[draw_integer(len(tracks), g)]
                t, e = draw_integer(len(p) - n + 1, g), draw_integer(len(p), g)
                clips.append((sound[t : t + n], p[e], p[t : t + n]))
            sound, example, wanted = (torch.stack(x).to(self.device)
                                      for x in zip(*clips, strict=True))  # fmt: skip
            return self.error(self.at(sound, example), wanted), {}

        self.learn("landmarks", self.at, loss, LANDMARKS, data)

    def _fit_pictures(self, corpus: list[Recording], data: str) -> None:
        people = [(Faces(r), self.components(r.attributes.landmarks)) for r in corpus]

        def clip(g: torch.Generator) -> tuple[Tensor, ...]:
            """An example and FRAMES consecutive frames of one person.

            Returns crops (1 + FRAMES, 3, s, s), their lines, the frames' components (FRAMES, 16)
            and pixel weights (FRAMES, 1, s, s).
            """
            faces, p = people[draw_integer(len(people), g)]
            t = draw_integer(len(faces) - FRAMES + 1, g)
            e = faces.alike(t, torch.randint(len(faces), (NEAR,), generator=g).numpy())
            times = [e, *range(t, t + FRAMES)]
            x, lines = faces.crops(times), self.lines(self.points(p[times]), faces, e)
            weight = region_weights(torch.from_numpy(faces.points[times[1:]]), faces.side, REGION)
            if draw_integer(2, g):
                x, lines, weight = x.flip(-1), lines.flip(-1), weight.flip(-1)
            x = (x * (0.7 + 0.6 * torch.rand(1, 3, 1, 1, generator=g))).clamp(0, 1)
            return x, lines, torch.from_numpy(p[times[1:]]), weight

        def loss(g: torch.Generator) -> tuple[Tensor, dict[str, float]]:
            clips = zip(*(clip(g) for _ in range(PEOPLE)), strict=True)
            x, lines, p, weight = (torch.stack(y).to(self.device) for y in clips)
            colour, attention = self.vg["net"](x[:, 0], lines[:, 0], lines[:, 1:])
            made = blend(colour, attention, x[:, :1])
            dynamic = weight * (attention.detach() + 0.5)
            pixel = (dynamic * (made - x[:, 1:]).abs()).mean()
            colour_loss = (weight * (colour - x[:, 1:]).abs()).mean()
            real, fake, judge = x[:, 1:].flatten(0, 1), made.flatten(0, 1), self.vg["judge"]
            (real_score, real_p), (fake_score, _) = judge(real), judge(fake.detach())
            generator_score, fake_p = with_frozen_weights(judge, fake)
            generator, discriminator = least_squares(real_score, fake_score, generator_score)
            p = p.flatten(0, 1)
            regression = self.error(fake_p, p)
            total = (
                pixel
                + colour_loss
                + ADVERSARIAL * generator
                + REGRESSION * regression
                + discriminator
                + self.error(real_p, p)
            )
            parts = dict(
                pixel=pixel, colour=colour_loss, generator=generator, discriminator=discriminator,
                regression=regression, attention=attention.mean(),
            )  # fmt: skip
            return total, {k: v.item() for k, v in parts.items()}

        groups = [{"params": self.vg["net"].parameters(), "lr": PICTURES.lr},
                  {"params": self.vg["judge"].parameters(), "lr": JUDGE_LR}]  # fmt: skip
        self.learn("pictures", self.vg, loss, PICTURES, data, groups)

    @torch.inference_mode()
    def render(
        self, audio: np.ndarray, pose: Recording | None = None, eyes: Recording | None = None
    ) -> Iterator[np.ndarray]:
        """As `Method.render`; `pose` and `eyes` are ignored."""
        faces, example = Faces(self.subject), self.components(self.subject.attributes.landmarks)
        sound = windows(mfcc(audio, frame_count(audio)))[None].to(self.device)
        p = self.at(sound, torch.from_numpy(example).to(self.device))[0].cpu().numpy()  # (T, 16)
        crop = faces.crops([0]).to(self.device)
        frame, mask, matrix = self.subject.frames[0], inner_mask(faces.side), faces.matrices[0]
        for start in range(0, len(p), 100):
            points = self.points(np.concatenate([example, p[start : start + 100]]))
            lines = self.lines(points, faces, 0)[None].to(self.device)
            colour, attention = self.vg["net"](crop, lines[:, 0], lines[:, 1:])
            for image, opacity in zip(colour[0], attention[0, :, 0].cpu(), strict=True):
                yield paste(frame, image, mask * opacity, matrix)  # eq. 6, on the whole frame


def windows(sound: np.ndarray) -> Tensor:
    """MFCC (4 T, 20) -> the window around each frame, (T, 28, 20)."""
    frames = torch.from_numpy(sound).reshape(len(sound) // PER_FRAME, -1)
    return windows_around(frames, AROUND, AROUND).reshape(len(frames), -1, N_MFCC)
