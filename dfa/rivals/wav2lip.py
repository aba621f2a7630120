"""Wav2Lip (Prajwal et al., ACM MM 2020): anybody's mouth painted anew into a video of theirs.

- A lip-sync expert (`LipExpert`) learns first, on real pairs: five frames of the lower face, in
  colour, and the 0.2 s of mel spectrogram that sounded meanwhile. The cosine of its non-negative
  embeddings is the probability of their belonging together. Then it is frozen (section 3.2).
- The generator (`LipGenerator`) is shown the face without its lower half, which tells the pose, and
  a reference: another moment of the same person. Convolutions with skips, joined by the sound's
  embedding where they are deepest (section 3.3).
- It learns by L1, by a discriminator of the lower half and, switched on late, by the expert's
  judgement of five frames that it made one by one (section 3.4).

Smaller, and with twelve people instead of the 29 hours of LRS2, so it gets help: faces are aligned
by brows, eyes and nose; colours, sides and voices are disturbed; the generator's ear begins as the
expert's; the sound joins as a map of the face at three scales; the reference is moved by a learnt
flow and painted over, not painted afresh; in training it is a moment of silence, so that its mouth
is mostly shut, and its head is turned much as the wanted; mouths count more in L1. The
discriminator is by patches.
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
from .parts import MEL_PER_FRAME, N_MEL, PatchDiscriminator, adversarial, windows_around, conv, draw_integer, mel

FRAMES = 5  # that the expert sees at once
HEARD = FRAMES * MEL_PER_FRAME  # steps of mel in a window, 0.2 s
CLIP, CLIPS = 16, 10  # windows of a clip that the expert learns from, and clips of a step
BATCH, NEAR = 4, 4  # frames of a step of the generator, and references to choose from for each
EXPERT = Recipe(240, lr=3e-3)
GENERATOR = Recipe(1300, lr=3e-3, clip=None)
LATE = Recipe(900, lr=5e-4, clip=None)  # the generator, taught by the expert too
JUDGE_LR = 4e-4
SYNC, GAN = 0.003, 0.003  # weights of the losses beside L1
MOUTH, ELSEWHERE = 100.0, 0.1  # what mouths count in L1, and what the unhidden part does
SILENT = 0.15  # of the time


def mouth_rows(side: int) -> tuple[int, int]:
    """From where to where a crop is hidden: the lower half of the face."""
    return round(side * 33 / 64), round(side * 62 / 64)


def mouth_mask(side: int) -> Tensor:
    """What is masked of a crop, (side, side): 1 there."""
    mask = torch.zeros(side, side)
    mask[slice(*mouth_rows(side)), side // 16 : -side // 16] = 1
    return mask


def mel_windows(audio: np.ndarray, n_frames: int) -> Tensor:
    """Mel windows of the five frames around each frame: (T, 20, 80)."""
    vectors = torch.from_numpy(mel(audio, n_frames))
    before = HEARD // 2
    return windows_around(vectors, before, HEARD - 1 - before)[MEL_PER_FRAME // 2 :: MEL_PER_FRAME]


def silent_frames(audio: np.ndarray, n_frames: int) -> np.ndarray:
    """The frames around which it is quietest."""
    power = np.square(audio[: n_frames * SAMPLES_PER_FRAME]).reshape(n_frames, -1).mean(1)
    power = np.convolve(power, np.ones(FRAMES), "same")
    return np.flatnonzero(power <= np.quantile(power, SILENT))


def disturbed(sound: Tensor, g: torch.Generator) -> Tensor:
    """Mel windows (T, 20, 80) of a clip as another voice and microphone might give them."""
    shift = int(torch.randint(-4, 5, (), generator=g))  # a shorter or longer vocal tract
    tilt = torch.linspace(-0.5, 0.5, N_MEL) * torch.randn((), generator=g) * 0.5
    sound = sound.roll(shift, -1) + tilt + 0.2 * torch.randn((), generator=g)
    return sound + 0.2 * torch.rand((), generator=g) * torch.randn(sound.shape, generator=g)


def layer(c_in: int, c_out: int, stride: int | tuple[int, int] = 1) -> nn.Sequential:
    """Convolution, batch normalisation, ReLU: silence stays telling from noise, as it would not if
    each window were normalised by itself."""
    return nn.Sequential(
        nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False), nn.BatchNorm2d(c_out), nn.ReLU()
    )


def audio_encoder(dim: int, width: int = 16) -> nn.Sequential:
    """(B, 20, 80) mel -> (B, dim)."""
    return nn.Sequential(
        nn.Unflatten(1, (1, HEARD)),
        layer(1, width, (1, 2)), layer(width, 2 * width, 2), layer(2 * width, 4 * width, 2),
        layer(4 * width, 4 * width, (2, 2)),
        nn.Flatten(), nn.Dropout(0.2), nn.Linear(4 * width * 3 * N_MEL // 16, dim),
    )  # fmt: skip


class LipExpert(nn.Module):
    """Do these lips say this sound?"""

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
        """Crops of faces (B, T, 3, s, s), in order -> (B, T - 4, dim), of each five frames."""
        B, T, _, side, _ = crops.shape
        half = crops[..., slice(*mouth_rows(side)), side // 8 : -side // 8].flatten(0, 1)
        half = F.adaptive_avg_pool2d(half, (self.HEIGHT, self.WIDTH)).unflatten(0, (B, T))
        five = half.unfold(1, FRAMES, 1).movedim(-1, 2).flatten(0, 1)
        five = five - five.mean((1, 2, 3, 4), keepdim=True)
        five = five / five.std((1, 2, 3, 4), keepdim=True).clamp_min(0.02)
        return self._unit(self.lip_tower(five.flatten(1, 2))).unflatten(0, (B, T - FRAMES + 1))

    def sound(self, windows: Tensor) -> Tensor:
        """(..., 20, 80) mel windows -> (..., dim)."""
        return self._unit(self.audio_tower(windows.flatten(0, -3))).unflatten(0, windows.shape[:-2])

    def _unit(self, x: Tensor) -> Tensor:
        return F.normalize(F.relu(x), dim=-1, eps=1e-4)


def sync_loss(f_v: Tensor, f_a: Tensor) -> Tensor:
    """Eq. 5: minus the logarithm of the probability that lips and sound belong together."""
    return -(f_v * f_a).sum(-1).clamp(1e-3, 1).log().mean()


class LipGenerator(nn.Module):
    """A face without its lower half, a reference and a sound -> the face."""

    MAPS = ((4, 32), (8, 32), (16, 16))  # sides and channels of what the sound says of a face

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
        told = [c for _, c in self.MAPS[1:]] + [0]
        self.up = nn.ModuleList(conv(a + b + c, a)
                                for (a, b), c in zip(steps[::-1], told, strict=True))  # fmt: skip
        self.out = nn.Conv2d(width, 4 * 6, 3, padding=1, padding_mode="replicate")
        nn.init.normal_(self.out.weight, std=0.003)
        nn.init.zeros_(self.out.bias)
        self.overpaint = Overpaint()

    def forward(self, masked: Tensor, reference: Tensor, sound: Tensor) -> Tensor:
        """(B, 3, s, s) twice, mel windows (B, 20, 80) -> (B, 3, s, s)."""
        f = F.relu(self.audio_tower(sound))
        f = f / f.square().mean(1, keepdim=True).clamp_min(0.01).sqrt()
        maps = [told(f) for told in self.maps]
        y = F.pixel_unshuffle(torch.cat([masked, reference], 1), 2)
        y, skips = self.stem(y.contiguous(memory_format=torch.channels_last)), []
        for down in self.down:
            skips.append(y)
            y = down(y)
        y = self.join(torch.cat([y, _fit(maps[0], y)], 1))
        for up, told in zip(self.up, [*maps[1:], None], strict=True):
            skip = skips.pop()
            parts = [F.interpolate(y, scale_factor=2, mode="nearest"), skip]
            y = up(torch.cat(parts if told is None else [*parts, _fit(told, skip)], 1))
        return self.overpaint(F.pixel_shuffle(self.out(y), 2), reference)


def _fit(told: Tensor, y: Tensor) -> Tensor:
    """A map of the face at the resolution of y."""
    return F.interpolate(told, y.shape[2:], mode="bilinear", align_corners=False)


class Wav2Lip(Method):
    """Wav2Lip, of anybody of whom there is a frame and a video to speak in."""

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
        self.people = [(Faces(r), mel_windows(r.audio, len(r)), silent_frames(r.audio, len(r))) for r in corpus]
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
        """A person's moment: crops (length, 3, s, s), mel windows (length, 20, 80), and, of `near`
        to choose from, a reference of as many frames and what pixels count (length, 1, s, s)."""
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
        """n of `_clip`, each stacked."""
        clips = zip(*(self._clip(g, length, near) for _ in range(n)), strict=True)
        return [torch.stack(x).to(self.device) for x in clips]

    def _expert_loss(self, g: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        crops, sound = self._clips(g, CLIPS, CLIP + FRAMES - 1)
        f_v, f_a = self.expert.lips(crops), self.expert.sound(sound[:, 2:-2])
        return contrastive_loss(f_a, f_v), {}

    def _loss(self, g: torch.Generator, n: int, length: int) -> tuple[Tensor, dict[str, float]]:
        """Of single moments, or of five in a row, which the expert can judge."""
        clips = self._clips(g, n, length, NEAR)
        real, sound, reference, weight = (x.flatten(0, 1) for x in clips)
        mask = mouth_mask(real.shape[-1]).to(real)
        made = self.painter["generator"](real * (1 - mask), reference, sound)
        l1 = ((weight * mask + ELSEWHERE) * (made - real).abs()).mean()
        lower = slice(*mouth_rows(real.shape[-1]))
        fools, tells = adversarial(self.painter["judge"], real[:, :, lower], made[:, :, lower])
        parts = {"l1": l1.item(), "fools": fools.item(), "tells": tells.item()}
        loss = l1 + GAN * fools + tells
        if length == FRAMES:
            f_v, f_a = self.expert.lips(made.unflatten(0, (n, length))), clips[1][:, 2:3]
            sync = sync_loss(f_v, self.expert.sound(f_a))
            loss, parts["sync"] = loss + SYNC * sync, sync.item()
        return loss, parts

    @torch.inference_mode()
    def render(
        self, audio: np.ndarray, pose: Recording | None = None, eyes: Recording | None = None
    ) -> Iterator[np.ndarray]:
        """The video `pose`, or the subject's own, to and fro, with another mouth. Eyes stay its."""
        faces, T = Faces(pose or self.subject), frame_count(audio)
        order = to_and_fro(np.arange(len(faces)), T)
        mask = mouth_mask(faces.side)
        share = soft(mask)
        batches = zip(np.split(order, range(16, T, 16)), mel_windows(audio, T).split(16), strict=True)
        for frames, sound in batches:
            crops = faces.crops(frames)
            reference = self.reference.expand_as(crops)
            shown = [x.to(self.device) for x in (crops * (1 - mask), reference, sound)]
            for i, crop in zip(frames, self.painter["generator"](*shown).cpu(), strict=True):
                yield paste(faces.frames[i], crop, share, faces.matrices[i])
