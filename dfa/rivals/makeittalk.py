"""MakeItTalk (Zhou et al., SIGGRAPH Asia 2020): audio to landmarks, with a speaker's own motion.
Sections and equations are those of that paper.

- Speech content: an LSTM reads the audio. An MLP turns its states and the reference's landmarks
  into displacements of 68 points (section 4.1). The losses are L2 of the points and of their graph
  Laplacian (eq. 3).
- Speaker-aware animation: an LSTM and self-attention over the audio, a voice embedding and noise
  add the head's pose and speaker-specific displacements. A discriminator with self-attention
  classifies real and generated sequences (section 4.2). Blinks follow a fixed schedule for every
  speaker, as in the released code.
- Picture: a U-Net from the drawn landmarks and the reference to the frame (section 4.3).

Differences from the paper:

- Content is MFCC normalised by the speech around, not the code of AutoVC. The voice embedding is
  the mean and spread of the log mel bands, not that of a speaker-verification network.
- The head's pose is explicit, and projects the points. Speaker-specific displacements move brows
  and eyes only. So short a GAN training leaves the head almost still, so a loss also matches the
  spread of poses and of their changes.
- The U-Net learns from twelve people only. To compensate, a smooth warp first moves the reference
  to the target points (the paper warps cartoons by triangles). The U-Net works on an aligned face
  crop; it predicts a flow and a colour to blend. Eyes and mouth have a larger weight. There is no
  perceptual loss (VGG).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..datasets.voices import variants
from ..media import FPS, frame_count, to_and_fro
from ..method.audio import N_MFCC, PER_FRAME, mfcc
from ..method.face import BROWS, EYES, LINES, LOWER_LIDS, UPPER_LIDS, in_image
from ..method.field_training import region_weights
from ..recipe import Recipe, digest
from ..recording import Recording
from .crops import Overpaint, aligning, cut, inner_mask, paste, transformed
from .method import Method
from .parts import (
    MEL_PER_FRAME,
    N_MEL,
    UNet,
    adversarial,
    draw_integer,
    draw_landmarks,
    mel,
    pictures,
    windows_around,
)

UNIT = 0.01  # metres: the networks' landmarks are in centimetres
BEFORE, AFTER = 3, 5  # frames of audio before and after a frame that its window covers
WINDOW = (BEFORE + 1 + AFTER) * PER_FRAME * N_MFCC  # numbers in a window of MFCC
NOISE, VOICE = 8, 2 * N_MEL  # dimensions of the noise and of a voice embedding
VOICE_STEPS = 6 * FPS * MEL_PER_FRAME  # steps of mel, 6 s: from them a voice is computed
NEAR = 16  # frames before and after a frame that attention covers
MANNER = np.r_[BROWS, EYES].tolist()  # points that the speaker-specific displacements move
DROP = 0.2  # dropout
LAPLACE, RECONSTRUCT, SPREAD = 1.0, 0.1, 2.0  # weights: eq. 3's Laplacian, L2 of poses, spread
CONTENT = Recipe(350, lr=2e-3, weight_decay=0.02)
SPEAKER = Recipe(200, lr=1e-3, clip=None)
CRITIC_LR = 2e-3  # learning rate of the discriminator
PICTURE = Recipe(1400, lr=2e-3, clip=None)
EDGE = 4.0  # factor of the drawn lines: they cover few pixels
REGION = 20.0  # weight of eyes and mouth in the pixel loss
BATCH = 4  # pictures per step


def laplacian() -> Tensor:
    """The graph Laplacian (68, 68): a point minus the mean of its neighbours on the face lines."""
    near = torch.zeros(68, 68)
    for part, closed in chain(*LINES):
        for a in range(part.start, part.stop - 1):
            near[a, a + 1] = near[a + 1, a] = 1
        if closed:
            near[part.start, part.stop - 1] = near[part.stop - 1, part.start] = 1
    return torch.eye(68) - near / near.sum(1, keepdim=True)


def landmark_loss(made: Tensor, real: Tensor, laplace: Tensor) -> Tensor:
    """Eq. 3 of MakeItTalk: squared distance of landmarks and of their Laplacian coordinates.

    made, real: (..., 68, 3); laplace: (68, 68). Returns the mean, a scalar.
    """
    error = made - real
    return (error.square().sum(-1) + LAPLACE * (laplace @ error).square().sum(-1)).mean()


def voice(sound: np.ndarray) -> np.ndarray:
    """The voice embedding (160,): mean and standard deviation of a log mel spectrogram (n, 80)."""
    return np.concatenate([sound.mean(0), sound.std(0)])


def blinks(n_frames: int, rng: np.random.Generator) -> np.ndarray:
    """How far the eyes are closed, (T,) in 0..1, by the released code's schedule.

    The first blink is at 0.48 s, each next one 1.44 to 2.4 s later. The lids fall for 0.16 s and
    rise for 0.24 s.
    """
    shut, t, now = np.zeros(n_frames), np.arange(n_frames) / FPS, 0.48
    while now < n_frames / FPS:
        at = round(now * FPS) / FPS  # on a frame, so that one frame shows the closed eye
        shut = np.maximum(shut, np.interp(t - at, [-0.16, 0, 0.24], [0, 1, 0]))
        now += rng.uniform(1.44, 2.4)
    return shut


def spread_loss(made: Tensor, real: Tensor) -> Tensor:
    """Relative difference of the standard deviations of poses (B, T, 6) and of their changes.

    Squared; the mean over the 6 coordinates, summed over poses and changes.
    """
    error = 0.0
    for a, b in ((made, real), (made.diff(dim=1), real.diff(dim=1))):
        a, b = a.flatten(0, 1).std(0), b.flatten(0, 1).std(0) + 1e-3
        error = error + ((a - b) / (a + b)).square().mean()
    return error


def slow_noise(batch: int, n_frames: int, g: torch.Generator) -> Tensor:
    """Noise (B, T, 8) of about unit variance: random values each 12 frames, linear in between."""
    knots = torch.randn(batch, NOISE, n_frames // 12 + 4, generator=g)
    y = F.interpolate(knots, scale_factor=12, mode="linear")[..., 12 : 12 + n_frames]
    return 1.2 * y.mT


def warp(known: np.ndarray, rigid: np.ndarray, wanted: np.ndarray, size: int) -> np.ndarray:
    """The source position of each pixel of the warped reference, (size, size, 2).

    All points are (68, 2) in units of the side: `known` in the reference, `rigid` after the head's
    rigid motion, `wanted` after the motion of the landmarks too. The warp has two parts. An affine
    map from `rigid` back to `known` acts inside the head and fades out around it. The remaining
    displacement of the wanted points is interpolated by Gaussians around them.
    """
    plane = lambda p: np.concatenate([p, np.ones((len(p), 1))], 1)  # noqa: E731
    n = size // 4
    v, u = np.mgrid[:n, :n]
    x = (np.stack([u, v], -1).reshape(-1, 2) + 0.5) / n
    back = np.linalg.lstsq(plane(rigid), known, rcond=None)[0]
    face_width = np.abs(rigid[16] - rigid[0]).max()
    d = (x - rigid[27]) / face_width  # from the root of the nose
    stretch = np.where(d[:, 1] < 0, 0.85, 1.15)  # further up for the hair; less down: neck is still
    head = 1 / (1 + np.exp((np.hypot(d[:, 0], d[:, 1] * stretch) - 0.95) / 0.08))
    width = 0.1 * face_width  # of the Gaussians
    near = lambda y: np.exp(-0.5 * np.square((y[:, None] - wanted) / width).sum(-1))  # noqa: E731
    # torch's solver: numpy's threads take longer to start than so small a system takes to solve
    system = near(wanted) + 0.1 * np.eye(68), known - plane(wanted) @ back
    local = near(x) @ torch.linalg.solve(*map(torch.from_numpy, system)).numpy()
    moves = head[:, None] * (plane(x) @ back - x) + local
    moves = cv2.resize(moves.reshape(n, n, 2), (size, size), interpolation=cv2.INTER_LINEAR)
    v, u = np.mgrid[:size, :size]
    return ((np.stack([u, v], -1) + 0.5) / size + moves).astype(np.float32)


class WarpedReference:
    """Frame e of recording r, warped to the poses h (T, 6) and landmarks (T, 68, 3) in metres.

    Attributes: moved (T, S, S, 3) uint8, the warped frames; points (T, 68, 2), the target points in
    units of the side; matrices (T, 2, 3) from the image to the crop of the target faces; known, the
    points and the crop of frame e itself.
    """

    def __init__(self, r: Recording, e: int, h: np.ndarray, landmarks: np.ndarray) -> None:
        a, frame = r.attributes, np.ascontiguousarray(r.frames[e])
        S, known, face = len(frame), a.points[e], a.landmarks[e : e + 1]
        own = known - in_image(a.h[e : e + 1], face)[0]  # the person's proportions
        rigid = in_image(h, np.repeat(face, len(h), 0)) + own
        self.points = in_image(h, landmarks) + own
        self.matrices = aligning(self.points, landmarks)
        maps = [S * warp(known, p, q, S) - 0.5 for p, q in zip(rigid, self.points, strict=True)]
        self.moved = np.stack([
            cv2.remap(frame, m, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            for m in maps
        ])  # fmt: skip
        matrix = aligning(known[None], face)
        self.known = transformed(known[None], matrix), pictures(cut(frame, matrix[0])[None])

    def painter_input(self) -> Tensor:
        """The painter's input (T, 12, s, s): warped crop, original crop, target and own lines."""
        crops = np.stack(list(map(cut, self.moved, self.matrices)))
        side, (points, still) = crops.shape[1], self.known
        wanted, own = (torch.from_numpy(draw_landmarks(p, side)) / 255
                       for p in (transformed(self.points, self.matrices), points))  # fmt: skip
        T = len(crops)
        return torch.cat([pictures(crops), still.expand(T, -1, -1, -1), EDGE * wanted,
                          EDGE * own.expand(T, -1, -1, -1)], 1)  # fmt: skip


