"""Parts that several rivals share: U-Net, discriminator, GAN losses, drawn landmarks, mel."""

from __future__ import annotations

import cv2
import librosa
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from ..media import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME
from ..method.face import LINES

MEL_PER_FRAME, N_MEL = 4, 80  # mel vectors per video frame (100 Hz), and mel bands


def draw_landmarks(points: np.ndarray, size: int) -> np.ndarray:
    """Draw landmarks (T, 68, 2), in units of the image's side, as lines: (T, 3, size, size) uint8.

    The channels are: jaw, brows and nose; eyes; lips. Lines are antialiased; their coordinates have
    a precision of 1/8 pixel.
    """
    out = np.zeros((len(points), 3, size, size), np.uint8)
    at = np.round((points * size - 0.5) * 8).astype(np.int32)
    for image, p in zip(out, at, strict=True):
        for channel, lines in zip(image, LINES, strict=True):
            for part, closed in lines:
                cv2.polylines(channel, [p[part]], closed, 255, 1, cv2.LINE_AA, shift=3)
    return out


def pictures(frames: np.ndarray) -> Tensor:
    """Frames (..., S, S, 3) uint8 -> pictures (..., 3, S, S) float32 in 0..1."""
    return torch.from_numpy(np.ascontiguousarray(frames)).movedim(-1, -3).float() / 255


def as_frames(images: Tensor) -> np.ndarray:
    """Pictures (..., 3, S, S), clamped to 0..1 -> frames (..., S, S, 3) uint8."""
    return (images.detach().clamp(0, 1) * 255).round().byte().movedim(-3, -1).cpu().numpy()


def mel(audio: np.ndarray, n_frames: int) -> np.ndarray:
    """The log mel spectrogram of audio (n,), normalised over the utterance: (4 T, 80) float32.

    The audio is cut or padded to T = n_frames. Vector 4 t + 2 is centred on the middle of frame t.
    """
    audio = librosa.util.fix_length(
        np.asarray(audio, np.float32), size=n_frames * SAMPLES_PER_FRAME
    )
    hop = SAMPLE_RATE // (MEL_PER_FRAME * FPS)
    power = librosa.feature.melspectrogram(
        y=audio, sr=SAMPLE_RATE, n_fft=800, hop_length=hop, n_mels=N_MEL, fmin=55, fmax=7600
    )[:, : MEL_PER_FRAME * n_frames]
    log = np.log(power + 1e-6 * max(float(power.max()), 1e-4)).T
    return ((log - log.mean()) / max(float(log.std()), 1e-2)).astype(np.float32)


def windows_around(x: Tensor, before: int, after: int) -> Tensor:
    """The window around each step of a sequence (T, D): (T, before + 1 + after, D).

    Beyond the ends, the first and last vectors are repeated.
    """
    padded = torch.cat([x[:1].expand(before, -1), x, x[-1:].expand(after, -1)])
    return padded.unfold(0, before + 1 + after, 1).mT


def draw_integer(n: int, g: torch.Generator) -> int:
    """A random integer of 0 .. n - 1."""
    return int(torch.randint(n, (), generator=g))


def conv(c_in: int, c_out: int, stride: int = 1, kernel: int = 3) -> nn.Sequential:
    """Convolution, group normalisation, leaky ReLU."""
    return nn.Sequential(
        nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, padding_mode="replicate"),
        nn.GroupNorm(max(1, c_out // 8), c_out),
        nn.LeakyReLU(0.2),
    )


class UNet(nn.Module):
    """A U-Net (Ronneberger et al. 2015): (B, c_in, S, S) -> (B, c_out, S, S).

    It works at half the resolution and less. S must be a multiple of 2^(levels + 1).
    """

    def __init__(self, c_in: int, c_out: int, width: int = 32, levels: int = 4) -> None:
        super().__init__()
        widths = [min(width * 2**k, 4 * width) for k in range(levels + 1)]
        self.stem = conv(4 * c_in, width)
        self.down = nn.ModuleList(
            nn.Sequential(conv(a, b, 2), conv(b, b))
            for a, b in zip(widths[:-1], widths[1:], strict=True)
        )
        self.up = nn.ModuleList(
            conv(a + b, a) for a, b in zip(widths[-2::-1], widths[:0:-1], strict=True)
        )
        self.out = nn.Conv2d(width, 4 * c_out, 3, padding=1, padding_mode="replicate")

    def forward(self, x: Tensor) -> Tensor:
        y = F.pixel_unshuffle(x, 2)  # (B, 4 c_in, S/2, S/2)
        y = self.stem(y.contiguous(memory_format=torch.channels_last))
        skips = []
        for down in self.down:
            skips.append(y)
            y = down(y)
        for up in self.up:
            y = F.interpolate(y, scale_factor=2, mode="nearest")
            y = up(torch.cat([y, skips.pop()], 1))
        return F.pixel_shuffle(self.out(y), 2)


class PatchDiscriminator(nn.Module):
    """A patch discriminator (Isola et al. 2017): (B, c_in, S, S) -> scores (B, 1, S/8, S/8)."""

    tells_real = True

    def __init__(self, c_in: int, width: int = 24) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(c_in, width, 4, 2, 1),
            nn.LeakyReLU(0.2),
            conv(width, 2 * width, 2),
            conv(2 * width, 4 * width, 2),
            nn.Conv2d(4 * width, 1, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def with_frozen_weights(judge: nn.Module, x: Tensor) -> Tensor | list[Tensor] | tuple[Tensor, ...]:
    """judge(x) with detached weights: the gradient flows to x only."""
    return functional_call(judge, {k: v.detach() for k, v in judge.named_parameters()}, x)


def least_squares(real: Tensor, fake: Tensor, generated: Tensor) -> tuple[Tensor, Tensor]:
    """Least-squares GAN losses (Mao et al. 2017) of the generator and of the discriminator.

    Args:
        real, fake: the discriminator's scores of real and of detached generated pictures.
        generated: its scores of generated pictures whose gradient reaches the generator.
    """
    discriminator = (real - 1).square().mean() + fake.square().mean()
    return (generated - 1).square().mean(), discriminator / 2


def adversarial(judge: nn.Module, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
    """`least_squares` of real and generated pictures (B, C, S, S): two losses to be added.

    The discriminator's weights are detached in the generator's loss, and the pictures in the
    discriminator's loss. So the sum of both trains each network with its own loss only.
    """
    return least_squares(judge(real), judge(fake.detach()), with_frozen_weights(judge, fake))
