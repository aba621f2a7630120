"""LSP, Live Speech Portraits (Lu et al., SIGGRAPH Asia 2021): one person's landmarks and head
motion from sound, and pictures from landmarks.

- Autoregressive predictive coding (`APC`): a GRU that predicts sound ahead; its states are the
  speech representation, learnt from sound alone, of everybody's (section 4.1).
- Manifold projection (`project_on`): each state is put together anew from the person's own nearest
  ones, locally linear, so that another voice sounds like the person's (section 4.2).
- Mouth and jaw from these states by an LSTM that hears 0.28 s ahead (section 5.1).
- Head motion by an autoregressive model of dilated causal convolutions, conditioned on sound, whose
  output is a Gaussian to sample (section 5.2). Eyes and brows replay the person's recording.
- Pictures by image translation (section 5.3): a U-Net is shown the landmarks' lines and four
  candidate frames of the person, and taught by L1, a discriminator and the match of its features.

Smaller, at 25 instead of 60 frames/s, and with one minute of the person instead of several. The
sound's frames are MFCC, which `dfa.audio` can disturb to make more of that minute. The U-Net paints
what differs from the mean frame; the discriminator has one scale; there is no VGG for a perceptual
loss. Shoulders have no landmarks here: the network is told the head's pose, averaged over the past
second, on which they depend. No texture or refraction of glasses is treated on its own.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from ..audio import N_MFCC, PER_FRAME, mfcc, variants
from ..evaluate import mouth_opening
from ..media import FPS, frame_count
from ..nerf import region_weights
from ..training import digest
from .method import Method, Recording, in_image
from .parts import (
    PatchDiscriminator,
    UNet,
    as_frames,
    draw_landmarks,
    frozen,
    least_squares,
    pictures,
    to_and_fro,
)  # fmt: skip

STACK = 2  # MFCC vectors to a step of APC, which are then 20 ms
AHEAD = 3  # steps that APC predicts ahead
DISTURBED = 16  # versions of the person's sound, beside it, that the mouth learns from
K = 10  # neighbours on the manifold
LOOK_AHEAD = 7  # frames that the mouth hears ahead: the paper's 0.3 s
MOUTH = [*range(3, 14), *range(48, 68)]  # jaw and lips
REPLAYED = [*range(17, 27), *range(36, 48)]  # brows and eyes
DILATIONS = (1, 2, 4, 8, 16, 32)
PAST = 1 + sum(DILATIONS)  # frames of pose that the next one depends on
NOISE, TEMPERATURE = 0.1, 1.0  # of the poses seen in training; of the samples
EDGE = 12  # lines are few pixels among many that hardly change
STEPS = dict(sound=260, mouth=200, head=200, painter=1500)


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
        """L1 between what is heard `AHEAD` steps later and what was predicted."""
        later = c.unflatten(1, (-1, STACK)).flatten(2)[:, AHEAD:]
        return (self.ahead(self(c)[:, :-AHEAD]) - later).abs().mean()


def project_on(bank: Tensor, f: Tensor, k: int = K, reg: float = 1e-3) -> Tensor:
    """Features f (T, D) as combinations of their k nearest in `bank` (N, D): the weights sum to one
    and reconstruct best (Roweis & Saul 2000), `reg` of the trace added to the Gram matrix."""
    near = bank[torch.cdist(f, bank).topk(min(k, len(bank)), largest=False).indices]  # (T, k, D)
    gap = near - f[:, None]
    G = gap @ gap.mT
    trace = G.diagonal(dim1=1, dim2=2).sum(1).clamp_min(1e-12)
    G = G + reg * trace[:, None, None] * torch.eye(G.shape[1], device=f.device)
    w = torch.linalg.solve(G, torch.ones_like(G[..., :1]))
    return (w / w.sum(1, keepdim=True) * near).sum(1)


class MouthNet(nn.Module):
    """Speech states (B, T, 2 dim) -> displacements of jaw and lips (B, T, 31 * 3), in their std."""

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
    """p(next step of the pose | poses, sound): WaveNet's gated convolutions (van den Oord 2016)."""

    def __init__(self, dim: int, width: int = 32, dropout: float = 0.3) -> None:
        super().__init__()
        self.pose, self.sound = nn.Conv1d(12, width, 1), nn.Conv1d(dim, width, 1)
        self.drop = nn.Dropout(dropout)
        self.gated = nn.ModuleList(nn.Conv1d(width, 2 * width, 2, dilation=d) for d in DILATIONS)
        self.told = nn.ModuleList(nn.Conv1d(width, 2 * width, 1) for _ in DILATIONS)
        self.mix = nn.ModuleList(nn.Conv1d(width, 2 * width, 1) for _ in DILATIONS)
        self.out = nn.Sequential(nn.ReLU(), nn.Conv1d(width, width, 1), nn.ReLU(),
                                 nn.Conv1d(width, 12, 1))  # fmt: skip

    def forward(self, poses: Tensor, f: Tensor) -> tuple[Tensor, Tensor]:
        """Poses and their last steps, both normalised, (B, T, 12), and the sound (B, T, dim) of the
        frames that follow them -> mean and log σ of the next steps, (B, T - PAST + 1, 6) each."""
        x, c, skips = self.pose(self.drop(poses.mT)), self.drop(self.sound(f.mT)), 0.0
        n = x.shape[2] - PAST + 1
        for gated, told, mix in zip(self.gated, self.told, self.mix, strict=True):
            z = gated(x)
            a, b = (z + told(c[..., -z.shape[2] :])).chunk(2, 1)
            residual, skip = mix(a.tanh() * b.sigmoid()).chunk(2, 1)
            x, skips = x[..., -z.shape[2] :] + residual, skips + skip[..., -n:]
        mean, log_sigma = self.out(skips).mT.chunk(2, -1)
        return mean, log_sigma.clamp(-4, 2)


