"""Face attributes generation (section 3.4): the cross-modal encoder (eq. 9), and any length of
head motion and blinks from it, with sound or without."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ..media import InputError
from ..recipe import Recipe, digest
from ..training import random_windows, train
from .gpvae import (
    JITTER,
    NETS,
    POSE,
    WINDOW,
    AttributeVAE,
    at_home,
    cauchy,
    cholesky,
    gaussian_kl,
    rice_length,
)

BOP = 25  # frames of the beginning of pose, τ
UNSURE = 0.02  # variance of what E_h says of a beginning of pose
SMOOTH = 1e-4  # jitter of generated paths: what is white in the kernel is the tracker's noise
DOUBT = 10 * 25  # frames of other people's blinking that a person's own is weighed against


class CrossModalEncoder(nn.Module):
    """E_ah (figure 4b): [f_h ; f_a], concatenated in time, -> N(μ', K') of z over the whole window.

    The network adds to what the Gaussian process says already: its conditional mean and covariance
    given the latent code f_h of the beginning of pose, with this person's own length scales and
    variances (learned) and blink rate (counted). Without a process it says all by itself.
    """

    def __init__(self, vae: AttributeVAE, d_audio: int = 64, width: int = 64):
        super().__init__()
        self.audio_in, self.bop_in = nn.Linear(d_audio, width), nn.Linear(vae.latent, width)
        self.silence = nn.Parameter(torch.zeros(width))  # stands for audio that is not given
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
        """W (D, T, τ), L (D, T, T): z | z_{1:τ} ~ N(W z_{1:τ}, L Lᵀ), z_{1:τ} known up to noise."""
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
        self,
        vae: AttributeVAE,
        f_h: Tensor,
        f_a: Tensor | None,
        T: int,
        deaf: Tensor | None = None,
        conditional: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """f_h (B, τ, D), f_a (B, T, 64) or None, deaf (B,) bool -> μ', s (B, T, D), L (D, T, T).

        K' = diag(s) L Lᵀ diag(s), without a process diag(s²) and no L. `conditional` is what the
        method of that name gives, where it is known already.
        """
        tau = f_h.shape[1]
        if f_a is None:
            heard = self.silence.expand(len(f_h), T - tau, -1)
        else:
            heard = self.audio_in(f_a[:, tau:])
            if deaf is not None:
                heard = torch.where(deaf[:, None, None], self.silence, heard)
        tokens = [self.bop_in(f_h) + self.modality[0], heard + self.modality[1]]
        shift, log_s = self.net(torch.cat(tokens, 1)).chunk(2, -1)
        s = log_s.clamp(-4, 1).exp()
        if not vae.gp:
            return shift, s, None
        W, L = conditional or self.conditional(T, tau)
        # from nothing where the beginning ends: no step where they meet
        t = torch.arange(T, device=shift.device)[:, None] - (tau - 1)
        shift = shift * (1 - torch.exp(-t.clamp_min(0) / 5.0))
        return torch.einsum("dts,bsd->btd", W, f_h) + shift, s, L

    def loss(
        self, vae: AttributeVAE, x: Tensor, f_a: Tensor | None, tau: int, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        """Two draws ĥ of the future, scored as a distribution, plus KL(q_φ(z | h) || N(μ', K')).

        Eq. 9 asks each draw to be near what came, which the mean of all futures does best, and the
        mean neither moves nor blinks. So the draws are scored by the continuous ranked probability
        score, whose second term rewards them for differing as futures do; and the KL term covers
        what the person really did, blinks included. A fifth of the batch hears nothing, so that
        the same encoder serves without audio.
        """
        B, T, d = x.shape
        deaf = (torch.rand(B, generator=generator) < 0.2).to(x.device)
        with torch.no_grad():
            f_h = vae.encode(x[:, :tau])[0]
            mean_q, sigma_q, P = vae.encode(x)
        mean, s, L = self(vae, f_h, f_a, T, deaf)
        kl = gaussian_kl(mean_q, sigma_q, P, L, mean, s).sum(1).mean() / (T * d)
        eps = torch.randn(2, B, T, vae.latent, generator=generator).to(x.device)
        smooth = self.conditional(T, tau, jitter=SMOOTH)[1] if vae.gp else None
        z = mean + deviation(s, smooth, eps)
        one, other = vae.decode(z.flatten(0, 1))[:, :, :POSE].unflatten(0, (2, B))
        real = x[..., :POSE]
        crps = 0.0
        for u, v, y, unit, weight in (
            (one, other, real, vae.std, 1.0),
            (one.diff(dim=1), other.diff(dim=1), real.diff(dim=1), vae.std_velocity, 0.25),
        ):
            u, v, y = ((w / unit[:POSE])[:, -(T - tau) :] for w in (u, v, y))
            crps = crps + weight * ((u - y).abs() + (v - y).abs() - (u - v).abs()).mean() / 2
        return crps + 0.3 * kl, {"crps": crps.item(), "kl": kl.item()}

    @torch.no_grad()
    def count_blinks(self, vae: AttributeVAE, xs: list[Tensor]) -> None:
        """Take ℓ_0 from how often the person of the sequences (T, d) blinks, weighed against the
        corpus's rate where there is little of them."""
        T = sum(map(len, xs))
        usual = rice_length(1.0) / float(vae.length_scales[0])
        self.blink_length.fill_(rice_length((vae.blinks(xs) + usual * DOUBT) / (T + DOUBT)))


