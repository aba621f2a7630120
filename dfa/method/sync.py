"""Audio-lip synchronisation (section 3.3, eq. 3).

The audio encoder E_a computes f_a from MFCC. Training makes the cosine of f_a and the mouth code
f_m high at the same moment and low at other moments.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..recipe import Recipe, digest
from ..training import pick_device, random_windows, train
from .audio import N_MFCC
from .disentangle import DIM_M

DIM_A = 64  # size of f_a
OUTLIERS = 0.02  # added to the probability of a pair: a few hopeless frames do not decide a clip
MARGIN = 4  # frames: with context 2, an f_a depends on fewer before and after its own
NEAREST, FARTHEST = 2, 19  # time shift, frames, of negative pairs from the same video


class SyncModel(nn.Module):
    """E_a and E_m: they map MFCC and f_m into one space of non-negative unit vectors.

    Args:
        loss: `paper` (eq. 3). For comparison: `hard` (eq. 3, hardest tenth of the negatives),
            `sigmoid` (learned scale and bias of the cosine, Zhai et al. 2023) or `infonce` (van den
            Oord et al. 2018); these two use unit vectors of any sign.
        context: number of convolutions over frames in E_a; each adds one frame on both sides.
        width: channels of each hidden layer.
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
        # Two strides: 100 Hz -> 25 Hz. One f_a depends on 29 MFCC vectors (0.29 s) at context 2.
        self.E_a = nn.Sequential(
            conv(N_MFCC, 5, 2),
            conv(width, 5, 2),
            *(conv(width, 3) for _ in range(context)),
            nn.Conv1d(width, DIM_A, 1),
        )
        # One output depends on f_m of five frames, as in SyncNet (Chung & Zisserman 2016).
        self.E_m = nn.Sequential(conv(DIM_M, 3), conv(width, 3), nn.Conv1d(width, DIM_A, 1))

    def _unit(self, x: Tensor) -> Tensor:
        x = x if self.signed else F.relu(x)
        return F.normalize(x.mT, dim=-1, eps=1e-4)  # (B, D, T) -> (B, T, D)

    def audio(self, mfcc: Tensor) -> Tensor:
        """f_a = E_a(a): MFCC (B, 4T, 20) -> unit vectors (B, T, 64) without negative entries."""
        return self._unit(self.E_a(mfcc.mT))

    def listen(self, mfcc: Tensor) -> Tensor:
        """f_a (T, 64) of a whole sound, MFCC (4T, 20).

        The convolutions see zeros, average speech, beyond the ends. Here they see the first and the
        last MFCC vector repeated, so what ends in silence stays silent.
        """
        padded = F.pad(mfcc.T[None], (4 * MARGIN, 4 * MARGIN), mode="replicate").mT
        return self.audio(padded)[0, MARGIN:-MARGIN]

    def mouth(self, f_m: Tensor) -> Tensor:
        """E_m: mouth codes (B, T, 32) of B clips -> (B, T, 64) in the space of f_a.

        The mean of each clip is subtracted, as for audio: sound says nothing about the shape of a
        resting mouth.
        """
        return self._unit(self.E_m(((f_m - f_m.mean(1, keepdim=True)) / self.f_m_std).mT))

    def mismatch(self, f_m: Tensor, f_a: Tensor) -> Tensor:
        """-log of the probability that pairs of f_m, f_a (..., 64) are aligned: (...), in nats.

        In eq. 3 the cosine is this probability; OUTLIERS are added. `infonce` gives it up to a
        constant.
        """
        d = (f_m * f_a).sum(-1)
        if not self.signed:
            return -(d + OUTLIERS).log()
        scale, bias = self.scale_bias[0].exp(), self.scale_bias[1]
        return -scale * d if self.kind == "infonce" else F.softplus(-(scale * d + bias))

    def loss(self, f_a: Tensor, f_m: Tensor) -> Tensor:
        """The loss that the model was made with, for f_a, f_m (B, T, 64) of B clips: a scalar."""
        if not self.signed:
            return contrastive_loss(f_a, f_m, hardest=0.1 if self.kind == "hard" else 1.0)
        scale, bias = self.scale_bias[0].exp(), self.scale_bias[1]
        if self.kind == "sigmoid":
            positive, own, other = (scale * d + bias for d in pairs(f_a, f_m))
            return F.softplus(-positive).mean() + F.softplus(torch.cat([own, other])).mean()
        # Classify the aligned moment among all moments of the same clip and of another clip.
        same = scale * f_a @ f_m.mT  # (B, T, T)
        another = scale * torch.stack([f_a @ f_m.roll(1, 0).mT, (f_a.roll(1, 0) @ f_m.mT).mT])
        target = torch.arange(f_a.shape[1], device=f_a.device).repeat(len(f_a))  # (B T,)
        return sum(
            F.cross_entropy(torch.cat([own, other], 2).flatten(0, 1), target)  # (B T, 2T)
            for own, other in zip((same, same.mT), another, strict=True)
        )