def gaussian_nll(x: Tensor, mean: Tensor, log_sigma: Tensor) -> Tensor:
    """-log p(x), but for a constant, mean over everything."""
    return (0.5 * ((x - mean) * (-log_sigma).exp()).square() + log_sigma).mean()


class Judge(PatchDiscriminator):
    """What all of its stages make of a picture, the scores last."""

    def forward(self, x: Tensor) -> list[Tensor]:
        out = []
        for layer in self.layers:
            out.append(layer(out[-1] if out else x))
        return out


def adversarial(judge: Judge, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The losses of generator and discriminator, and the generator's third: the mean L1 distance of
    the discriminator's features (Wang et al. 2018)."""
    *of_real, is_real = judge(real)
    *of_fake, fooled = frozen(judge, fake)
    match = [(a - b.detach()).abs().mean() for a, b in zip(of_fake, of_real, strict=True)]
    fools, tells = least_squares(is_real, judge(fake.detach())[-1], fooled)
    return fools, tells, sum(match) / len(match)


class Painter(nn.Module):
    """Lines of landmarks, candidates and slow pose -> the frame; and its discriminator."""

    def __init__(self, mean: Tensor, candidates: Tensor, width: int = 24) -> None:
        super().__init__()
        self.register_buffer("mean", mean)  # (3, S, S)
        self.register_buffer("candidates", candidates)  # (3 N, S, S)
        self.unet = UNet(3 + len(candidates) + 6, 3, width)
        self.judge = Judge(6, 16)

    def forward(self, lines: Tensor, slow: Tensor) -> Tensor:
        """(B, 3, S, S) in 0..1 and (B, 6) normalised -> (B, 3, S, S)."""
        B, _, S, _ = lines.shape
        candidates = self.candidates.expand(B, -1, -1, -1) - 0.5
        flat = slow[:, :, None, None].expand(-1, -1, S, S)
        return self.mean + self.unet(torch.cat([EDGE * lines, candidates, flat], 1))


def per_frame(states: Tensor) -> Tensor:
    """States of each step (2 T, dim) -> of each frame (T, 2 dim)."""
    return states.reshape(len(states) * STACK // PER_FRAME, -1)


def clips(tracks: list[tuple[Tensor, ...]], batch: int, n: int, g: torch.Generator) -> list[Tensor]:
    """Clips of n moments from anywhere in tracks, each of which is some aligned sequences (T, ...):
    as many tensors (batch, n, ...)."""
    chosen = [tracks[i] for i in torch.randint(len(tracks), (batch,), generator=g).tolist()]
    at = [int(torch.randint(len(x[0]) - n + 1, (), generator=g)) for x in chosen]
    cut = [[y[t : t + n] for y in x] for x, t in zip(chosen, at, strict=True)]
    return [torch.stack(parts) for parts in zip(*cut, strict=True)]


def slowly(h: np.ndarray) -> np.ndarray:
    """Poses (T, 6) averaged over the second that ends with each, which shoulders follow."""
    sums = np.cumsum(np.concatenate([np.repeat(h[:1], FPS, 0), h]), 0)
    return ((sums[FPS:] - sums[:-FPS]) / FPS).astype(np.float32)


class LSP(Method):
    """Live Speech Portraits of one person."""

    name, learns_from, takes = "LSP", "subject", ("pose", "eyes")
    own, face_model = ("heads", "eyes"), "2D landmarks"

    def fit(self, corpus: list[Recording], subject: Recording) -> None:
        self.subject, a = subject, subject.attributes
        self.mean_face = a.landmarks.mean(0)
        self.proportions = (a.points - in_image(a.h, a.landmarks)).mean(0)  # the person's own
        self.home, self.reach = a.h.mean(0), a.h.std(0).clip(1e-4)
        self.stride = np.diff(a.h, axis=0).std(0).clip(1e-6)
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

        self.learn(
            "sound", self.apc, loss, STEPS["sound"], 2e-3, inputs=digest([r.digest for r in people])
        )
        self.bank = self.states(mfcc(self.subject.audio, len(self.subject)))

    @torch.inference_mode()
    def states(self, c: np.ndarray) -> Tensor:
        """MFCC (4 T, 20) -> speech states (2 T, dim)."""
        return self.apc(torch.from_numpy(c)[None].to(self.device))[0].clone()

    def heard(self, audio: np.ndarray) -> Tensor:
        """The speech representation of each frame on the person's manifold, (T, 2 dim)."""
        return per_frame(project_on(self.bank, self.states(mfcc(audio, frame_count(audio)))))

    def _fit_mouth(self) -> None:
        subject, landmarks = self.subject, self.subject.attributes.landmarks
        moved = (landmarks - self.mean_face)[:, MOUTH].reshape(len(subject), -1)
        self.mouth_std = float(moved.std().clip(1e-6))
        moved = (moved / self.mouth_std).astype(np.float32)
        tracks = [(per_frame(self.bank), torch.from_numpy(moved))]
        for c, y in variants(subject.audio, moved, DISTURBED, np.random.default_rng(self.seed)):
            f = self.states(c)  # also as it will be when it has been projected
            both = (per_frame(f), per_frame(project_on(self.bank, f)))
            tracks += [(x, torch.from_numpy(y)) for x in both]
        self.mouth = MouthNet(tracks[0][0].shape[1]).to(self.device)
        n = min(75, *(len(y) for _, y in tracks))

        def loss(g: torch.Generator) -> tuple[Tensor, dict[str, float]]:
            f, y = clips(tracks, 16, n, g)
            L2 = (self.mouth(f.to(self.device)) - y.to(self.device)).square().mean()
            return L2, {"l2": L2.item()}

        self.learn("mouth", self.mouth, loss, STEPS["mouth"], 2e-3, weight_decay=0.05,
                   inputs=digest(subject.digest, self.bank))  # fmt: skip

    def unit_poses(self, h: np.ndarray) -> Tensor:
        """Poses (T + 1, 6) -> T of them and their last steps, normalised, (T, 12)."""
        x = np.concatenate([(h[1:] - self.home) / self.reach, np.diff(h, axis=0) / self.stride], 1)
        return torch.from_numpy(x.astype(np.float32))

    def _fit_head(self) -> None:
        poses, f = self.unit_poses(self.subject.attributes.h), per_frame(self.bank).cpu()
        track = poses[:-1], f[2:], poses[1:, 6:]  # frame t, the sound of t + 1, the step to it
        self.head = HeadNet(f.shape[1]).to(self.device)
        n = min(2 * PAST, len(poses) - 1)

        def loss(g: torch.Generator) -> tuple[Tensor, dict[str, float]]:
            x, c, step = (z.to(self.device) for z in clips([track], 16, n, g))
            # what it sampled itself will not be as clean as what it learns from
            x = x + NOISE * torch.randn(x.shape, generator=g).to(self.device)
            nll = gaussian_nll(step[:, PAST - 1 :], *self.head(x, c))
            return nll, {"nll": nll.item()}

        self.learn("head", self.head, loss, STEPS["head"], 2e-3, weight_decay=0.05,
                   inputs=digest(self.subject.digest, self.bank))  # fmt: skip

    @torch.inference_mode()
    def sample_head(self, f: Tensor, temperature: float = TEMPERATURE) -> np.ndarray:
        """A head motion (T, 6) to speech (T, 2 dim), sampled frame by frame from some moment of the
        person's recording on, and softly held within that recording's range."""
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
            new = h[-1] + self.stride * (mean + temperature * sigma * rng.standard_normal(6))
            h.append(new + 0.2 * (new.clip(lo, hi) - new))
        return np.array(h[PAST + 1 :], np.float32)

    def shown(self, h: np.ndarray, landmarks: np.ndarray) -> tuple[Tensor, Tensor]:
        """Poses (T, 6), landmarks (T, 68, 3) -> what the painter sees of them: lines (T, 3, S, S)
        uint8 and slow poses (T, 6)."""
        points = in_image(h, landmarks) + self.proportions
        lines = draw_landmarks(points, self.subject.frames.shape[1])
        slow = (slowly(h) - self.home) / self.reach
        return torch.from_numpy(lines), torch.from_numpy(slow).float()

    def _fit_painter(self) -> None:
        subject, a = self.subject, self.subject.attributes
        opening, yaw = mouth_opening(a.landmarks), a.h[:, 1]
        chosen = [opening.argmin(), opening.argmax(), yaw.argmin(), yaw.argmax()]
        candidates = pictures(subject.frames[chosen]).flatten(0, 1)
        mean = pictures(subject.frames[:: max(1, len(subject) // 100)]).mean(0)
        self.painter = Painter(mean, candidates).to(self.device)
        lines, slow = self.shown(a.h, a.landmarks)
        points = torch.from_numpy(a.points).float()

        def loss(g: torch.Generator) -> tuple[Tensor, dict[str, float]]:
            i = torch.randint(len(subject), (1,), generator=g)
            weight = region_weights(points[i], mean.shape[1])
            batch = lines[i] / 255, slow[i], pictures(subject.frames[i.numpy()]), weight
            edges, told, real, weight = (x.to(self.device) for x in batch)
            fake = self.painter(edges, told)
            L1 = (weight * (fake - real).abs()).mean()
            fools, tells, match = adversarial(
                self.painter.judge, torch.cat([real, edges], 1), torch.cat([fake, edges], 1)
            )
            parts = dict(l1=L1, fools=fools, tells=tells, match=match)
            return 100 * L1 + fools + 10 * match + tells, {k: v.item() for k, v in parts.items()}

        rates = [{"params": self.painter.unet.parameters(), "lr": 4e-3},
                 {"params": self.painter.judge.parameters(), "lr": 4e-4}]  # fmt: skip
        self.learn(
            "painter", self.painter, loss, STEPS["painter"], rates, clip=None, inputs=subject.digest
        )

    @torch.inference_mode()
    def render(
        self, audio: np.ndarray, pose: Recording | None = None, eyes: Recording | None = None
    ) -> Iterator[np.ndarray]:
        n, f = frame_count(audio), self.heard(audio)
        h = to_and_fro(pose.attributes.h, n) if pose else self.sample_head(f)
        landmarks = np.repeat(self.mean_face[None], n, 0)
        if eyes:
            source = eyes.attributes.landmarks
        else:
            start = np.random.default_rng(self.seed).integers(len(self.subject))
            source = np.roll(self.subject.attributes.landmarks, -start, 0)
        landmarks[:, REPLAYED] = to_and_fro(source[:, REPLAYED], n)
        landmarks[:, MOUTH] += self.mouth_std * self.mouth(f[None])[0].view(n, -1, 3).cpu().numpy()
        for lines, slow in zip(*(x.split(8) for x in self.shown(h, landmarks)), strict=True):
            yield from as_frames(self.painter(lines.to(self.device) / 255, slow.to(self.device)))