# -------------------------------------------------------------------------------- generation


def deviation(s: Tensor, L: Tensor | None, eps: Tensor) -> Tensor:
    """s L ε, or s ε without L: s (B, T, D), L (D, T, T), white ε (..., B, T, D)."""
    return s * (eps if L is None else torch.einsum("dts,...sd->...td", L, eps))


def _join(x: Tensor, last: Tensor) -> Tensor:
    """The future (..., T - τ, d) in decoded windows x (..., T, d): what D misses of the beginning's
    `last` frame (..., d) fades out over the first frames, of the eyes sooner than of the pose."""
    k = torch.arange(1, WINDOW - BOP + 1, device=x.device)[:, None]
    fade = torch.where(torch.arange(x.shape[-1], device=x.device) < POSE, 0.9**k, 0.6**k)
    return x[..., BOP:, :] + fade * (last - x[..., BOP - 1, :])[..., None, :]


def _beginning(bop: Tensor) -> Tensor:
    if bop.shape[-2] < BOP:
        raise InputError(
            f"a beginning of pose of {bop.shape[-2]} frames is too short: give {BOP} (1 s) or more"
        )
    return bop[..., -BOP:, :]


@torch.no_grad()
def predict(
    vae: AttributeVAE,
    cme: CrossModalEncoder,
    bop: Tensor,
    f_a: Tensor | None,
    k: int,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """What may follow beginnings of pose (B, τ, d) within a window: the decoded mean
    (B, T - τ, d) and k draws (k, B, T - τ, d). f_a: (B, T, 64), the beginning's included, or None.
    """
    bop = _beginning(bop)
    f_h = vae.encode(bop)[0]  # E_h
    how = cme.conditional(WINDOW, BOP, jitter=SMOOTH) if vae.gp else None
    mean, s, L = cme(vae, f_h, f_a, WINDOW, conditional=how)
    eps = torch.randn(k, len(bop), WINDOW, vae.latent, generator=generator).to(bop.device)
    eps = torch.cat([torch.zeros_like(eps[:1]), eps])  # the first is the mean
    z = mean + deviation(s, L, eps)
    x = _join(vae.decode(z.flatten(0, 1)).unflatten(0, z.shape[:2]), bop[:, -1])
    return x[0], x[1:]


@torch.no_grad()
def generate(
    vae: AttributeVAE,
    cme: CrossModalEncoder,
    bop: Tensor,
    f_a: Tensor | None,
    n: int,
    generator: torch.Generator,
) -> Tensor:
    """n frames (n, d) that follow a beginning of pose (at least τ, d), any length.

    f_a: (n, 64), or None for motion without audio. Window after window of T frames: the latents of
    each are conditioned on the last τ of those before, which it keeps as they are, and where two
    windows decode the same latents one fades into the other, so that they meet without a step.
    Raises InputError where the beginning or the sound is too short.
    """
    if f_a is not None and len(f_a) < n:
        raise InputError(f"the sound has {len(f_a)} frames, too few for {n}: give a longer one")
    bop, new = _beginning(bop), WINDOW - BOP
    tail = vae.encode(bop[None])[0]  # E_h: f_h
    first = cme.conditional(WINDOW, BOP, jitter=SMOOTH) if vae.gp else None
    later = cme.conditional(WINDOW, BOP, SMOOTH, SMOOTH) if vae.gp else None
    if f_a is not None:  # before it nothing is asked for, behind it its last frame goes on
        f_a = torch.cat([f_a[:1].expand(BOP, -1), f_a[:n], f_a[n - 1 : n].expand(new, -1)])[None]
    ramp = torch.linspace(0, 1, BOP + 2, device=bop.device)[1:-1, None]
    ramp = ramp * ramp * (3 - 2 * ramp)
    pieces: list[Tensor] = []
    for start in range(0, n, new):
        heard = None if f_a is None else f_a[:, start : start + WINDOW]
        eps = torch.randn(1, WINDOW, vae.latent, generator=generator).to(bop.device)
        mean, s, L = cme(vae, tail, heard, WINDOW, conditional=later if pieces else first)
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
    """The cross-modal encoder's training."""

    lr: float = 2e-3
    batch: int = 8  # windows a step


def train_cme(
    vae: AttributeVAE,
    x: list[Tensor],
    f_a: list[Tensor] | None,
    recipe: CrossModalRecipe,
    path: Path,
    seed: int,
    start: CrossModalEncoder | None = None,
) -> tuple[CrossModalEncoder, list[dict]]:
    """The cross-modal encoder on [h ; f_e] (T, 14) and f_a (T, 64), or no sound at all, of one
    person or many (eq. 9), and its history.

    start: an encoder to begin with; that is the fine-tuning on a selected person.
    """
    torch.manual_seed(seed)
    vae = vae.requires_grad_(False)
    cme = CrossModalEncoder(vae) if start is None else copy.deepcopy(start)
    x, n = [at_home(s)[0] for s in x], min(WINDOW, *map(len, x))
    cme.count_blinks(vae, x)

    def loss(g: torch.Generator) -> tuple[Tensor, dict]:
        cuts = list(random_windows(x, n, recipe.batch, g))
        windows = torch.stack([x[i][s : s + n] for i, s in cuts])  # (B, n, 14)
        sounds = None if f_a is None else torch.stack([f_a[i][s : s + n] for i, s in cuts])
        return cme.loss(vae, windows, sounds, BOP, g)

    data, label = digest(*x, *(f_a or [])), "cross-modal encoder"
    history = train(
        cme, loss, recipe, path=path, seed=seed, data=data, uses=[vae], label=label
    )  # fmt: skip
    return cme, history


def sample_personal(
    vae: AttributeVAE, cme: CrossModalEncoder, x: Tensor, f_a: Tensor | int, seed: int
) -> Tensor:
    """Sampled [h ; f_e] (T, 14) for f_a (T, 64), or for T frames without sound, of the person whose
    own (>= 25, 14) are `x`. The beginning of pose is theirs, and so is the noise of a seed."""
    g = torch.Generator().manual_seed(seed + int(digest(x)[:8], 16))
    x, home = at_home(x)
    sound, n = (None, f_a) if isinstance(f_a, int) else (f_a, len(f_a))
    made = generate(vae, cme, x[:BOP], sound, n, g)
    made[:, :6] = within_reach(made[:, :6], x[:, :6])
    return made + home


def within_reach(h: Tensor, own: Tensor) -> Tensor:
    """Poses h (T, 6) less far out where they leave the 1st to 99th percentile of a person's `own`:
    a Gaussian has no bounds, a neck has, and a field knows only poses that it has seen."""
    low, high = torch.quantile(own, torch.tensor([0.01, 0.99], device=own.device), 0)
    margin = (0.2 * (high - low)).clamp_min(1e-6)
    beyond = h - h.clamp(low, high)
    return h - beyond + margin * torch.tanh(beyond / margin)