class Attention(nn.Module):
    """Local self-attention and a dense layer (Vaswani et al. 2017), (B, T, D) -> (B, T, D).

    Each frame attends to the NEAR frames before and after it, so T can be any length.
    """

    def __init__(self, dim: int, heads: int = 4) -> None:
        super().__init__()
        self.heads, self.qkv, self.out = heads, nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.dense = nn.Sequential(nn.Linear(dim, 2 * dim), nn.ReLU(), nn.Linear(2 * dim, dim))
        self.norms = nn.ModuleList([nn.LayerNorm(dim), nn.LayerNorm(dim)])
        self.place = nn.Parameter(torch.zeros(heads, 2 * NEAR + 1))  # bias by relative position

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norms[0](x)).unflatten(-1, (3, self.heads, -1)).unbind(2)
        valid = F.pad(torch.ones(x.shape[1], device=x.device), (NEAR, NEAR)).unfold(
            0, 2 * NEAR + 1, 1
        )  # (T, 2 NEAR + 1): 0 outside of the sequence
        # (B, T, heads, d) -> (B, T, heads, d, 2 NEAR + 1)
        k, v = (F.pad(y, (0, 0, 0, 0, NEAR, NEAR)).unfold(1, 2 * NEAR + 1, 1) for y in (k, v))
        score = torch.einsum("bthd,bthdn->bthn", q, k) / q.shape[-1] ** 0.5 + self.place
        weights = score.masked_fill(valid[:, None] == 0, -torch.inf).softmax(-1)
        x = x + self.out(torch.einsum("bthn,bthdn->bthd", weights, v).flatten(2))
        return x + self.dense(self.norms[1](x))


