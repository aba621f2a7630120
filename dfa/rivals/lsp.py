"""LSP, Live Speech Portraits (Lu et al., SIGGRAPH Asia 2021): one person's landmarks and head motion
from sound, and pictures from landmarks.

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
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from ..audio import N_MFCC, PER_FRAME, mfcc, variants
from ..evaluate import mouth_opening
from ..media import FPS, frame_count
from ..nerf import region_weights
from ..training import digest
from .method import Method, Recording, in_image
from .parts import PatchDiscriminator, UNet, as_frames, draw_landmarks, pictures, to_and_fro

STACK = 2  # MFCC vectors to a step of APC, which are then 20 ms
AHEAD = 3  # steps that APC predicts ahead
K = 10  # neighbours on the manifold
LOOK_AHEAD = 7  # frames that the mouth hears ahead: the paper's 0.3 s
MOUTH = [*range(3, 14), *range(48, 68)]  # jaw and lips
REPLAYED = [*range(17, 27), *range(36, 48)]  # brows and eyes
DILATIONS = (1, 2, 4, 8, 16, 32)
PAST = 1 + sum(DILATIONS)  # frames of pose that the next one depends on
CANDIDATES = 4


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


def features(judge: PatchDiscriminator, x: Tensor, constant: bool = False) -> list[Tensor]:
    """The outputs of the discriminator's stages, its scores last."""
    out = []
    for layer in judge.layers:
        frozen = {k: v.detach() for k, v in layer.named_parameters()}
        x = functional_call(layer, frozen, x) if constant else layer(x)
        out.append(x)
    return [*out[1:-1], out[-1]]


