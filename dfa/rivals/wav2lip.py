"""Wav2Lip (Prajwal et al., ACM MM 2020): replaces the mouth in a video of any person.
Sections and equations are those of that paper.

- A lip-sync expert (`LipExpert`) is trained first, on real pairs: five colour frames of the lower
  face and the 0.2 s of mel spectrogram at the same time. The cosine of its non-negative embeddings
  is the probability that both belong together. Then its weights are frozen (section 3.2).
- The generator (`LipGenerator`) has two pictures as input: the face with its lower half masked,
  which shows the pose, and a reference, another frame of the same person. It is a convolutional
  network with skip connections; the audio embedding enters at the lowest resolution (section 3.3).
- The losses are L1, a discriminator of the lower half and, late in the training, the expert's loss
  on five frames that were generated one by one (section 3.4).

Differences from the paper: the networks are smaller and learn from twelve people instead of 29
hours of LRS2. To compensate, faces are aligned by brows, eyes and nose; colours, left/right and
voices are augmented; the generator's audio encoder starts with the expert's weights; the audio
enters at three resolutions; the generator predicts a flow and a colour to blend over the reference,
not all pixels anew; the mouth has a larger weight in L1. In training the reference is a silent
frame, whose mouth is mostly closed, with a head pose similar to the target's. The discriminator
scores patches.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..media import SAMPLES_PER_FRAME, frame_count, to_and_fro
from ..method.field_training import region_weights
from ..method.sync import contrastive_loss
from ..recipe import Recipe, digest
from ..recording import Recording
from .crops import Faces, Overpaint, paste, soft
from .method import Method
from .parts import (
    MEL_PER_FRAME,
    N_MEL,
    PatchDiscriminator,
    adversarial,
    conv,
    draw_integer,
    mel,
    windows_around,
)

FRAMES = 5  # frames per window of the expert
WINDOW = FRAMES * MEL_PER_FRAME  # mel vectors per window: 20, 0.2 s
CLIP, CLIPS = 16, 10  # windows per clip, and clips per step, of the expert's training
BATCH, NEAR = 4, 4  # frames per step of the generator, and candidates for each reference
EXPERT = Recipe(240, lr=3e-3)
GENERATOR = Recipe(1300, lr=3e-3, clip=None)
LATE = Recipe(900, lr=5e-4, clip=None)  # the generator with the expert's loss
JUDGE_LR = 4e-4  # learning rate of the discriminator
SYNC, GAN = 0.003, 0.003  # weights of the expert's and the adversarial loss; L1 has 1
MOUTH, ELSEWHERE = 100.0, 0.1  # weights in L1 of the mouth and of the part that is not masked
SILENT = 0.15  # fraction of the frames, the quietest, that counts as silent


def mouth_rows(side: int) -> tuple[int, int]:
    """First and last row (exclusive) of the masked lower half of a crop with `side` pixels."""
    return round(side * 33 / 64), round(side * 62 / 64)


def mouth_mask(side: int) -> Tensor:
    """The mask (side, side) of a crop: 1 in the lower half of the face, else 0."""
    mask = torch.zeros(side, side)
    mask[slice(*mouth_rows(side)), side // 16 : -side // 16] = 1
    return mask


def mel_windows(audio: np.ndarray, n_frames: int) -> Tensor:
    """Mel windows of the five frames around each frame of audio (640 T,): (T, 20, 80)."""
    vectors = torch.from_numpy(mel(audio, n_frames))
    before = WINDOW // 2
    return windows_around(vectors, before, WINDOW - 1 - before)[MEL_PER_FRAME // 2 :: MEL_PER_FRAME]


def silent_frames(audio: np.ndarray, n_frames: int) -> np.ndarray:
    """The numbers (n,) of the frames around which audio (640 T,) is quietest."""
    power = np.square(audio[: n_frames * SAMPLES_PER_FRAME]).reshape(n_frames, -1).mean(1)
    power = np.convolve(power, np.ones(FRAMES), "same")
    return np.flatnonzero(power <= np.quantile(power, SILENT))


def disturbed(sound: Tensor, g: torch.Generator) -> Tensor:
    """Augment the mel windows (T, 20, 80) of a clip: they imitate another voice and microphone.

    Shift of the bands, spectral tilt, volume and noise. Returns (T, 20, 80).
    """
    shift = int(torch.randint(-4, 5, (), generator=g))  # a shorter or longer vocal tract
    tilt = torch.linspace(-0.5, 0.5, N_MEL) * torch.randn((), generator=g) * 0.5
    sound = sound.roll(shift, -1) + tilt + 0.2 * torch.randn((), generator=g)
    return sound + 0.2 * torch.rand((), generator=g) * torch.randn(sound.shape, generator=g)


def layer(c_in: int, c_out: int, stride: int | tuple[int, int] = 1) -> nn.Sequential:
    """Convolution, batch normalisation, ReLU.

    With a normalisation of each window by itself, silence would look like noise.
    """
    return nn.Sequential(
        nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False), nn.BatchNorm2d(c_out), nn.ReLU()
    )


def audio_encoder(dim: int, width: int = 16) -> nn.Sequential:
    """A network: mel windows (B, 20, 80) -> embeddings (B, dim)."""
    return nn.Sequential(
        nn.Unflatten(1, (1, WINDOW)),
        layer(1, width, (1, 2)), layer(width, 2 * width, 2), layer(2 * width, 4 * width, 2),
        layer(4 * width, 4 * width, (2, 2)),
        nn.Flatten(), nn.Dropout(0.2), nn.Linear(4 * width * 3 * N_MEL // 16, dim),
    )  # fmt: skip


class LipExpert(nn.Module):
    """The lip-sync expert (section 3.2 of Wav2Lip): embeddings of lips and of audio."""

    judges_sync = True
    HEIGHT, WIDTH = 28, 48

    def __init__(self, width: int = 16, dim: int = 128) -> None:
        super().__init__()
        w = width
        self.lip_tower = nn.Sequential(
            layer(3 * FRAMES, w, 2), layer(w, 2 * w, 2), layer(2 * w, 3 * w, 2), nn.Flatten(),
            nn.Dropout(0.2), nn.Linear(3 * w * 4 * 6, dim),
        )  # fmt: skip
        self.audio_tower = audio_encoder(dim)

    def lips(self, crops: Tensor) -> Tensor:
        """Consecutive face crops (B, T, 3, s, s) -> (B, T - 4, dim), one for each five frames."""
        B, T, _, side, _ = crops.shape
        half = crops[..., slice(*mouth_rows(side)), side // 8 : -side // 8].flatten(0, 1)
        half = F.adaptive_avg_pool2d(half, (self.HEIGHT, self.WIDTH)).unflatten(0, (B, T))
        five = half.unfold(1, FRAMES, 1).movedim(-1, 2).flatten(0, 1)  # (B (T - 4), 5, 3, 28, 48)
        five = five - five.mean((1, 2, 3, 4), keepdim=True)
        five = five / five.std((1, 2, 3, 4), keepdim=True).clamp_min(0.02)
        return self._unit(self.lip_tower(five.flatten(1, 2))).unflatten(0, (B, T - FRAMES + 1))

    def sound(self, windows: Tensor) -> Tensor:
        """Mel windows (..., 20, 80) -> (..., dim)."""
        return self._unit(self.audio_tower(windows.flatten(0, -3))).unflatten(0, windows.shape[:-2])

    def _unit(self, x: Tensor) -> Tensor:
        return F.normalize(F.relu(x), dim=-1, eps=1e-4)


def sync_loss(f_v: Tensor, f_a: Tensor) -> Tensor:
    """Eq. 5 of Wav2Lip: the negative log probability that lips and audio belong together.

    f_v, f_a: (..., dim) unit vectors. Returns the mean, in nats.
    """
    return -(f_v * f_a).sum(-1).clamp(1e-3, 1).log().mean()


class LipGenerator(nn.Module):
    """The generator (section 3.3 of Wav2Lip): masked face, reference and audio -> the face."""

    MAPS = ((4, 32), (8, 32), (16, 16))  # sides and channels of the audio's feature maps

    def __init__(self, width: int = 16, dim: int = 128) -> None:
        super().__init__()
        widths = [width, 2 * width, 4 * width, 4 * width]
        steps = list(zip(widths[:-1], widths[1:], strict=True))
        self.audio_tower = audio_encoder(dim)
        self.maps = nn.ModuleList(
            nn.Sequential(nn.Linear(dim, c * s * s), nn.Unflatten(1, (c, s, s)))
            for s, c in self.MAPS
        )
        self.stem = conv(4 * 6, width)
        self.down = nn.ModuleList(nn.Sequential(conv(a, b, 2), conv(b, b)) for a, b in steps)
        self.join = conv(widths[-1] + self.MAPS[0][1], widths[-1])
        map_widths = [c for _, c in self.MAPS[1:]] + [0]
        self.up = nn.ModuleList(
            conv(a + b + c, a) for (a, b), c in zip(steps[::-1], map_widths, strict=True)
        )
        self.out = nn.Conv2d(width, 4 * 6, 3, padding=1, padding_mode="replicate")
        nn.init.normal_(self.out.weight, std=0.003)
        nn.init.zeros_(self.out.bias)
        self.overpaint = Overpaint()

    def forward(self, masked: Tensor, reference: Tensor, sound: Tensor) -> Tensor:
        """Masked face and reference (B, 3, s, s), mel windows (B, 20, 80) -> face (B, 3, s, s)."""
        f = F.relu(self.audio_tower(sound))
        f = f / f.square().mean(1, keepdim=True).clamp_min(0.01).sqrt()
        maps = [audio_map(f) for audio_map in self.maps]
        y = F.pixel_unshuffle(torch.cat([masked, reference], 1), 2)
        y, skips = self.stem(y.contiguous(memory_format=torch.channels_last)), []
        for down in self.down:
            skips.append(y)
            y = down(y)
        y = self.join(torch.cat([y, _fit(maps[0], y)], 1))
        for up, audio_map in zip(self.up, [*maps[1:], None], strict=True):
            skip = skips.pop()
            parts = [F.interpolate(y, scale_factor=2, mode="nearest"), skip]
            y = up(torch.cat(parts if audio_map is None else [*parts, _fit(audio_map, skip)], 1))
        return self.overpaint(F.pixel_shuffle(self.out(y), 2), reference)


def _fit(audio_map: Tensor, y: Tensor) -> Tensor:
    """Resize a map (B, c, s, s) to the resolution of y."""
    return F.interpolate(audio_map, y.shape[2:], mode="bilinear", align_corners=False)


class Wav2Lip(Method):
    """Wav2Lip: needs a reference frame of the person and a video whose mouth it replaces."""

    name, learns_from, takes = "Wav2Lip", "corpus", ("reference", "video")
    no_eyes = True

    def fit(self, corpus: list[Recording], subject: Recording) -> None:
        self.subject = subject
        self.reference = Faces(subject.part(0, 1)).crops([0])
        torch.manual_seed(self.seed)
        self.expert = LipExpert().to(self.device)
        self.painter = nn.ModuleDict(
            {"generator": LipGenerator(), "judge": PatchDiscriminator(3, 16)}
        ).to(self.device)
        self.people = [
            (Faces(r), mel_windows(r.audio, len(r)), silent_frames(r.audio, len(r))) for r in corpus
        ]
        data = digest([r.digest for r in corpus])
        self.learn("expert", self.expert, self._expert_loss, EXPERT, data)
        self.expert.requires_grad_(False)
        self.painter["generator"].audio_tower.load_state_dict(self.expert.audio_tower.state_dict())

        def learn(what: str, recipe: Recipe, n: int, length: int) -> None:
            groups = [{"params": self.painter["generator"].parameters(), "lr": recipe.lr},
                      {"params": self.painter["judge"].parameters(), "lr": JUDGE_LR}]  # fmt: skip
            loss = lambda g: self._loss(g, n, length)  # noqa: E731
            self.learn(what, self.painter, loss, recipe, data, groups, [self.expert])

        learn("generator", GENERATOR, BATCH, 1)
        learn("generator, sync", LATE, 1, FRAMES)
        del self.people

    def _clip(self, g: torch.Generator, length: int, near: int) -> tuple[Tensor, ...]:
        """A random clip of one person: crops (length, 3, s, s) and mel windows (length, 20, 80).

        With near > 0 also a reference (length, 3, s, s), the best of `near` silent frames, and the
        pixels' weights (length, 1, s, s).
        """
        faces, sound, quiet = self.people[draw_integer(len(self.people), g)]
        t = draw_integer(len(faces) - length + 1, g)
        frames, among = [*range(t, t + length)], torch.randint(len(quiet), (near,), generator=g)
        if near:
            frames.append(faces.alike(t, quiet[among.numpy()]))
        crops = faces.crops(frames)
        if flips := draw_integer(2, g):
            crops = crops.flip(-1)
        crops = (crops * (0.7 + 0.6 * torch.rand(3, 1, 1, generator=g))).clamp(0, 1)
        sound = disturbed(sound[t : t + length], g)
        if not near:
            return crops, sound
        points = torch.from_numpy(faces.points[t : t + length])
        weight = region_weights(points, faces.side, MOUTH)
        reference = crops[-1:].expand(length, -1, -1, -1)
        return crops[:-1], sound, reference, weight.flip(-1) if flips else weight

    def _clips(self, g: torch.Generator, n: int, length: int, near: int = 0) -> list[Tensor]:
        """n clips of `_clip`, stacked: (n, length, ...) each."""
        clips = zip(*(self._clip(g, length, near) for _ in range(n)), strict=True)
        return [torch.stack(x).to(self.device) for x in clips]

    def _expert_loss(self, g: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        crops, sound = self._clips(g, CLIPS, CLIP + FRAMES - 1)
        f_v, f_a = self.expert.lips(crops), self.expert.sound(sound[:, 2:-2])
        return contrastive_loss(f_a, f_v), {}

    def _loss(self, g: torch.Generator, n: int, length: int) -> tuple[Tensor, dict[str, float]]:
        """The generator's loss on n clips; with clips of five frames, including the expert's."""
        clips = self._clips(g, n, length, NEAR)
        real, sound, reference, weight = (x.flatten(0, 1) for x in clips)
        mask = mouth_mask(real.shape[-1]).to(real)
        made = self.painter["generator"](real * (1 - mask), reference, sound)
        l1 = ((weight * mask + ELSEWHERE) * (made - real).abs()).mean()
        lower = slice(*mouth_rows(real.shape[-1]))
        generator, discriminator = adversarial(
            self.painter["judge"], real[:, :, lower], made[:, :, lower]
        )
        parts = dict(l1=l1.item(), generator=generator.item(), discriminator=discriminator.item())
        loss = l1 + GAN * generator + discriminator
        if length == FRAMES:
            f_v, f_a = self.expert.lips(made.unflatten(0, (n, length))), clips[1][:, 2:3]
            sync = sync_loss(f_v, self.expert.sound(f_a))
            loss, parts["sync"] = loss + SYNC * sync, sync.item()
        return loss, parts

    @torch.inference_mode()
    def render(
        self, audio: np.ndarray, pose: Recording | None = None, eyes: Recording | None = None
    ) -> Iterator[np.ndarray]:
        """As `Method.render`: the video `pose` with a new mouth; `eyes` is ignored.

        Without `pose` it is the training video, played forwards and backwards.
        """
        faces, T = Faces(pose or self.subject), frame_count(audio)
        order = to_and_fro(np.arange(len(faces)), T)
        mask = mouth_mask(faces.side)
        opacity = soft(mask)
        windows = mel_windows(audio, T).split(16)
        for frames, sound in zip(np.split(order, range(16, T, 16)), windows, strict=True):
            crops = faces.crops(frames)
            reference = self.reference.expand_as(crops)
            inputs = [x.to(self.device) for x in (crops * (1 - mask), reference, sound)]
            for i, crop in zip(frames, self.painter["generator"](*inputs).cpu(), strict=True):
                yield paste(faces.frames[i], crop, opacity, faces.matrices[i])
