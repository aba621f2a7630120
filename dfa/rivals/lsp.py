"""LSP, Live Speech Portraits (Lu et al., SIGGRAPH Asia 2021): one person's landmarks and head
motion from audio, and pictures from landmarks. Sections are those of that paper.

- Autoregressive predictive coding (`APC`): a GRU predicts the audio some steps ahead. Its states
  are the speech representation. It learns from everybody's audio, without video (section 4.1).
- Manifold projection (`project_on`): each state is replaced by a linear combination of the nearest
  states of the person. So another voice is mapped to the person's speech (section 4.2).
- Mouth and jaw: an LSTM reads these states, with 0.28 s of look-ahead (section 5.1).
- Head motion: an autoregressive model of dilated causal convolutions, conditioned on the audio.
  Its output is a Gaussian to sample from (section 5.2). Eyes and brows replay the recording.
- Pictures: image translation (section 5.3). The inputs of a U-Net are the landmarks' lines and four
  candidate frames of the person. The losses are L1, a discriminator and feature matching.

Differences from the paper: the networks are smaller, at 25 instead of 60 frames/s, and learn from
one minute of the person instead of several. The audio is given as MFCC, which `method.audio` can
augment. The U-Net predicts the difference from the mean frame; the discriminator has one scale;
there is no perceptual loss (VGG). Shoulders have no landmarks here: instead, the network gets the
head's pose averaged over the past second. There is no special treatment of texture or glasses.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from ..datasets.voices import variants
from ..evaluation.metrics import mouth_opening
from ..media import FPS, frame_count, to_and_fro
from ..method.audio import N_MFCC, PER_FRAME, mfcc
from ..method.face import BROWS, EYES, LIPS, in_image
from ..method.field_training import region_weights
from ..recipe import Recipe, digest
from ..recording import Recording
from .method import Method
from .parts import (
    PatchDiscriminator,
    UNet,
    as_frames,
    draw_landmarks,
    least_squares,
    pictures,
    with_frozen_weights,
)

STACK = 2  # MFCC vectors per step of APC: a step is 20 ms
AHEAD = 3  # steps that APC predicts ahead
DISTURBED = 16  # augmented versions of the person's audio for the mouth, beside the original
K = 10  # nearest neighbours of the manifold projection
LOOK_AHEAD = 7  # frames of audio after the current one that the mouth uses: the paper's 0.3 s
MOUTH = np.r_[3:14, LIPS].tolist()  # points of the lower jaw and the lips
REPLAYED = np.r_[BROWS, EYES].tolist()  # points that replay the recording
DILATIONS = (1, 2, 4, 8, 16, 32)  # frames, of the causal convolutions
PAST = 1 + sum(DILATIONS)  # frames of pose on which the next one depends
NOISE, TEMPERATURE = 0.1, 1.0  # std added to the training poses; factor of the sampled σ
EDGE = 12  # factor of the drawn lines: they cover few pixels
SOUND = Recipe(260, lr=2e-3)  # of APC
MOUTH_MOTION = Recipe(200, lr=2e-3, weight_decay=0.05)
HEAD_MOTION = Recipe(200, lr=2e-3, weight_decay=0.05)
PAINTER = Recipe(1500, lr=4e-3, clip=None)
JUDGE_LR = 4e-4  # learning rate of the discriminator


class APC(nn.Module):
    """Autoregressive predictive coding (Chung et al. 2019) of MFCC."""

    def __init__(self, dim: int = 96) -> None:
        super().__init__()
        self.gru = nn.GRU(STACK * N_MFCC, dim, 2, batch_first=True)
        self.ahead = nn.Linear(dim, STACK * N_MFCC)

    def forward(self, c: Tensor) -> Tensor:
        """MFCC (B, 4 T, 20) -> states (B, 2 T, dim)."""
        return self.gru(c.unflatten(1, (-1, STACK)).flatten(2))[0]

    def loss(self, c: Tensor) -> Tensor:
        """L1 between the predicted MFCC and the real ones `AHEAD` steps later; c (B, 4 T, 20)."""
        later = c.unflatten(1, (-1, STACK)).flatten(2)[:, AHEAD:]
        return (self.ahead(self(c)[:, :-AHEAD]) - later).abs().mean()


def project_on(bank: Tensor, f: Tensor, k: int = K, reg: float = 1e-3) -> Tensor:
    """Replace features f (T, D) by combinations of their k nearest neighbours in `bank` (N, D).

    The weights sum to one and minimise the squared error (Roweis & Saul 2000; section 4.2 of LSP).
    reg: relative to its trace, this is added to the Gram matrix's diagonal. Returns (T, D).
    """
    near = bank[torch.cdist(f, bank).topk(min(k, len(bank)), largest=False).indices]  # (T, k, D)
    difference = near - f[:, None]
    G = difference @ difference.mT  # (T, k, k)
    trace = G.diagonal(dim1=1, dim2=2).sum(1).clamp_min(1e-12)
    G = G + reg * trace[:, None, None] * torch.eye(G.shape[1], device=f.device)
    w = torch.linalg.solve(G, torch.ones_like(G[..., :1]))
    return (w / w.sum(1, keepdim=True) * near).sum(1)


class MouthNet(nn.Module):
    """Speech states (B, T, 2 dim) -> displacements of jaw and lips (B, T, 31 * 3).

    The displacements are in units of their standard deviation.
    """

    def __init__(self, dim: int, width: int = 128, dropout: float = 0.3) -> None:
        super().__init__()
        self.drop = nn.Dropout(dropout)
        self.lstm = nn.LSTM(dim, width, 2, batch_first=True, dropout=dropout)
        self.out = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(width, width), nn.LeakyReLU(0.2),
            nn.Linear(width, 3 * len(MOUTH)),
        )  # fmt: skip

    def forward(self, f: Tensor) -> Tensor:
        f = torch.cat([f, f[:, -1:].expand(-1, LOOK_AHEAD, -1)], 1)
        return self.out(self.lstm(self.drop(f))[0][:, LOOK_AHEAD:])


class HeadNet(nn.Module):
    """p(next step of the pose | past poses, audio), with gated convolutions as in WaveNet (van den
    Oord et al. 2016). Section 5.2 of LSP."""

    def __init__(self, dim: int, width: int = 32, dropout: float = 0.3) -> None:
        super().__init__()
        self.pose, self.sound = nn.Conv1d(12, width, 1), nn.Conv1d(dim, width, 1)
        self.drop = nn.Dropout(dropout)
        self.gated = nn.ModuleList(nn.Conv1d(width, 2 * width, 2, dilation=d) for d in DILATIONS)
        self.condition = nn.ModuleList(nn.Conv1d(width, 2 * width, 1) for _ in DILATIONS)
        self.mix = nn.ModuleList(nn.Conv1d(width, 2 * width, 1) for _ in DILATIONS)
        self.out = nn.Sequential(nn.ReLU(), nn.Conv1d(width, width, 1), nn.ReLU(),
                                 nn.Conv1d(width, 12, 1))  # fmt: skip

    def forward(self, poses: Tensor, f: Tensor) -> tuple[Tensor, Tensor]:
        """The distribution of the next steps of the pose.

        Args:
            poses: (B, T, 12) poses and their last steps, both normalised.
            f: (B, T, dim) audio features of the frames that follow them.

        Returns mean and log σ of the next steps, (B, T - PAST + 1, 6) each.
        """
        x, c, skips = self.pose(self.drop(poses.mT)), self.drop(self.sound(f.mT)), 0.0
        n = x.shape[2] - PAST + 1
        for gated, condition, mix in zip(self.gated, self.condition, self.mix, strict=True):
            z = gated(x)  # (B, 2 width, T - dilation)
            a, b = (z + condition(c[..., -z.shape[2] :])).chunk(2, 1)
            residual, skip = mix(a.tanh() * b.sigmoid()).chunk(2, 1)
            x, skips = x[..., -z.shape[2] :] + residual, skips + skip[..., -n:]
        mean, log_sigma = self.out(skips).mT.chunk(2, -1)
        return mean, log_sigma.clamp(-4, 2)


def gaussian_nll(x: Tensor, mean: Tensor, log_sigma: Tensor) -> Tensor:
    """-log p(x) of a Gaussian without its constant, in nats, mean over all values; equal shapes."""
    return (0.5 * ((x - mean) * (-log_sigma).exp()).square() + log_sigma).mean()


class Judge(PatchDiscriminator):
    """The discriminator: a picture -> the features of all its layers; the last are the scores."""

    def forward(self, x: Tensor) -> list[Tensor]:
        out = []
        for layer in self.layers:
            out.append(layer(out[-1] if out else x))
        return out


def adversarial(judge: Judge, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The generator's and the discriminator's loss, and the feature-matching loss.

    Feature matching is the mean L1 distance of the discriminator's features of real and generated
    pictures (Wang et al. 2018). real, fake: (B, C, S, S).
    """
    *real_features, real_score = judge(real)
    *fake_features, generator_score = with_frozen_weights(judge, fake)
    pairs = zip(fake_features, real_features, strict=True)
    match = [(a - b.detach()).abs().mean() for a, b in pairs]
    fake_score = judge(fake.detach())[-1]
    generator, discriminator = least_squares(real_score, fake_score, generator_score)
    return generator, discriminator, sum(match) / len(match)


