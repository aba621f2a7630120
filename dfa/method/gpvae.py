"""Personalized attributes (section 3.4): the Transformer GP-VAE (eq. 4-8).

A sequence x (T, d) of head poses and eye codes [h ; f_e] becomes a latent sequence z (T, D) whose
prior is a Gaussian process in time: dimension k has the Cauchy kernel with length scale ℓ_k.

Blinks are rare, short events, and a Gaussian that is decoded smoothly does not make them. So of
dimension 0 only the rises of its sign, tanh(κ z_0), are read: a blink is an upward crossing of
zero. By Rice's formula such crossings come (√2 π ℓ_0)⁻¹ times a frame under the Cauchy prior, which
gives ℓ_0 from a blink rate.

Table 4's other rows are the same class with its two switches moved: another network, no process.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from ..recipe import Recipe, digest
from ..training import random_windows, train

POSE = 6  # the first channels of x are h, the rest f_e
WINDOW = 100  # frames of a training window, T
JITTER = 1e-2  # share of white noise in every kernel: keeps Cholesky factors finite
KAPPA = 20.0  # how sharply dimension 0 is read
VARIANTS = {  # table 4: its names, and the two switches
    "MLP VAE": ("mlp", False),
    "LSTM VAE": ("lstm", False),
    "Trans VAE": ("transformer", False),
    "Trans GP-VAE": ("transformer", True),
}

# ------------------------------------------------------------------------- Gaussians in time


def cauchy(lag, length_scale, variance=1.0):
    """σ² (1 + lag²/ℓ²)⁻¹, the covariance of eq. 7; tensors or arrays that broadcast."""
    return variance / (1 + (lag / length_scale) ** 2)


def cauchy_kernel(T: int, length_scale: float, variance: float = 1.0, jitter: float = JITTER):
    """K_ij = σ² (1 + (i - j)²/ℓ²)⁻¹ + jitter δ_ij (eq. 7) over frames, (T, T) in float64."""
    t = torch.arange(T, dtype=torch.float64)
    K = cauchy(t[:, None] - t, length_scale, variance)
    return K + jitter * torch.eye(T, dtype=torch.float64)


def cholesky(K: Tensor) -> Tensor:
    """L of K = L Lᵀ (..., T, T); ValueError where K is not finite or not positive definite."""
    L, info = torch.linalg.cholesky_ex(K)
    if info.any() or not L.isfinite().all():
        raise ValueError(
            "a covariance is not positive definite: raise its jitter, and look for nan in the data"
        )
    return L


def posterior_decay(phi_logit: Tensor) -> Tensor:
    """P_ts = Π_{s<r≤t} φ_r, lower triangular, from (B, T, D) to (B, D, T, T).

    The posterior is z_t - μ_t = φ_t (z_{t-1} - μ_{t-1}) + σ_t ε_t with φ = sigmoid(phi_logit), so
    that its precision is U Uᵀ with bidiagonal U, as in Fortuin et al. 2020. Its covariance has the
    factor L_q = P diag(σ). One step after the other is linear in T; at T = 100 the whole of P at
    once is faster.
    """
    c = F.logsigmoid(phi_logit).cumsum(1).transpose(1, 2)  # (B, D, T)
    T = c.shape[2]
    upper = torch.full((T, T), -torch.inf, dtype=c.dtype, device=c.device).triu(1)
    # c_t - c_s as a product of rank two: one pass over (T, T) where a difference takes three
    c = c.flatten(0, 1)
    left, right = torch.stack([c, torch.ones_like(c)], 2), torch.stack([torch.ones_like(c), -c], 1)
    return torch.baddbmm(upper, left, right).exp().unflatten(0, phi_logit.shape[::2])


def posterior_sample(mean: Tensor, sigma: Tensor, P: Tensor | None, generator=None) -> Tensor:
    """The reparameterization trick (eq. 5): mean (B, T, D) + P diag(σ) ε, or mean + σ ε without P."""
    eps = torch.randn(mean.shape, generator=generator).to(mean.device)
    if P is None:
        return mean + sigma * eps
    return mean + (P @ (sigma * eps).transpose(1, 2)[..., None])[..., 0].transpose(1, 2)


def gaussian_kl(
    mean_q: Tensor,
    sigma_q: Tensor,
    P: Tensor | None,
    factor_p: Tensor | None,
    mean_p: Tensor | float = 0.0,
    scale_p: Tensor | None = None,
) -> Tensor:
    """KL(q || p) of each latent dimension, (B, D), in closed form:

    log|L_p| - log|L_q| + ½ (tr K_p⁻¹ K_q + ‖L_p⁻¹ (μ_q - μ_p)‖² - T).

    Args:
        mean_q, sigma_q: (B, T, D), P: (B, D, T, T), the posterior.
        factor_p: L_p (D, T, T), multiplied from the left by diag(scale_p) where that is given.
        mean_p, scale_p: (B, T, D).
        P and factor_p are None where frames stand by themselves.

    A Markov q has K_q,ts = P_ts v_s for t ≥ s with its variances v = P² σ², so the trace costs T²
    a dimension. The paper writes KL(p, q) (eq. 8); the evidence lower bound needs this direction.
    """
    if P is None:
        q, p = Normal(mean_q, sigma_q), Normal(mean_p, 1.0 if scale_p is None else scale_p)
        return kl_divergence(q, p).sum(1)
    T = mean_q.shape[1]
    v = (P.square() @ sigma_q.transpose(1, 2).square()[..., None])[..., 0]  # (B, D, T)
    delta = (mean_q - mean_p).transpose(1, 2)
    logdet = factor_p.diagonal(dim1=1, dim2=2).log().sum(1) - sigma_q.log().sum(1)
    inverse = torch.cholesky_inverse(factor_p)
    twice = 2 * inverse - torch.diag_embed(inverse.diagonal(dim1=1, dim2=2))  # both sides of K_q
    weighted = twice * P
    if scale_p is not None:
        s = scale_p.transpose(1, 2)
        delta, v, logdet = delta / s, v / s, logdet + s.log().sum(2)
        trace = (weighted * v[..., None, :] / s[..., :, None]).sum((2, 3))
    else:
        trace = (weighted.sum(2) * v).sum(2)
    white = torch.einsum("dts,bds->bdt", inverse, delta)
    return logdet + 0.5 * (trace + (white * delta).sum(2) - T)


# --------------------------------------------------------------------------------- networks


class Block(nn.Module):
    """A Transformer block whose attention has a learned bias for each lag in time."""

    REACH = 32

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )
        slope = 2.0 ** (-1.5 * torch.arange(heads))[:, None]
        self.bias = nn.Parameter(-slope * torch.arange(-self.REACH, self.REACH + 1).abs())

    def attention(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Weights (B, heads, T, T) and values (B, heads, T, width / heads) for x (B, T, width)."""
        B, T, W = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(B, T, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        t = torch.arange(T, device=x.device)
        bias = self.bias[:, (t[:, None] - t).clamp(-self.REACH, self.REACH) + self.REACH]
        return (q @ k.mT / math.sqrt(W / self.heads) + bias).softmax(-1), v

    def forward(self, x: Tensor) -> Tensor:
        weights, v = self.attention(x)
        x = x + self.out((weights @ v).transpose(1, 2).flatten(2))
        return x + self.mlp(self.norm2(x))


class Transformer(nn.Module):
    """(B, T, d_in) -> (B, T, d_out), any T. Time is known by the lags of attention alone."""

    def __init__(self, d_in: int, d_out: int, layers: int, width: int = 64, heads: int = 4):
        super().__init__()
        self.embed = nn.Linear(d_in, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, d_out)

    def forward(self, x: Tensor) -> Tensor:
        y = self.embed(x)
        for block in self.blocks:
            y = block(y)
        return self.head(self.norm(y))


class LSTM(nn.Module):
    """(B, T, d_in) -> (B, T, d_out), any T: in both directions, about a `Transformer`'s size."""

    def __init__(self, d_in: int, d_out: int, layers: int):
        super().__init__()
        width = 24 + 24 * layers
        self.lstm = nn.LSTM(d_in, width, batch_first=True, bidirectional=True)
        self.head = nn.Linear(2 * width, d_out)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0])