class Content(nn.Module):
    """Windows of MFCC (B, T, W), reference landmarks (B, 68, 3) -> displacements (B, T, 68, 3).

    Section 4.1 of MakeItTalk; landmarks are in centimetres.
    """

    def __init__(self, width: int = 128) -> None:
        super().__init__()
        self.sound = nn.Sequential(nn.Dropout(DROP), nn.Linear(WINDOW, width), nn.ReLU())
        self.lstm = nn.LSTM(width, width, batch_first=True)
        self.mlp = nn.Sequential(
            nn.Linear(width + 68 * 3, width), nn.ReLU(), nn.Dropout(DROP),
            nn.Linear(width, 68 * 3),
        )  # fmt: skip

    def forward(self, windows: Tensor, reference: Tensor) -> Tensor:
        c, _ = self.lstm(self.sound(windows))  # (B, T, width)
        points = reference.flatten(1)[:, None].expand(-1, c.shape[1], -1)  # (B, T, 204)
        return self.mlp(torch.cat([c, points], -1)).unflatten(-1, (68, 3))


class Speaker(nn.Module):
    """Windows of MFCC (B, T, W), noise (B, T, 8) and a voice (B, 160) -> poses (B, T, 6) and
    displacements (B, T, 68, 3) of brows and eyes. Section 4.2 of MakeItTalk.

    Poses are relative to the reference, in units of the corpus's standard deviation.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.voice = nn.Sequential(
            nn.Linear(VOICE, 32), nn.ReLU(), nn.Dropout(DROP), nn.Linear(32, 16)
        )
        self.sound = nn.Sequential(nn.Dropout(DROP), nn.Linear(WINDOW, width), nn.ReLU())
        self.lstm = nn.LSTM(width + NOISE + 16, width, batch_first=True)
        self.attention = nn.Sequential(
            Attention(width), Attention(width), nn.Linear(width, 6 + 3 * len(MANNER))
        )
        self.register_buffer("manner", torch.tensor(MANNER), persistent=False)

    def forward(self, windows: Tensor, noise: Tensor, voice: Tensor) -> tuple[Tensor, Tensor]:
        code = self.voice(voice)[:, None].expand(-1, windows.shape[1], -1)  # (B, T, 16)
        y = self.attention(self.lstm(torch.cat([self.sound(windows), noise, code], -1))[0])
        displaced = y.new_zeros(*y.shape[:2], 68, 3)
        displaced[:, :, self.manner] = y[..., 6:].unflatten(-1, (-1, 3))
        return y[..., :6], displaced


class Critic(nn.Module):
    """The discriminator: `motion` (B, T, 12 + 204 + 160) -> a score for each frame, (B, T).

    It classifies motion that is real and belongs to the given voice.
    """

    tells_real = True

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        sizes = (12, 68 * 3, VOICE)
        self.enter = nn.ModuleList(nn.Linear(n, width) for n in sizes)
        self.sizes, leak = sizes, nn.LeakyReLU(0.2)
        self.attention = nn.Sequential(
            leak, nn.Linear(width, width), leak, Attention(width), Attention(width),
            nn.Linear(width, 1),
        )  # fmt: skip

    @staticmethod
    def motion(pose: Tensor, displaced: Tensor, voice: Tensor) -> Tensor:
        """Join poses (B, T, 6), their changes, displacements (B, T, 68, 3) and a voice (B, 160):
        (B, T, 376)."""
        change = 5 * pose.diff(dim=1, prepend=pose[:, :1])
        voices = voice[:, None].expand(-1, pose.shape[1], -1)
        return torch.cat([pose, change, displaced.flatten(2), voices], -1)

    def forward(self, x: Tensor) -> Tensor:
        parts = zip(self.enter, x.split(self.sizes, -1), strict=True)
        return self.attention(sum(enter(part) for enter, part in parts))[..., 0]


class Painter(nn.Module):
    """`WarpedReference.painter_input` (B, 12, s, s) -> the face crop (B, 3, s, s)."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.unet, self.overpaint = UNet(12, 6, width, levels=3), Overpaint()
        nn.init.normal_(self.unet.out.weight, std=0.003)
        nn.init.zeros_(self.unet.out.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.overpaint(self.unet(x), x[:, :3])


class MakeItTalk(Method):
    """MakeItTalk: landmarks and pose from the audio and its voice, pictures from the landmarks."""

    name, learns_from, takes = "MakeItTalk", "corpus", ("reference", "pose", "eyes")
    own, face_model = ("heads", "eyes"), "2D landmarks"

    def fit(self, corpus: list[Recording], subject: Recording) -> None:
        self.subject = subject.part(0, 1)
        h = [r.attributes.h - np.median(r.attributes.h, 0) for r in corpus]
        self.spread = np.concatenate(h).std(0).astype(np.float32) + 1e-6
        self.mean = np.concatenate([r.attributes.landmarks for r in corpus]).mean(0)
        self.laplace = laplacian().to(self.device)
        torch.manual_seed(self.seed)
        self.content, self.speaker = Content().to(self.device), Speaker().to(self.device)
        self.critic, self.painter = Critic().to(self.device), Painter().to(self.device)
        data = digest([r.digest for r in corpus])
        tracks, rng = [], np.random.default_rng(self.seed)
        for r, pose in zip(corpus, h, strict=True):
            p = ((r.attributes.landmarks - self.mean) / UNIT).reshape(len(r), -1)
            track = np.concatenate([pose / self.spread, p], 1).astype(np.float32)
            pairs = [(mfcc(r.audio, len(r)), track), *variants(r.audio, track, 3, rng)]
            tracks += [(*map(torch.from_numpy, pair), mel(r.audio, len(r))) for pair in pairs]
        self._fit_content(tracks, data)
        self._fit_speaker(tracks, data)
        self._fit_painter(corpus, data)

    def _clips(self, tracks: list[tuple], n: int, batch: int, g: torch.Generator) -> list[Tensor]:
        """Random clips of n frames: windows of MFCC (B, n, W), poses (B, n, 6), landmarks
        (B, n, 68, 3), a reference's landmarks (B, 68, 3) and voices (B, 160)."""
        out = []
        for _ in range(batch):
            sound, track, bands = tracks[draw_integer(len(tracks), g)]
            t = draw_integer(len(track) - n + 1, g)
            k = draw_integer(max(1, len(bands) - VOICE_STEPS), g)
            p = track[:, 6:].unflatten(-1, (68, 3))
            windows = self.windows(sound[PER_FRAME * max(0, t - 10) : PER_FRAME * (t + n + 10)])
            windows = windows[t - max(0, t - 10) :][:n]
            v = torch.from_numpy(voice(bands[k : k + VOICE_STEPS]))
            out.append((windows, track[t : t + n, :6], p[t : t + n], p[draw_integer(len(p), g)], v))
        return [torch.stack(x).to(self.device) for x in zip(*out, strict=True)]

    @staticmethod
    def windows(sound: Tensor) -> Tensor:
        """MFCC (4 T, 20) -> the window around each frame, (T, W)."""
        return windows_around(sound.reshape(len(sound) // PER_FRAME, -1), BEFORE, AFTER).flatten(1)

    def _fit_content(self, tracks: list[tuple], data: str) -> None:
        n = min(50, *(len(track) for _, track, _ in tracks))

        def loss(g: torch.Generator) -> tuple[Tensor, dict[str, float]]:
            windows, _, real, reference, _ = self._clips(tracks, n, 16, g)
            made = reference[:, None] + self.content(windows, reference)
            return landmark_loss(made, real, self.laplace), {}

        self.learn("content", self.content, loss, CONTENT, data)

    def _fit_speaker(self, tracks: list[tuple], data: str) -> None:
        n = min(64, *(len(track) for _, track, _ in tracks))
        both = nn.ModuleList([self.speaker, self.critic])
        self.content.eval()

        def loss(g: torch.Generator) -> tuple[Tensor, dict[str, float]]:
            windows, pose, real, reference, voice = self._clips(tracks, n, 12, g)
            with torch.no_grad():
                content = self.content(windows, reference)
            noise = slow_noise(len(windows), n, g).to(self.device)
            made_pose, manner = self.speaker(windows, noise, voice)
            made, wanted = content + manner, real - reference[:, None]
            shape = landmark_loss(made, wanted, self.laplace)
            real_motion = self.critic.motion(pose, wanted, voice)
            made_motion = self.critic.motion(made_pose, made, voice)
            generator, discriminator = adversarial(self.critic, real_motion, made_motion)
            pose_error = F.mse_loss(made_pose, pose)
            spread = spread_loss(made_pose, pose)
            total = shape + RECONSTRUCT * pose_error + SPREAD * spread + generator + discriminator
            return total, dict(shape=shape.item(), pose=pose_error.item(),
                               discriminator=discriminator.item(),
                               generator=generator.item())  # fmt: skip

        groups = [dict(params=self.speaker.parameters(), lr=SPEAKER.lr),
                  dict(params=self.critic.parameters(), lr=CRITIC_LR)]  # fmt: skip
        self.learn("speaker", both, loss, SPEAKER, data, groups, [self.content])

    def _fit_painter(self, corpus: list[Recording], data: str) -> None:
        def example(g: torch.Generator) -> tuple[Tensor, ...]:
            """From two random frames of a person: the painter's input (1, 12, s, s), the true crop
            (1, 3, s, s) and the pixels' weights (1, 1, s, s)."""
            r = corpus[draw_integer(len(corpus), g)]
            a, t = r.attributes, draw_integer(len(r), g)
            e, target = draw_integer(len(r), g), slice(t, t + 1)
            reference = WarpedReference(r, e, a.h[target], a.landmarks[target])
            x = reference.painter_input()
            truth = pictures(cut(r.frames[t], reference.matrices[0])[None])
            points = torch.from_numpy(transformed(a.points[target], reference.matrices))
            weight = region_weights(points, truth.shape[-1], REGION)
            if draw_integer(2, g):
                x, truth, weight = x.flip(-1), truth.flip(-1), weight.flip(-1)
            gain = (0.7 + 0.6 * torch.rand(1, 3, 1, 1, generator=g)).repeat(1, 2, 1, 1)
            x[:, :6] = (x[:, :6] * gain).clamp(0, 1)
            return x, (truth * gain[:, :3]).clamp(0, 1), weight

        def loss(g: torch.Generator) -> tuple[Tensor, dict[str, float]]:
            batch = zip(*(example(g) for _ in range(BATCH)), strict=True)
            x, truth, weight = (torch.cat(part).to(self.device) for part in batch)
            l1 = (weight * (self.painter(x) - truth).abs()).mean()
            warp_only = (weight * (x[:, :3] - truth).abs()).mean()  # without the painter
            return l1, {"warp": warp_only.item()}

        self.learn("picture", self.painter, loss, PICTURE, data)

    @torch.inference_mode()
    def landmarks(
        self, audio: np.ndarray, pose: Recording | None, eyes: Recording | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Poses (T, 6) and landmarks (T, 68, 3), metres, of the reference speaking the audio.

        audio: (640 T,). pose, eyes: recordings to follow, or None.
        """
        T, known = frame_count(audio), self.subject.attributes
        reference = torch.from_numpy((known.landmarks - self.mean) / UNIT).float().to(self.device)
        windows = self.windows(torch.from_numpy(mfcc(audio, T)))[None].to(self.device)
        noise = slow_noise(1, T, torch.Generator().manual_seed(self.seed)).to(self.device)
        own_voice = torch.from_numpy(voice(mel(audio, T)))[None].to(self.device)
        made_pose, manner = self.speaker(windows, noise, own_voice)
        content = self.content(windows, reference)
        landmarks = known.landmarks + UNIT * (content + manner)[0].cpu().numpy()
        h = known.h[:1] + self.spread * made_pose[0].cpu().numpy()
        if pose is not None:
            h = to_and_fro(pose.attributes.h, T)
        if eyes is not None:
            source = eyes.attributes.landmarks[:, EYES]
            landmarks[:, EYES] = known.landmarks[:, EYES] + to_and_fro(
                source - np.median(source, 0), T
            )
        else:
            shut = blinks(T, np.random.default_rng(self.seed))[:, None, None]
            landmarks[:, UPPER_LIDS] += shut * (landmarks[:, LOWER_LIDS] - landmarks[:, UPPER_LIDS])
        return h, landmarks

    @torch.inference_mode()
    def render(
        self, audio: np.ndarray, pose: Recording | None = None, eyes: Recording | None = None
    ) -> Iterator[np.ndarray]:
        h, landmarks = self.landmarks(audio, pose, eyes)
        mask = inner_mask(self.subject.frames.shape[1] // 2)
        for start in range(0, len(h), 16):
            part = slice(start, start + 16)
            warped = WarpedReference(self.subject, 0, h[part], landmarks[part])
            made = self.painter(warped.painter_input().to(self.device)).cpu()
            for frame, crop, matrix in zip(warped.moved, made, warped.matrices, strict=True):
                yield paste(frame, crop, mask, matrix)