class Painter(nn.Module):
    """Lines of landmarks, candidate frames and slow pose -> the frame; and its discriminator."""

    def __init__(self, mean: Tensor, candidates: Tensor, width: int = 24) -> None:
        super().__init__()
        self.register_buffer("mean", mean)  # (3, S, S)
        self.register_buffer("candidates", candidates)  # (3 N, S, S)
        self.unet = UNet(3 + len(candidates) + 6, 3, width)
        self.judge = Judge(6, 16)

    def forward(self, lines: Tensor, slow: Tensor) -> Tensor:
        """Lines (B, 3, S, S) in 0..1 and slow poses (B, 6), normalised -> frames (B, 3, S, S)."""
        B, _, S, _ = lines.shape
        candidates = self.candidates.expand(B, -1, -1, -1) - 0.5
        pose = slow[:, :, None, None].expand(-1, -1, S, S)  # one constant map per coordinate
        return self.mean + self.unet(torch.cat([EDGE * lines, candidates, pose], 1))


def per_frame(states: Tensor) -> Tensor:
    """Join the states (2 T, dim) of the two steps of each frame: (T, 2 dim)."""
    return states.reshape(len(states) * STACK // PER_FRAME, -1)


def clips(tracks: list[tuple[Tensor, ...]], batch: int, n: int, g: torch.Generator) -> list[Tensor]:
    """Random clips of n moments from `tracks`.

    Each track is a tuple of aligned sequences (T, ...). Returns one tensor (batch, n, ...) for each
    sequence of a track.
    """
    chosen = [tracks[i] for i in torch.randint(len(tracks), (batch,), generator=g).tolist()]
    at = [int(torch.randint(len(x[0]) - n + 1, (), generator=g)) for x in chosen]
    cut = [[y[t : t + n] for y in x] for x, t in zip(chosen, at, strict=True)]
    return [torch.stack(parts) for parts in zip(*cut, strict=True)]


def slow_poses(h: np.ndarray) -> np.ndarray:
    """Poses (T, 6), each averaged over the second that ends with it: shoulders follow these."""
    sums = np.cumsum(np.concatenate([np.repeat(h[:1], FPS, 0), h]), 0)
    return ((sums[FPS:] - sums[:-FPS]) / FPS).astype(np.float32)


class LSP(Method):
    """Live Speech Portraits: trained on one person."""

    name, learns_from, takes = "LSP", "subject", ("pose", "eyes")
    own, face_model = ("heads", "eyes"), "2D landmarks"

    def fit(self, corpus: list[Recording], subject: Recording) -> None:
        self.subject, a = subject, subject.attributes
        self.mean_face = a.landmarks.mean(0)
        # image points minus projected identity-free landmarks: the person's proportions
        self.proportions = (a.points - in_image(a.h, a.landmarks)).mean(0)
        self.pose_mean, self.pose_std = a.h.mean(0), a.h.std(0).clip(1e-4)
        self.step_std = np.diff(a.h, axis=0).std(0).clip(1e-6)
        torch.manual_seed(self.seed)
        self._fit_sound([*corpus, subject])
        self._fit_mouth()
        self._fit_head()
        self._fit_painter()

    def _fit_sound(self, people: list[Recording]) -> None:
        tracks = [
            (torch.from_numpy(mfcc(r.audio, len(r))).unflatten(0, (-1, STACK)),) for r in people
        ]
        self.apc = APC().to(self.device)
        n = min(100, *(len(x) for (x,) in tracks))  # 2 s

        def loss(g: torch.Generator) -> tuple[Tensor, dict[str, float]]:
            L1 = self.apc.loss(clips(tracks, 24, n, g)[0].flatten(1, 2).to(self.device))
            return L1, {"l1": L1.item()}

        data = digest(*(r.audio for r in people))
        self.learn("sound", self.apc, loss, SOUND, data)
        self.bank = self.states(mfcc(self.subject.audio, len(self.subject)))

    @torch.inference_mode()
    def states(self, c: np.ndarray) -> Tensor:
        """MFCC (4 T, 20) -> speech states (2 T, dim)."""
        return self.apc(torch.from_numpy(c)[None].to(self.device))[0].clone()

    def audio_features(self, audio: np.ndarray) -> Tensor:
        """The speech representation of audio (640 T,), projected to the person's: (T, 2 dim)."""
        return per_frame(project_on(self.bank, self.states(mfcc(audio, frame_count(audio)))))

    def _fit_mouth(self) -> None:
        subject, landmarks = self.subject, self.subject.attributes.landmarks
        motion = (landmarks - self.mean_face)[:, MOUTH].reshape(len(subject), -1)
        self.mouth_std = float(motion.std().clip(1e-6))
        motion = (motion / self.mouth_std).astype(np.float32)
        tracks = [(per_frame(self.bank), torch.from_numpy(motion))]
        for c, y in variants(subject.audio, motion, DISTURBED, np.random.default_rng(self.seed)):
            f = self.states(c)  # train on the states themselves and on the projected ones
            both = (per_frame(f), per_frame(project_on(self.bank, f)))
            tracks += [(x, torch.from_numpy(y)) for x in both]
        self.mouth = MouthNet(tracks[0][0].shape[1]).to(self.device)
        n = min(75, *(len(y) for _, y in tracks))

        def loss(g: torch.Generator) -> tuple[Tensor, dict[str, float]]:
            f, y = clips(tracks, 16, n, g)
            L2 = (self.mouth(f.to(self.device)) - y.to(self.device)).square().mean()
            return L2, {"l2": L2.item()}

        self.learn("mouth", self.mouth, loss, MOUTH_MOTION, digest(subject.digest, self.bank))

    def unit_poses(self, h: np.ndarray) -> Tensor:
        """Poses (T + 1, 6) -> the last T and the steps to them, both normalised: (T, 12)."""
        unit_h, unit_step = (h[1:] - self.pose_mean) / self.pose_std, np.diff(h, axis=0)
        x = np.concatenate([unit_h, unit_step / self.step_std], 1)
        return torch.from_numpy(x.astype(np.float32))

    def _fit_head(self) -> None:
        poses, f = self.unit_poses(self.subject.attributes.h), per_frame(self.bank).cpu()
        track = poses[:-1], f[2:], poses[1:, 6:]  # pose t, audio of t + 1, step from t to t + 1
        self.head = HeadNet(f.shape[1]).to(self.device)
        n = min(2 * PAST, len(poses) - 1)

        def loss(g: torch.Generator) -> tuple[Tensor, dict[str, float]]:
            x, c, step = (z.to(self.device) for z in clips([track], 16, n, g))
            # noise, because in sampling the inputs are the model's own inexact outputs
            x = x + NOISE * torch.randn(x.shape, generator=g).to(self.device)
            nll = gaussian_nll(step[:, PAST - 1 :], *self.head(x, c))
            return nll, {"nll": nll.item()}

        self.learn("head", self.head, loss, HEAD_MOTION, digest(self.subject.digest, self.bank))

    @torch.inference_mode()
    def sample_head(self, f: Tensor, temperature: float = TEMPERATURE) -> np.ndarray:
        """Sample a head motion (T, 6) for the audio features f (T, 2 dim), frame by frame.

        It continues a random moment of the person's recording. A pose outside of the recording's
        range is pulled back by a fifth of its distance in each frame.
        """
        own = self.subject.attributes.h
        rng = np.random.default_rng(self.seed)
        start = int(rng.integers(len(own) - PAST))
        h = list(own[start : start + PAST + 1])
        c = torch.cat([per_frame(self.bank)[start + 2 : start + PAST + 1], f])
        lo, hi = own.min(0), own.max(0)
        for t in range(len(f)):
            x = self.unit_poses(np.array(h[-PAST - 1 :]))
            mean, log_sigma = self.head(x[None].to(self.device), c[None, t : t + PAST])
            mean, sigma = mean[0, 0].cpu().numpy(), log_sigma[0, 0].exp().cpu().numpy()
            new = h[-1] + self.step_std * (mean + temperature * sigma * rng.standard_normal(6))
            h.append(new + 0.2 * (new.clip(lo, hi) - new))
        return np.array(h[PAST + 1 :], np.float32)

    def painter_input(self, h: np.ndarray, landmarks: np.ndarray) -> tuple[Tensor, Tensor]:
        """Poses (T, 6) and landmarks (T, 68, 3), metres -> lines (T, 3, S, S) uint8 and normalised
        slow poses (T, 6)."""
        points = in_image(h, landmarks) + self.proportions
        lines = draw_landmarks(points, self.subject.frames.shape[1])
        slow = (slow_poses(h) - self.pose_mean) / self.pose_std
        return torch.from_numpy(lines), torch.from_numpy(slow).float()

    def _fit_painter(self) -> None:
        subject, a = self.subject, self.subject.attributes
        opening, yaw = mouth_opening(a.landmarks), a.h[:, 1]
        chosen = [opening.argmin(), opening.argmax(), yaw.argmin(), yaw.argmax()]
        candidates = pictures(subject.frames[chosen]).flatten(0, 1)
        mean = pictures(subject.frames[:: max(1, len(subject) // 100)]).mean(0)
        self.painter = Painter(mean, candidates).to(self.device)
        lines, slow = self.painter_input(a.h, a.landmarks)
        points = torch.from_numpy(a.points).float()

        def loss(g: torch.Generator) -> tuple[Tensor, dict[str, float]]:
            i = torch.randint(len(subject), (1,), generator=g)
            weight = region_weights(points[i], mean.shape[1])
            batch = lines[i] / 255, slow[i], pictures(subject.frames[i.numpy()]), weight
            edges, pose, real, weight = (x.to(self.device) for x in batch)
            fake = self.painter(edges, pose)
            L1 = (weight * (fake - real).abs()).mean()
            generator, discriminator, match = adversarial(
                self.painter.judge, torch.cat([real, edges], 1), torch.cat([fake, edges], 1)
            )
            parts = dict(l1=L1, generator=generator, discriminator=discriminator, match=match)
            total = 100 * L1 + generator + 10 * match + discriminator
            return total, {k: v.item() for k, v in parts.items()}

        groups = [{"params": self.painter.unet.parameters(), "lr": PAINTER.lr},
                  {"params": self.painter.judge.parameters(), "lr": JUDGE_LR}]  # fmt: skip
        self.learn("painter", self.painter, loss, PAINTER, subject.digest, groups)

    @torch.inference_mode()
    def render(
        self, audio: np.ndarray, pose: Recording | None = None, eyes: Recording | None = None
    ) -> Iterator[np.ndarray]:
        n, f = frame_count(audio), self.audio_features(audio)
        h = to_and_fro(pose.attributes.h, n) if pose else self.sample_head(f)
        landmarks = np.repeat(self.mean_face[None], n, 0)
        if eyes:
            source = eyes.attributes.landmarks
        else:
            start = np.random.default_rng(self.seed).integers(len(self.subject))
            source = np.roll(self.subject.attributes.landmarks, -start, 0)
        landmarks[:, REPLAYED] = to_and_fro(source[:, REPLAYED], n)
        landmarks[:, MOUTH] += self.mouth_std * self.mouth(f[None])[0].view(n, -1, 3).cpu().numpy()
        inputs = self.painter_input(h, landmarks)
        for lines, slow in zip(*(x.split(8) for x in inputs), strict=True):
            yield from as_frames(self.painter(lines.to(self.device) / 255, slow.to(self.device)))
