"""Face attributes generation (section 3.4): the cross-modal encoder (eq. 9).

It generates head motion and blinks of any length, with or without audio.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ..media import InputError
from ..recipe import Recipe, digest
from ..training import pick_device, random_windows, train
from .gpvae import (
    BOP,
    JITTER,
    NETS,
    POSE,
    WINDOW,
    AttributeVAE,
    cauchy,
    centred,
    cholesky,
    gaussian_kl,
    rice_length,
)

UNSURE = 0.02  # variance of the error of f_h, the code of the beginning of pose
SMOOTH = 1e-4  # jitter of generated paths: JITTER models the tracker's noise, not motion
DOUBT = 10 * 25  # pseudo-count, frames, of the blink rate of the corpus


class CrossModalEncoder(nn.Module):
    """E_ah (figure 4b): [f_h ; f_a], concatenated in time, -> N(μ', K') of z over the whole window.

    The Gaussian process gives the mean and covariance of z given f_h, the latent code of the
    beginning of pose. The network shifts this mean and scales this covariance. Length scales and
    variances of the person are learned; the blink rate is counted. Without a process (table 4) the
    network gives mean and variance alone.
    """

    def __init__(self, vae: AttributeVAE, d_audio: int = 64, width: int = 64):
        super().__init__()
        self.audio_in, self.bop_in = nn.Linear(d_audio, width), nn.Linear(vae.latent, width)
        self.silence = nn.Parameter(torch.zeros(width))  # input in place of missing audio
        self.modality = nn.Parameter(0.02 * torch.randn(2, width))
        self.net = NETS[vae.net](width, 2 * vae.latent, layers=2)
        self.log_scales = nn.Parameter(vae.length_scales[1:].log().clone())
        self.log_variances = nn.Parameter(torch.zeros(vae.latent - 1))
        self.register_buffer("blink_length", vae.length_scales[0].clone())  # ℓ_0
        with torch.no_grad():
            self.net.head.weight.mul_(0.1)
            self.net.head.bias.zero_()

    def conditional(
        self, T: int, tau: int, unsure: float = UNSURE, jitter: float = JITTER
    ) -> tuple[Tensor, Tensor]:
        """Conditional of the process: z | z_{1:τ} ~ N(W z_{1:τ}, L Lᵀ).

        unsure: variance of the noise on z_{1:τ}; jitter: variance of the white noise in the kernel.
        Returns W (D, T, τ) and L (D, T, T).
        """
        ell = torch.cat([self.blink_length[None], self.log_scales.exp()]).double()[:, None, None]
        variance = torch.cat([torch.ones_like(self.log_variances[:1]), self.log_variances.exp()])
        t = torch.arange(T, dtype=torch.float64, device=ell.device)
        identity = torch.eye(T, dtype=torch.float64, device=ell.device)
        variance = (1 - JITTER) * variance.double()[:, None, None]
        K = cauchy(t[:, None] - t, ell, variance) + jitter * identity  # (D, T, T)
        known = K[:, :tau, :tau] + unsure * identity[:tau, :tau]
        W = torch.linalg.solve(known, K[:, :tau]).mT
        return W.float(), cholesky(K - W @ K[:, :tau]).float()

    def forward(
        self, vae: AttributeVAE, f_h: Tensor, f_a: Tensor | None, T: int,
        without_audio: Tensor | None = None, conditional: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor, Tensor | None]:  # fmt: skip
        """f_h (B, τ, D), f_a (B, T, 64) -> μ', s (B, T, D), L (D, T, T) of N(μ', K') of z.

        K' = diag(s) L Lᵀ diag(s). Without a process K' = diag(s²), and L is None.

        Args:
            f_a: None for no audio.
            without_audio: (B,) bool, members of the batch whose audio is ignored.
            conditional: the result of `conditional`, if it is computed already.
        """
        tau = f_h.shape[1]
        if f_a is None:
            audio = self.silence.expand(len(f_h), T - tau, -1)
        else:
            audio = self.audio_in(f_a[:, tau:])  # (B, T - τ, width)
            if without_audio is not None:
                audio = torch.where(without_audio[:, None, None], self.silence, audio)
        tokens = [self.bop_in(f_h) + self.modality[0], audio + self.modality[1]]
        shift, log_s = self.net(torch.cat(tokens, 1)).chunk(2, -1)  # (B, T, D) each
        s = log_s.clamp(-4, 1).exp()
        if not vae.gp:
            return shift, s, None
        W, L = conditional or self.conditional(T, tau)
        # The shift is zero in the first τ frames and grows after them, so there is no jump.
        t = torch.arange(T, device=shift.device)[:, None] - (tau - 1)
        shift = shift * (1 - torch.exp(-t.clamp_min(0) / 5.0))
        return torch.einsum("dts,bsd->btd", W, f_h) + shift, s, L

    def loss(
        self, vae: AttributeVAE, x: Tensor, f_a: Tensor | None, tau: int, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        """In place of L_CME (eq. 9): CRPS of two samples of the future poses, and of their
        velocities, plus KL(q_φ(z | h) || N(μ', K')), which covers the eyes too.

        x: (B, T, d), f_a: (B, T, 64) or None. Returns the loss and its parts.

        The squared error of eq. 9 is smallest for the mean of all futures, which neither moves nor
        blinks. CRPS (continuous ranked probability score, Gneiting & Raftery 2007) has a second
        term that rewards different samples. The KL term covers the true future, with its blinks. A
        fifth of the batch has no audio, so that the encoder also works without.
        """
        B, T, d = x.shape
        without_audio = (torch.rand(B, generator=generator) < 0.2).to(x.device)
        with torch.no_grad():
            f_h = vae.encode(x[:, :tau])[0]
            mean_q, sigma_q, P = vae.encode(x)
        mean, s, L = self(vae, f_h, f_a, T, without_audio)
        kl = gaussian_kl(mean_q, sigma_q, P, L, mean, s).sum(1).mean() / (T * d)
        eps = torch.randn(2, B, T, vae.latent, generator=generator).to(x.device)
        smooth = self.conditional(T, tau, jitter=SMOOTH)[1] if vae.gp else None
        z = mean + deviation(s, smooth, eps)  # (2, B, T, D)
        one, other = vae.decode(z.flatten(0, 1))[:, :, :POSE].unflatten(0, (2, B))
        real = x[..., :POSE]
        crps = torch.zeros((), device=x.device)
        for u, v, y, unit, weight in (  # poses, then velocities
            (one, other, real, vae.std, 1.0),
            (one.diff(dim=1), other.diff(dim=1), real.diff(dim=1), vae.std_velocity, 0.25),
        ):
            u, v, y = ((w / unit[:POSE])[:, -(T - tau) :] for w in (u, v, y))
            crps = crps + weight * ((u - y).abs() + (v - y).abs() - (u - v).abs()).mean() / 2
        return crps + 0.3 * kl, {"crps": crps.item(), "kl": kl.item()}

    @torch.no_grad()
    def count_blinks(self, vae: AttributeVAE, xs: list[Tensor]) -> None:
        """Set ℓ_0 from the blink rate in a person's sequences (T, d).

        The corpus rate counts like DOUBT frames more, which matters if the sequences are short.
        """
        T = sum(map(len, xs))
        corpus_rate = rice_length(1.0) / float(vae.length_scales[0])  # per frame
        self.blink_length.fill_(rice_length((vae.blinks(xs) + corpus_rate * DOUBT) / (T + DOUBT)))


def deviation(s: Tensor, L: Tensor | None, eps: Tensor) -> Tensor:
    """s L ε, or s ε if L is None: s (B, T, D), L (D, T, T), ε (..., B, T, D) -> (..., B, T, D)."""
    return s * (eps if L is None else torch.einsum("dts,...sd->...td", L, eps))


def _join(x: Tensor, last: Tensor) -> Tensor:
    """Decoded windows x (..., T, d) -> their future (..., T - τ, d), without a step at its start.

    The future is shifted by the error of D at the `last` frame (..., d) of the beginning. The shift
    fades out over the first frames, faster for the eyes than for the pose.
    """
    k = torch.arange(1, WINDOW - BOP + 1, device=x.device)[:, None]
    fade = torch.where(torch.arange(x.shape[-1], device=x.device) < POSE, 0.9**k, 0.6**k)
    return x[..., BOP:, :] + fade * (last - x[..., BOP - 1, :])[..., None, :]


def _beginning(bop: Tensor) -> Tensor:
    """The last τ frames of bop (..., n, d). Raises InputError if there are fewer."""
    if bop.shape[-2] < BOP:
        raise InputError(
            f"a beginning of pose of {bop.shape[-2]} frames is too short: give {BOP} (1 s) or more"
        )
    return bop[..., -BOP:, :]


@torch.no_grad()
def predict(
    vae: AttributeVAE, cme: CrossModalEncoder, bop: Tensor, f_a: Tensor | None, k: int,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Predict the rest of a window after beginnings of pose (B, τ or more, d).

    f_a: (B, T, 64) of the whole window, or None for no audio. Returns the decoded mean
    (B, T - τ, d) and k samples (k, B, T - τ, d). Raises InputError if `bop` is too short.
    """
    bop = _beginning(bop)
    f_h = vae.encode(bop)[0]  # E_h
    process = cme.conditional(WINDOW, BOP, jitter=SMOOTH) if vae.gp else None
    mean, s, L = cme(vae, f_h, f_a, WINDOW, conditional=process)
    eps = torch.randn(k, len(bop), WINDOW, vae.latent, generator=generator).to(bop.device)
    eps = torch.cat([torch.zeros_like(eps[:1]), eps])  # the first gives the mean
    z = mean + deviation(s, L, eps)
    x = _join(vae.decode(z.flatten(0, 1)).unflatten(0, z.shape[:2]), bop[:, -1])
    return x[0], x[1:]


