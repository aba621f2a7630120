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
NEAREST, FARTHEST = 2, 19  # frames by which a negative of the same video is shifted


class SyncModel(nn.Module):
    """E_a, and a head on f_m, into one space of non-negative unit vectors.

    Args:
        loss: `paper` (eq. 3); or, to compare, `hard` (eq. 3 on the hardest tenth of the negatives),
            `sigmoid` (of a scaled cosine with a bias, both learned, as SigLIP) or `infonce`, these
            two on unit vectors of any sign.
        context: convolutions over neighbouring frames in E_a; each adds a frame either way.
    """

    judges_sync = True

    def __init__(self, loss: str = "paper", context: int = 2, width: int = 96):
        super().__init__()

        def conv(c_in: int, k: int, stride: int = 1) -> nn.Sequential:
            return nn.Sequential(
                nn.Conv1d(c_in, width, k, stride, padding=k // 2), nn.BatchNorm1d(width), nn.ReLU()
            )

        self.kind, self.signed = loss, loss in ("sigmoid", "infonce")
        if self.signed:
            self.scale_bias = nn.Parameter(torch.tensor([2.3, -5.0]))  # log scale, bias
        self.register_buffer("f_m_std", torch.ones(DIM_M))
        # 100 Hz -> 25 Hz by two strides, then context: 29 MFCC vectors, 0.29 s, reach one f_a
        self.E_a = nn.Sequential(
            conv(N_MFCC, 5, 2),
            conv(width, 5, 2),
            *(conv(width, 3) for _ in range(context)),
            nn.Conv1d(width, DIM_A, 1),
        )
        # SyncNet looks at five frames, so the head sees f_m of five
        self.E_m = nn.Sequential(conv(DIM_M, 3), conv(width, 3), nn.Conv1d(width, DIM_A, 1))

    def _unit(self, x: Tensor) -> Tensor:
        x = x if self.signed else F.relu(x)
        return F.normalize(x.mT, dim=-1, eps=1e-4)

    def audio(self, mfcc: Tensor) -> Tensor:
        """f_a = E_a(a): (B, 4T, 20) MFCC -> (B, T, 64), unit vectors with no negative entry."""
        return self._unit(self.E_a(mfcc.mT))

    def mouth(self, f_m: Tensor) -> Tensor:
        """(B, T, 32) mouth codes of B clips -> (B, T, 64) in the space of f_a.

        Each clip's mean falls out, as the sound's does: how a mouth stands at rest is not heard.
        """
        return self._unit(self.E_m(((f_m - f_m.mean(1, keepdim=True)) / self.f_m_std).mT))

    def loss(self, f_a: Tensor, f_m: Tensor) -> Tensor:
        """The loss of this model's kind over (B, T, 64) pairs of B aligned clips."""
        if not self.signed:
            return contrastive_loss(f_a, f_m, hardest=0.1 if self.kind == "hard" else 1.0)
        scale, bias = self.scale_bias[0].exp(), self.scale_bias[1]
        if self.kind == "sigmoid":
            positive, own, other = (scale * d + bias for d in pairs(f_a, f_m))
            return F.softplus(-positive).mean() + F.softplus(torch.cat([own, other])).mean()
        together = scale * f_a @ f_m.mT  # which of its clip's moments, and of the next clip's?
        apart = scale * torch.stack([f_a @ f_m.roll(1, 0).mT, (f_a.roll(1, 0) @ f_m.mT).mT])
        target = torch.arange(f_a.shape[1]).repeat(len(f_a))
        return sum(
            F.cross_entropy(torch.cat([own, other], 2).flatten(0, 1), target)
            for own, other in zip((together, together.mT), apart, strict=True)
        )


def pairs(f_a: Tensor, f_m: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Cosines of the pairs that (B, T, D) unit vectors of aligned clips give: aligned (B T,);
    negatives of the same video, shifted by 2 to 19 frames either way; and of another video."""
    d = f_a @ f_m.mT  # (B, T, T)
    t = torch.arange(f_a.shape[1], device=d.device)
    shift = (t[:, None] - t).abs()
    own = d[:, (shift >= NEAREST) & (shift <= FARTHEST)]
    return (
        d.diagonal(dim1=1, dim2=2).flatten(),
        own.flatten(),
        (f_a * f_m.roll(1, 0)).sum(-1).flatten(),
    )


def contrastive_loss(f_a: Tensor, f_m: Tensor, hardest: float = 1.0) -> Tensor:
    """L_con of eq. 3 over (B, T, D) pairs of a batch of aligned clips.

    A cosine lies in (-1, 1), where a cross-entropy is undefined; vectors without negative entries
    keep it in (0, 1), and orthogonal then means "not together", as a probability. Positives and
    negatives weigh the same, though there are more of these; with `hardest` below 1 that share of
    the negatives counts, those most alike.
    """
    positive, own, other = (d.clamp(1e-4, 1 - 1e-4) for d in pairs(f_a, f_m))
    negative = torch.cat([own, other])
    if hardest < 1:
        negative = negative.topk(max(1, int(hardest * len(negative)))).values
    return -positive.log().mean() - (1 - negative).log().mean()


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
        0.5 * rand(B, 1, 1) * wave * randn(B, 1, D) + 0.25 * rand(B, 1, 1) * randn(f_m.shape)
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


def offsets(distances: Tensor, seconds: float = 2.0) -> list[int]:
    """The best offset, in frames, of each clip of that length of a video with (T, 31) distances."""
    n = int(seconds * 25)
    clips = [d for d in distances.split(n) if len(d) >= 0.9 * n]
    return [int(d.nanmean(0).nan_to_num(torch.inf).argmin()) - MAX_OFFSET for d in clips]


def offset_hits(distances: Tensor, seconds: float = 2.0, tolerance: int = 1) -> list[bool]:
    """Of each clip of that length of an aligned video: is its best offset within `tolerance` frames
    of the truth, 0?"""
    return [abs(offset) <= tolerance for offset in offsets(distances, seconds)]