class MLP(nn.Module):
    """(B, T, d_in) -> (B, T, d_out), T at most WINDOW: all frames in one vector, those that are not
    there zero. The layers differ in size from a `Transformer`'s, not the whole."""

    def __init__(self, d_in: int, d_out: int, layers: int, width: int = 32):
        super().__init__()
        self.d_out = d_out
        self.net = nn.Sequential(
            nn.Linear(WINDOW * (d_in + 1), width),
            nn.GELU(),
            nn.Linear(width, width),
            nn.GELU(),
        )
        self.head = nn.Linear(width, WINDOW * d_out)

    def forward(self, x: Tensor) -> Tensor:
        B, T, _ = x.shape
        x = F.pad(F.pad(x, (0, 1), value=1.0), (0, 0, 0, WINDOW - T))  # a frame that is there has 1
        return self.head(self.net(x.flatten(1))).view(B, WINDOW, self.d_out)[:, :T]


NETS = {"mlp": MLP, "lstm": LSTM, "transformer": Transformer}

# ------------------------------------------------------------------------------------ the VAE


class AttributeVAE(nn.Module):
    """Encoder E_h, latent space Z, decoder D (figure 4a). As it is, the Transformer GP-VAE.

    Args:
        net: "transformer", "lstm" or "mlp", for encoder and decoder.
        gp: whether the prior is a Gaussian process in time and the posterior correlated; else both
            treat frames as independent, as in Kingma & Welling 2014, and the eyes are decoded from
            the same latents as the pose, since zero crossings of white noise are no events.
        scales: shortest and longest ℓ of the dimensions behind the pose, frames.

    Attributes are expected around a person's own place: where somebody sits is not how they move.
    """

    def __init__(
        self,
        net: str = "transformer",
        gp: bool = True,
        d: int = 14,
        latent: int = 10,
        scales: tuple[float, float] = (5.0, 60.0),
    ):
        super().__init__()
        self.net, self.gp, self.d, self.latent = net, gp, d, latent
        spread = torch.logspace(math.log10(scales[0]), math.log10(scales[1]), latent - 1)
        self.register_buffer("length_scales", torch.cat([torch.tensor([16.0]), spread]))  # frames
        for name in ("mean", "std", "std_velocity"):
            self.register_buffer(name, torch.ones(d))
        self.register_buffer("blink_axis", torch.ones(d - POSE))
        self.register_buffer("blink_level", torch.tensor(1.0))
        make = NETS[net]
        self.encoder = make(d, 3 * latent if gp else 2 * latent, layers=2)  # E_h
        if gp:
            self.decoder = make(latent - 1, POSE, layers=3)  # D, of h
            self.eye_decoder = make(1, d - POSE, layers=2)  # D, of f_e
        else:
            self.decoder = make(latent, d, layers=5)
        with torch.no_grad():  # a posterior that starts narrow and correlated
            self.encoder.head.weight.mul_(0.3)
            bias = self.encoder.head.bias.view(-1, 3 if gp else 2, latent)
            bias[:, 1] = -1.0
            bias[:, 2:] = 1.0

    def fit_scale(self, xs: list[Tensor]) -> None:
        """Take units, the direction of a blink and the blink rate from sequences (T, d)."""
        x = torch.cat(xs)
        if not x.isfinite().all():
            raise ValueError("attributes are not finite: look at the tracking they come from")
        self.mean.copy_(x.mean(0))
        self.std.copy_(x.std(0))
        self.std_velocity.copy_(torch.cat([s.diff(dim=0) for s in xs]).std(0))
        eyes = ((x - self.mean) / self.std)[:, POSE:]
        open_eyes = eyes.median(0).values
        away = eyes - open_eyes
        far = away[away.norm(dim=1) >= away.norm(dim=1).quantile(0.98)].mean(0)  # eyes shut
        self.blink_axis.copy_(far / far.norm())
        self.blink_level.copy_(open_eyes @ self.blink_axis + 0.5 * far.norm())
        self.length_scales[0] = rice_length(max(self.blinks(xs), 1) / len(x))

    def shut(self, x: Tensor) -> Tensor:
        """1 where the eyes of (B, T, d) are more than half way to a blink, else 0: (B, T)."""
        eyes = ((x - self.mean) / self.std)[..., POSE:]
        return (eyes @ self.blink_axis > self.blink_level).float()

    def blinks(self, xs: list[Tensor]) -> int:
        """How often the eyes of sequences (T, d) shut."""
        return sum(int((self.shut(s[None])[0].diff() > 0).sum()) for s in xs)

    def prior(self, T: int) -> Tensor | None:
        """L_p of p(z) = N(0, K) (eq. 7), (D, T, T); None without a process."""
        if not self.gp:
            return None
        kernels = [cauchy_kernel(T, float(ell), 1 - JITTER) for ell in self.length_scales]
        return cholesky(torch.stack(kernels)).float().to(self.mean.device)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """μ_φ, σ (B, T, D) and P (B, D, T, T) of K_φ = P diag(σ²) Pᵀ (eq. 4, 5)."""
        mean, log_sigma, *phi = self.encoder((x - self.mean) / self.std).split(self.latent, -1)
        P = posterior_decay(phi[0].clamp(-6, 6)) if self.gp else None
        return mean, log_sigma.clamp(-4, 2).exp(), P

    def decode(self, z: Tensor) -> Tensor:
        """D: (B, T, D) -> (B, T, d), in the units of x."""
        if not self.gp:
            return self.decoder(z) * self.std + self.mean
        sign = torch.tanh(KAPPA * z[..., :1])
        rises = F.relu(sign.diff(dim=1, prepend=sign[:, :1]))
        eyes = self.eye_decoder(rises)
        return torch.cat([self.decoder(z[..., 1:]), eyes], -1) * self.std + self.mean

    def blink_side(self, x: Tensor) -> Tensor:
        """What z_0 should look like for (B, T, d), (B, T): below zero before a blink and above it
        after, sure of it near one. Between two it falls, far from all it stays near zero."""
        t = torch.arange(WINDOW, -WINDOW - 1, -1.0, device=x.device)
        nearness = (t.sign() * torch.exp(-t.abs() / 12))[None, None]
        return F.conv1d(self.shut(x)[:, None], nearness, padding=WINDOW)[:, 0]

    def distance(self, made: Tensor, x: Tensor) -> Tensor:
        """Mean squared error (eq. 6) of values and velocities in units of their spread.

        Eyes are mostly noise around open, and count where they blink.
        """
        weight = torch.ones_like(x)
        near_blink = F.max_pool1d(self.shut(x)[:, None], 9, 1, 4)[:, 0]  # four frames either way
        weight[..., POSE:] = 0.2 + 0.8 * near_blink[..., None]
        error = made - x
        values = (weight * (error / self.std).square()).mean()
        velocities = weight[:, 1:] * (error.diff(dim=1) / self.std_velocity).square()
        return values + 0.25 * velocities.mean()

    def loss(
        self, x: Tensor, generator: torch.Generator, beta: float = 0.3
    ) -> tuple[Tensor, dict[str, float]]:
        """Reconstruction (eq. 6), β KL (eq. 8), and crossings of blinks.

        A quarter of the batches is cut short, since E_h must also read a beginning of pose.
        """
        if torch.rand((), generator=generator) < 0.25 and x.shape[1] > 26:
            x = x[:, : int(torch.randint(25, x.shape[1], (), generator=generator))]
        mean, sigma, P = self.encode(x)
        z, crossings = posterior_sample(mean, sigma, P, generator), 0.0
        if self.gp:
            # D learns blinks from crossings that are where they should be, E_h to put them there:
            # left to the two alone, z_0 > 0 comes to mean "shut", and eyes stay shut for seconds
            side = self.blink_side(x)
            ideal = torch.where(side > 0, 1.0, -1.0)
            wrong = F.relu(0.8 - ideal * mean[..., 0]).square()
            crossings = 2.0 * ((4 * side.abs()).clamp(0.2, 1) * wrong).mean()
            # as steep as the process crosses: its slope there is about √2 / ℓ_0 a frame
            ideal = F.avg_pool1d(ideal[:, None], 3, 1, 1, count_include_pad=False)[:, 0]
            z = torch.cat([0.1 * ideal[..., None], z[..., 1:]], -1)
        rec = self.distance(self.decode(z), x)
        T = x.shape[1]
        kl = gaussian_kl(mean, sigma, P, self.prior(T)).sum(1).mean() / (T * self.d)
        return rec + beta * kl + crossings, {"rec": rec.item(), "kl": kl.item()}


