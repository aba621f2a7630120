"""Audio-lip synchronisation (section 3.3, eq. 3) and the Sync expert of the evaluation.

E_a hears MFCC and must point the same way as the mouth code f_m of the same moment. The expert is a
SyncNet (Chung & Zisserman 2016) on pixels: it judges, and no stage of the method learns from it.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .audio import N_MFCC, PER_FRAME
from .disentangle import DIM_M

DIM_A = 64
MAX_OFFSET = 15  # frames either way, SyncNet's search


class SyncModel(nn.Module):
    """E_a, and a head on f_m, into one space of non-negative unit vectors."""

    def __init__(self, width: int = 96):
        super().__init__()

        def conv(c_in: int, k: int, stride: int = 1) -> nn.Sequential:
            return nn.Sequential(
                nn.Conv1d(c_in, width, k, stride, padding=k // 2), nn.BatchNorm1d(width), nn.ReLU()
            )

        self.register_buffer("f_m_mean", torch.zeros(DIM_M))
        self.register_buffer("f_m_std", torch.ones(DIM_M))
        # 100 Hz -> 25 Hz by two strides, then context: 33 MFCC vectors, 0.33 s, reach one f_a
        self.E_a = nn.Sequential(
            conv(N_MFCC, 5, 2),
            conv(width, 5, 2),
            conv(width, 3),
            conv(width, 3),
            nn.Conv1d(width, DIM_A, 1),
        )
        # SyncNet looks at five frames, so the head sees f_m of five
        self.E_m = nn.Sequential(conv(DIM_M, 3), conv(width, 3), nn.Conv1d(width, DIM_A, 1))

    def audio(self, mfcc: Tensor) -> Tensor:
        """f_a = E_a(a): (B, 4T, 20) MFCC -> (B, T, 64), unit vectors with no negative entry."""
        return F.normalize(F.relu(self.E_a(mfcc.mT)).mT, dim=-1, eps=1e-4)

    def mouth(self, f_m: Tensor) -> Tensor:
        """(B, T, 32) mouth codes -> (B, T, 64) in the space of f_a."""
        f_m = (f_m - self.f_m_mean) / self.f_m_std
        return F.normalize(F.relu(self.E_m(f_m.mT)).mT, dim=-1, eps=1e-4)


def contrastive_loss(f_a: Tensor, f_m: Tensor, generator: torch.Generator) -> Tensor:
    """L_con of eq. 3 over (B, T, D) pairs of a batch of aligned clips.

    Positive: f_a and f_m of one moment. Negatives: the same video shifted by 2 to 19 frames, and
    another video. A cosine lies in (-1, 1), where a cross-entropy is undefined; vectors without
    negative entries keep it in (0, 1), and orthogonal then means "not together", as a probability.
    """
    T = f_a.shape[1]
    d = lambda a, m: (a * m).sum(-1).clamp(1e-4, 1 - 1e-4)  # noqa: E731
    shift = int(torch.randint(2, min(20, T - 1), (), generator=generator))
    positive = d(f_a, f_m)
    negatives = (
        d(f_a[:, shift:], f_m[:, :-shift]),
        d(f_a[:, :-shift], f_m[:, shift:]),
        d(f_a, f_m.roll(1, 0)),
    )
    return -positive.log().mean() - torch.cat([(1 - n).log().flatten() for n in negatives]).mean()


def augment(mfcc: Tensor, f_m: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Noise and gaps in the sound (B, 4T, 20); noise and slow drift in f_m (B, T, 32)."""
    rand = lambda *s: torch.rand(*s, generator=generator)  # noqa: E731
    randn = lambda *s: torch.randn(*s, generator=generator)  # noqa: E731
    B, T, D = f_m.shape
    mfcc = mfcc + randn(mfcc.shape) * 0.2 * rand(B, 1, 1)
    start = (rand(B, 1) * 4 * T).long()
    gap = (torch.arange(4 * T) >= start) & (torch.arange(4 * T) < start + (rand(B, 1) * 12).long())
    mfcc = mfcc.masked_fill(gap[..., None], 0.0)
    std = f_m.std(1, keepdim=True)
    wave = torch.sin(
        2 * torch.pi * (0.1 + 0.7 * rand(B, 1, 1)) * torch.arange(T)[:, None] / 25
        + 6.3 * rand(B, 1, 1)
    )
    f_m = f_m + std * (
        0.3 * rand(B, 1, 1) * wave * randn(B, 1, D) + 0.2 * rand(B, 1, 1) * randn(f_m.shape)
    )
    return mfcc, f_m