@torch.no_grad()
def generate(
    vae: AttributeVAE, cme: CrossModalEncoder, bop: Tensor, f_a: Tensor | None, n: int,
    generator: torch.Generator,
) -> Tensor:  # fmt: skip
    """Generate n frames (n, d), any number, after a beginning of pose (τ or more, d).

    f_a: (n, 64), or None for no audio. Autoregressive: windows of T frames, each conditioned on the
    last τ latents of the window before. Both windows decode these τ latents; the output fades from
    one to the other, so that there is no step. Raises InputError if `bop` or `f_a` is too short.
    """
    if f_a is not None and len(f_a) < n:
        raise InputError(f"the sound has {len(f_a)} frames, too few for {n}: give longer audio")
    bop, new = _beginning(bop), WINDOW - BOP
    tail = vae.encode(bop[None])[0]  # E_h: f_h
    first = cme.conditional(WINDOW, BOP, jitter=SMOOTH) if vae.gp else None
    later = cme.conditional(WINDOW, BOP, SMOOTH, SMOOTH) if vae.gp else None
    if f_a is not None:  # repeat the first and the last frame: all windows are full
        f_a = torch.cat([f_a[:1].expand(BOP, -1), f_a[:n], f_a[n - 1 : n].expand(new, -1)])[None]
    ramp = torch.linspace(0, 1, BOP + 2, device=bop.device)[1:-1, None]
    ramp = ramp * ramp * (3 - 2 * ramp)
    pieces: list[Tensor] = []
    for start in range(0, n, new):
        audio = None if f_a is None else f_a[:, start : start + WINDOW]
        eps = torch.randn(1, WINDOW, vae.latent, generator=generator).to(bop.device)
        mean, s, L = cme(vae, tail, audio, WINDOW, conditional=later if pieces else first)
        z = mean + deviation(s, L, eps)
        if pieces:
            z[:, :BOP] = tail
        x = vae.decode(z)[0]
        if pieces:
            pieces[-1][-BOP:] += ramp * (x[:BOP] - pieces[-1][-BOP:])
        pieces.append(x[BOP:] if pieces else _join(x, bop[-1]))
        tail = z[:, -BOP:]
    return torch.cat(pieces)[:n]