def pairs(f_a: Tensor, f_m: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Cosines d of audio-mouth pairs (eq. 3); f_a, f_m are unit vectors (B, T, D) of aligned clips.

    Returns d of the aligned pairs (B T,), of negatives from the same video, shifted by 2 to 19
    frames to both sides (n,), and of negatives from another video (B T,).
    """
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
    """L_con of eq. 3, a scalar, for unit vectors f_a, f_m (B, T, D) of B aligned clips.

    Cross-entropy needs d in (0, 1), but a cosine lies in [-1, 1]. Vectors without negative entries
    give d >= 0, which is then the probability that a pair is aligned. Positives and negatives have
    the same total weight. `hardest`: fraction of the negatives used, those with the largest d.
    """
    positive, own, other = (d.clamp(1e-4, 1 - 1e-4) for d in pairs(f_a, f_m))
    negative = torch.cat([own, other])
    if hardest < 1:
        negative = negative.topk(max(1, int(hardest * len(negative)))).values
    return -positive.log().mean() - (1 - negative).log().mean()  # eq. 3


def augment(mfcc: Tensor, f_m: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Random noise and gaps in MFCC (B, 4T, 20), noise and slow drift in f_m (B, T, 32).

    Returns both, in the same shapes.
    """
    rand = lambda *s: torch.rand(*s, generator=generator)  # noqa: E731
    randn = lambda *s: torch.randn(*s, generator=generator)  # noqa: E731
    B, T, D = f_m.shape
    mfcc = mfcc + randn(mfcc.shape) * 0.2 * rand(B, 1, 1)
    start = (rand(B, 1) * 4 * T).long()
    gap = (torch.arange(4 * T) >= start) & (torch.arange(4 * T) < start + (rand(B, 1) * 12).long())
    mfcc = mfcc.masked_fill(gap[..., None], 0.0)
    std = f_m.std(1, keepdim=True)  # (B, 1, 32)
    drift = torch.sin(
        2 * torch.pi * (0.1 + 0.7 * rand(B, 1, 1)) * torch.arange(T)[:, None] / 25
        + 6.3 * rand(B, 1, 1)
    )
    f_m = f_m + std * (
        0.5 * rand(B, 1, 1) * drift * randn(B, 1, D) + 0.25 * rand(B, 1, 1) * randn(f_m.shape)
    )
    return mfcc, f_m


@dataclass(frozen=True)
class SyncRecipe(Recipe):
    """Settings of the training of E_a; `loss` and `context` as in `SyncModel`."""

    lr: float = 2e-3
    weight_decay: float = 1e-2
    batch: int = 24  # clips per step
    window: int = 50  # frames per clip
    loss: str = "paper"
    context: int = 2


def train_sync(
    f_m: list[Tensor], sounds: list[Tensor], recipe: SyncRecipe, path: Path, seed: int,
    device: str = "auto",
) -> tuple[SyncModel, list[dict]]:  # fmt: skip
    """Train E_a (eq. 3) on mouth codes (T, 32) and MFCC (4T, 20) of all corpus subjects.

    Returns the model, on the CPU, and the history. Arguments, history and errors as in
    `training.train`.
    """
    torch.manual_seed(seed)
    where = pick_device(device)
    model, n = SyncModel(recipe.loss, recipe.context).to(where), recipe.window
    model.f_m_std.copy_(torch.cat(f_m).std(0))

    def loss(g: torch.Generator) -> tuple[Tensor, dict]:
        cuts = list(random_windows(f_m, n, recipe.batch, g))
        a = torch.stack([sounds[i][4 * s : 4 * (s + n)] for i, s in cuts])  # (B, 4n, 20)
        m = torch.stack([f_m[i][s : s + n] for i, s in cuts])  # (B, n, 32)
        a, m = (x.to(where) for x in augment(a, m, g))
        return model.loss(model.audio(a), model.mouth(m)), {}

    data = digest(*f_m, *sounds)
    history = train(model, loss, recipe, path=path, seed=seed, data=data, label="E_a")
    return model.cpu(), history