class SyncExpert(nn.Module):
    """SyncNet's two towers, narrow: 5 frames of mouth (48x64 grey) and 20 MFCC vectors -> 256-d."""

    FRAMES, HEIGHT, WIDTH, DIM = 5, 48, 64, 256

    def __init__(self, w: int = 24):
        super().__init__()

        def conv(c_in: int, c_out: int, stride: tuple[int, int] | int) -> nn.Sequential:
            return nn.Sequential(
                nn.Conv2d(c_in, c_out, 3, stride, padding=1, bias=False),
                nn.BatchNorm2d(c_out),
                nn.ReLU(),
            )

        self.video_tower = nn.Sequential(
            conv(self.FRAMES, w, 2), conv(w, 2 * w, 2), conv(2 * w, 4 * w, 2),
            conv(4 * w, 4 * w, 2),
            nn.Flatten(), nn.Linear(4 * w * 3 * 4, self.DIM),
        )  # fmt: skip
        self.audio_tower = nn.Sequential(
            conv(1, w, (1, 1)), conv(w, 2 * w, 2), conv(2 * w, 4 * w, 2), conv(4 * w, 4 * w, 2),
            nn.Flatten(), nn.Linear(4 * w * 3 * 3, self.DIM),
        )  # fmt: skip

    def video(self, mouths: Tensor) -> Tensor:
        """(T, 48, 64) grey mouths in 0..1 -> (T - 4, 256), one embedding for each 5 frames."""
        windows = mouths.unfold(0, self.FRAMES, 1).permute(0, 3, 1, 2)  # (T-4, 5, H, W)
        # brightness and contrast of a skin say nothing about sync
        centred = windows - windows.mean((1, 2, 3), keepdim=True)
        return self.video_tower(centred / centred.std((1, 2, 3), keepdim=True).clamp_min(1e-3))

    def audio(self, mfcc: Tensor) -> Tensor:
        """(4T, 20) MFCC -> (T - 4, 256)."""
        windows = mfcc.unfold(
            0, self.FRAMES * PER_FRAME, PER_FRAME
        )  # (T-4, 20 coefficients, 20 steps)
        return self.audio_tower(windows.unsqueeze(1))


def expert_loss(expert: SyncExpert, mouths: list[Tensor], mfccs: list[Tensor]) -> Tensor:
    """Which of the sounds around (and of other clips) belongs to these 5 frames? Cross-entropy over
    minus the L2 distances, SyncNet's metric, both ways. Lists of (T, 48, 64) and (4T, 20)."""
    v = torch.cat([expert.video(m) for m in mouths])
    a = torch.cat([expert.audio(m) for m in mfccs])
    logits = -torch.cdist(v, a)
    target = torch.arange(len(v), device=v.device)
    return F.cross_entropy(logits, target) + F.cross_entropy(logits.mT, target)


def mouth_crops(frames: np.ndarray, points: np.ndarray) -> Tensor:
    """Grey mouths, upright and of one size, as the expert sees them.

    Args:
        frames: (T, S, S, 3) uint8. points: (T, 68, 2) tracked points in unit coordinates.

    Returns (T, 48, 64) float32 in 0..1; 64 pixels are 1.1 inter-ocular distances wide.
    """
    import cv2

    side, out = frames.shape[1], []
    eyes = np.stack([points[:, 36:42].mean(1), points[:, 42:48].mean(1)], 1) * side  # (T, 2, 2)
    axis = eyes[:, 1] - eyes[:, 0]
    # the size is the clip's, not the frame's: a mouth must not pulse with the eyes' noise
    scale = SyncExpert.WIDTH / (1.1 * np.median(np.linalg.norm(axis, axis=1)))
    # the nose base is a steadier anchor than the lips, whose movement is the message
    anchor = points[:, 33] * side
    for t in range(len(frames)):
        c, s = axis[t] / np.linalg.norm(axis[t]) * scale
        turn = np.array([[c, s], [-s, c]])
        centre = np.array([SyncExpert.WIDTH / 2, SyncExpert.HEIGHT * 0.2])
        matrix = np.concatenate([turn, (centre - turn @ anchor[t])[:, None]], 1)
        grey = cv2.cvtColor(frames[t], cv2.COLOR_RGB2GRAY)
        out.append(
            cv2.warpAffine(
                grey, matrix, (SyncExpert.WIDTH, SyncExpert.HEIGHT), borderMode=cv2.BORDER_REPLICATE
            )
        )
    return torch.from_numpy(np.stack(out)).float() / 255


def offset_distances(v: Tensor, a: Tensor) -> Tensor:
    """L2 distances of (T, D) embeddings over the offsets -15 .. 15, (T, 31).

    Column k compares video t with audio t + k - 15; nan where that lies outside the clip.
    """
    T = len(v)
    audio = torch.full((T + 2 * MAX_OFFSET, a.shape[1]), float("nan"))
    audio[MAX_OFFSET : MAX_OFFSET + T] = a[:T]
    return torch.stack([(v - audio[k : k + T]).norm(dim=1) for k in range(2 * MAX_OFFSET + 1)], 1)


def confidence(distances: Tensor) -> tuple[float, int]:
    """SyncNet's confidence (median minus minimum of the mean distance) and the offset in frames;
    (nan, 0) where there is no distance at all."""
    curve = distances.nanmean(0)
    # an offset that less than half of the frames can see says nothing
    seen = (distances.isfinite().float().mean(0) >= 0.5).nonzero()[:, 0]
    curve = curve[seen]
    if not len(curve):  # no face was found in any frame
        return float("nan"), 0
    return float(curve.median() - curve.min()), int(seen[curve.argmin()]) - MAX_OFFSET


def offset_hits(distances: Tensor, seconds: float = 2.0, tolerance: int = 1) -> list[bool]:
    """For each clip of that length of an aligned video, from its (T, 31) distances: is its best
    offset within `tolerance` frames of the truth, 0?"""
    n = int(seconds * 25)
    clips = [d for d in distances.split(n) if len(d) >= 0.9 * n]
    best = [int(torch.nan_to_num(d.nanmean(0), nan=torch.inf).argmin()) - MAX_OFFSET for d in clips]
    return [abs(b) <= tolerance for b in best]