@dataclass(frozen=True)
class CrossModalRecipe(Recipe):
    """Settings of the training of a cross-modal encoder."""

    lr: float = 2e-3
    batch: int = 8  # windows per step


def train_cme(
    vae: AttributeVAE, x: list[Tensor], f_a: list[Tensor] | None, recipe: CrossModalRecipe,
    path: Path, seed: int, start: CrossModalEncoder | None = None, device: str = "auto",
) -> tuple[CrossModalEncoder, list[dict]]:  # fmt: skip
    """Train a cross-modal encoder (eq. 9) on one person or many.

    Args:
        x, f_a: [h ; f_e] (T, 14) and f_a (T, 64) of each recording; f_a None for no audio.
        start: the encoder to start from; this is the fine-tuning on a selected person.

    Returns the encoder, on the CPU, and the history. Other arguments, history and errors as in
    `training.train`.
    """
    torch.manual_seed(seed)
    where = pick_device(device)
    vae = vae.requires_grad_(False)
    cme = CrossModalEncoder(vae) if start is None else copy.deepcopy(start)
    x, n = [centred(s)[0] for s in x], min(WINDOW, *map(len, x))
    cme.count_blinks(vae, x)
    vae, cme = copy.deepcopy(vae).to(where), cme.to(where)

    def loss(g: torch.Generator) -> tuple[Tensor, dict]:
        cuts = list(random_windows(x, n, recipe.batch, g))
        windows = torch.stack([x[i][s : s + n] for i, s in cuts])  # (B, n, 14)
        sounds = None if f_a is None else torch.stack([f_a[i][s : s + n] for i, s in cuts])
        sounds = None if sounds is None else sounds.to(where)
        return cme.loss(vae, windows.to(where), sounds, BOP, g)

    data, label = digest(*x, *(f_a or [])), "cross-modal encoder"
    history = train(cme, loss, recipe, path=path, seed=seed, data=data, uses=[vae], label=label)
    return cme.cpu(), history