def rice_length(rate: float) -> float:
    """ℓ, frames, with which the Cauchy process crosses zero upward `rate` times a frame."""
    return 1 / (math.sqrt(2) * math.pi * rate)


def at_home(x: Tensor) -> tuple[Tensor, Tensor]:
    """[h ; f_e] (T, 14) around the person's own place, and that place (14,): the mean pose, and the
    median eye code, which is open eyes. How somebody's eyes look is not how they move."""
    home = torch.cat([x[:, :POSE].mean(0), x[:, POSE:].median(0).values])
    return x - home, home


@dataclass(frozen=True)
class VAERecipe(Recipe):
    """A VAE's training."""

    lr: float = 2e-3
    batch: int = 8  # windows a step
    variant: str = "Trans GP-VAE"  # of `VARIANTS`
    beta: float = 0.3  # weight of the KL term


def train_vae(
    x: list[Tensor], recipe: VAERecipe, path: Path, seed: int
) -> tuple[AttributeVAE, list[dict]]:
    """A row of table 4 on the (T, 14) attributes of all corpus subjects (eq. 4-8), and its
    history."""
    torch.manual_seed(seed)
    vae, x = AttributeVAE(*VARIANTS[recipe.variant]), [at_home(s)[0] for s in x]
    vae.fit_scale(x)

    def loss(g: torch.Generator) -> tuple[Tensor, dict]:
        windows = [x[i][s : s + WINDOW] for i, s in random_windows(x, WINDOW, recipe.batch, g)]
        return vae.loss(torch.stack(windows), g, recipe.beta)  # (batch, WINDOW, 14)

    data, label = digest(*x), recipe.variant
    return vae, train(vae, loss, recipe, path=path, seed=seed, data=data, label=label)