def adversarial(
    judge: PatchDiscriminator, real: Tensor, fake: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Least-squares losses of generator and discriminator, as `parts.adversarial`, and the match of
    features (Wang et al. 2018): their L1 distance, each stage in its mean magnitude."""
    of_real, of_fake = features(judge, real), features(judge, fake, constant=True)
    fools = (of_fake[-1] - 1).square().mean()
    match = [(a - b.detach()).abs().mean() for a, b in zip(of_fake[:-1], of_real, strict=False)]
    tells = (of_real[-1] - 1).square().mean() + judge(fake.detach()).square().mean()
    return fools, tells / 2, sum(match) / len(match)


class Painter(nn.Module):
    """Lines of landmarks, candidates and slow pose -> the frame; and its discriminator."""

    def __init__(self, mean: Tensor, candidates: Tensor, width: int = 32) -> None:
        super().__init__()
        self.register_buffer("mean", mean)  # (3, S, S)
        self.register_buffer("candidates", candidates)  # (3 N, S, S)
        self.unet = UNet(3 + len(candidates) + 6, 3, width)
        self.judge = PatchDiscriminator(6, 16)

    def forward(self, lines: Tensor, slow: Tensor) -> Tensor:
        """(B, 3, S, S) in 0..1 and (B, 6) normalised -> (B, 3, S, S)."""
        B, _, S, _ = lines.shape
        flat = slow[:, :, None, None].expand(-1, -1, S, S)
        return self.mean + self.unet(
            torch.cat([lines, self.candidates.expand(B, -1, -1, -1) - 0.5, flat], 1)
        )


def slowly(h: np.ndarray) -> np.ndarray:
    """Poses (T, 6) averaged over the second that ends with each, which shoulders follow."""
    sums = np.cumsum(np.concatenate([np.repeat(h[:1], FPS, 0), h]), 0)
    return ((sums[FPS:] - sums[:-FPS]) / FPS).astype(np.float32)


class LSP(Method):
    name, learns_from, takes = "LSP", "subject", ("pose", "eyes")
    own, face_model = ("heads", "eyes"), "2D landmarks"

    def fit(self, corpus: list[Recording], subject: Recording) -> None:
        self.subject, a = subject, subject.attributes
        torch.manual_seed(self.seed)
        self._fit_sound(corpus, subject)
        self._fit_mouth()
        self._fit_head()
        self._fit_painter()

    def states(self, c: np.ndarray) -> Tensor:
        """MFCC (4 T, 20) -> speech states of each step, (2 T, dim)."""
        with torch.inference_mode():
            return self.apc(torch.from_numpy(c)[None].to(self.device))[0].clone()

    def heard(self, audio: np.ndarray) -> Tensor:
        """The speech representation on the person's manifold, (T, 2 dim)."""
        f = self.states(mfcc(audio, frame_count(audio)))
        return per_frame(project_on(self.bank, f))

    def _fit_sound(self, corpus: list[Recording], subject: Recording) -> None:
        sounds = [torch.from_numpy(mfcc(r.audio, len(r))) for r in [*corpus, subject]]
        self.apc = APC().to(self.device)
        n = 4 * min(50, min(map(len, sounds)) // 4)  # 2 s

        def loss(g: torch.Generator) -> tuple[Tensor, dict[str, float]]:
            who = torch.randint(len(sounds), (24,), generator=g).tolist()
            at = [int(torch.randint(len(sounds[i]) - n + 1, (), generator=g)) for i in who]
            clips = torch.stack([sounds[i][t : t + n] for i, t in zip(who, at, strict=True)])
            L = self.apc.loss(clips.to(self.device))
            return L, {"l1": L.item()}

        self.learn("sound", self.apc, loss, 500, 2e-3,
                   inputs=digest([r.digest for r in [*corpus, subject]]))  # fmt: skip
        self.bank = self.states(sounds[-1].numpy())

    def _fit_mouth(self) -> None:
        subject, landmarks = self.subject, self.subject.attributes.landmarks
        self.mean_face = landmarks.mean(0)
        moved = (landmarks - self.mean_face)[:, MOUTH].reshape(len(landmarks), -1)
        self.mouth_std = float(moved.std())
        moved = (moved / self.mouth_std).astype(np.float32)
        rng = np.random.default_rng(self.seed)
        heard = [(mfcc(subject.audio, len(subject)), moved)]
        heard += variants(subject.audio, moved, 6, rng)
        tracks = [(per_frame(self.states(c)), torch.from_numpy(y)) for c, y in heard]
        self.mouth = MouthNet(tracks[0][0].shape[1]).to(self.device)
        n = min(75, min(len(y) for _, y in tracks))

        def loss(g: torch.Generator) -> tuple[Tensor, dict[str, float]]:
            who = torch.randint(len(tracks), (16,), generator=g).tolist()
            at = [int(torch.randint(len(tracks[i][1]) - n + 1, (), generator=g)) for i in who]
            f, y = (torch.stack([tracks[i][k][t : t + n] for i, t in zip(who, at, strict=True)])
                    for k in (0, 1))  # fmt: skip
            L = (self.mouth(f.to(self.device)) - y.to(self.device)).square().mean()
            return L, {"l2": L.item()}

        self.learn("mouth", self.mouth, loss, 500, 2e-3, weight_decay=0.05,
                   inputs=digest(subject.digest, self.bank))  # fmt: skip

    def _fit_head(self) -> None:
        h = self.subject.attributes.h
        step = np.diff(h, axis=0, prepend=h[:1])
        self.home = h.mean(0), np.maximum(h.std(0), 1e-4)
        self.stride = np.maximum(step.std(0), 1e-6)
        poses = self.unit_poses(h, step)
        f = per_frame(self.bank)
        f_next = torch.cat([f[1:], f[-1:]])
        target = poses[1:, 6:]
        self.head = HeadNet(f.shape[1]).to(self.device)
        n = min(2 * PAST, len(target))

        def loss(g: torch.Generator) -> tuple[Tensor, dict[str, float]]:
            at = torch.randint(len(target) - n + 1, (16,), generator=g).tolist()
            x, c, y = (torch.stack([z[t : t + n] for t in at]) for z in (poses, f_next, target))
            x = x + self.head_noise * torch.randn(x.shape, generator=g)
            x, c, y = (z.to(self.device) for z in (x, c, y))
            nll = gaussian_nll(y[:, PAST - 1 :], *self.head(x, c))
            return nll, {"nll": nll.item()}

        self.learn("head", self.head, loss, self.head_steps, 2e-3, weight_decay=0.05,
                   inputs=digest(self.subject.digest, self.bank))  # fmt: skip

    head_noise, head_steps, sigma_scale = 0.1, 400, 1.0

    def unit_poses(self, h: np.ndarray, step: np.ndarray) -> Tensor:
        """Poses (T, 6) and their last steps, normalised: (T, 12)."""
        x = np.concatenate([(h - self.home[0]) / self.home[1], step / self.stride], 1)
        return torch.from_numpy(x.astype(np.float32))

    @torch.inference_mode()
    def sample_head(self, f: Tensor) -> np.ndarray:
        """A head motion (T, 6) to speech (T, 2 dim), sampled frame by frame from a moment of the
        person's own; it is drawn back softly where it leaves the person's reach."""
        own = self.subject.attributes.h
        g = torch.Generator().manual_seed(self.seed)
        rng = np.random.default_rng(self.seed)
        start = int(rng.integers(1, max(2, len(own) - PAST)))
        h = list(own[start : start + PAST])
        h = [own[0]] * (PAST - len(h)) + h
        h = list(np.array(h))
        lo, hi = own.min(0), own.max(0)
        f = torch.cat([f[:1].expand(PAST - 1, -1), f])
        for t in range(len(f) - PAST + 1):
            past = np.array(h[-PAST - 1 :])
            past = np.concatenate([past[:1]] * (PAST + 1 - len(past)) + [past])
            x = self.unit_poses(past[1:], np.diff(past, axis=0))
            mean, log_sigma = self.head(x[None].to(self.device), f[None, t : t + PAST])
            noise = torch.randn(6, generator=g).to(self.device)
            step = (mean + self.sigma_scale * log_sigma.exp() * noise)[0, 0].cpu().numpy() * self.stride
            new = h[-1] + step
            h.append(new + 0.2 * (np.clip(new, lo, hi) - new))
        return np.array(h[PAST:], np.float32)

    @torch.inference_mode()
    def render(
        self, audio: np.ndarray, pose: Recording | None = None, eyes: Recording | None = None
    ) -> Iterator[np.ndarray]:
        n, f = frame_count(audio), self.heard(audio)
        h = to_and_fro(pose.attributes.h, n) if pose else self.sample_head(f)
        if eyes:
            replayed = to_and_fro(eyes.attributes.landmarks, n)
        else:
            own = self.subject.attributes.landmarks
            start = int(np.random.default_rng(self.seed + 1).integers(len(own)))
            replayed = to_and_fro(np.roll(own, -start, 0), n)
        landmarks = np.repeat(self.mean_face[None], n, 0)
        landmarks[:, REPLAYED] = replayed[:, REPLAYED]
        moved = self.mouth(f[None])[0].view(n, -1, 3).cpu().numpy()
        landmarks[:, MOUTH] += moved * self.mouth_std
        yield from self.paint(h, landmarks)

    def place(self, h: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        """Landmarks (T, 68, 3) under poses h (T, 6) in the picture, in the person's proportions."""
        return in_image(h, landmarks) + self.proportions

    def _fit_painter(self) -> None:
        subject, a = self.subject, self.subject.attributes
        size = subject.frames.shape[1]
        self.proportions = (a.points - in_image(a.h, a.landmarks)).mean(0)
        self.home = a.h.mean(0), np.maximum(a.h.std(0), 1e-4)
        opening = mouth_opening(a.landmarks)
        chosen = [opening.argmin(), opening.argmax(), a.h[:, 1].argmin(), a.h[:, 1].argmax()]
        candidates = pictures(subject.frames[chosen]).flatten(0, 1)
        mean = torch.from_numpy(subject.frames[:: max(1, len(subject) // 100)].mean(0))
        self.painter = Painter(mean.float().movedim(-1, 0) / 255, candidates).to(self.device)
        lines = torch.from_numpy(draw_landmarks(self.place(a.h, a.landmarks), size))
        slow = torch.from_numpy((slowly(a.h) - self.home[0]) / self.home[1]).float()
        points = torch.from_numpy(a.points).float()

        def loss(g: torch.Generator) -> tuple[Tensor, dict[str, float]]:
            i = torch.randint(len(subject), (2,), generator=g)
            parts = lines[i] / 255, slow[i], pictures(subject.frames[i.numpy()])
            edges, told, real = (x.to(self.device) for x in parts)
            weight = region_weights(points[i], size).to(self.device)
            fake = self.painter(edges, told)
            L1 = (weight * (fake - real).abs()).mean()
            fools, tells, match = adversarial(
                self.painter.judge, torch.cat([real, edges], 1), torch.cat([fake, edges], 1)
            )
            mse = (fake - real).square().mean().item()
            parts = {"l1": L1.item(), "fools": fools.item(), "tells": tells.item(),
                     "match": match.item(), "psnr": -10 * np.log10(mse)}  # fmt: skip
            return self.weights[0] * L1 + fools + self.weights[1] * match + tells, parts

        self.learn("painter", self.painter, loss, self.painter_steps, self.painter_lr, clip=None,
                   inputs=subject.digest)  # fmt: skip

    weights = 100.0, 10.0
    painter_steps, painter_lr = 1200, 1e-3

    @torch.inference_mode()
    def paint(self, h: np.ndarray, landmarks: np.ndarray) -> Iterator[np.ndarray]:
        lines = torch.from_numpy(
            draw_landmarks(self.place(h, landmarks), self.subject.frames.shape[1])
        )
        slow = torch.from_numpy((slowly(h) - self.home[0]) / self.home[1]).float()
        for edges, told in zip(lines.split(8), slow.split(8), strict=True):
            yield from as_frames(self.painter(edges.to(self.device) / 255, told.to(self.device)))


def per_frame(states: Tensor) -> Tensor:
    """(2 T, dim) -> (T, 2 dim)."""
    return states.reshape(len(states) * STACK // PER_FRAME, -1)