def sample_personal(
    vae: AttributeVAE, cme: CrossModalEncoder, x: Tensor, f_a: Tensor | int, seed: int
) -> Tensor:
    """Sample [h ; f_e] (T, 14) of a person, for f_a (T, 64) or for T frames without audio.

    x: (25 or more, 14), the person's recorded attributes. The beginning of pose is its first τ
    frames. The random numbers depend on `seed` and on x. Raises InputError if x is too short.
    """
    g = torch.Generator().manual_seed(seed + int(digest(x)[:8], 16))
    x, centre = centred(x)
    sound, n = (None, f_a) if isinstance(f_a, int) else (f_a, len(f_a))
    generated = generate(vae, cme, x[:BOP], sound, n, g)  # (T, 14)
    generated[:, :6] = limit_poses(generated[:, :6], x[:, :6])
    return generated + centre


def limit_poses(h: Tensor, own: Tensor) -> Tensor:
    """Poses h (T, 6), softly limited to the 1st to 99th percentile of a person's `own` (n, 6).

    A Gaussian has no bounds, a neck has, and a field renders only poses near its training poses
    well. The limits can be exceeded by at most 20 % of the range.
    """
    low, high = torch.quantile(own, torch.tensor([0.01, 0.99], device=own.device), 0)
    margin = (0.2 * (high - low)).clamp_min(1e-6)
    beyond = h - h.clamp(low, high)
    return h - beyond + margin * torch.tanh(beyond / margin)
