"""Personalized attributes (section 3.4): the Transformer GP-VAE (eq. 4-8).

A sequence x (T, d) of head poses and eye codes [h ; f_e] becomes a latent sequence z (T, D) whose
prior is a Gaussian process in time: dimension k has the Cauchy kernel with length scale ℓ_k.

Blinks are rare, short events. A smooth decoder of a Gaussian process does not produce them. So the
decoder of the eyes reads only the rises of tanh(κ z_0): a blink is an upward zero crossing of z_0.
Under the Cauchy prior there are (√2 π ℓ_0)⁻¹ such crossings per frame (Rice 1944), so the blink
rate gives ℓ_0.

The other rows of table 4 are the same class with another network or without the Gaussian process.
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
from ..training import pick_device, random_windows, train

POSE = 6  # number of channels of h, the first channels of x; the others are f_e
BOP = 25  # frames of the beginning of pose, τ
WINDOW = 100  # frames per training window, T
JITTER = 1e-2  # variance of the white noise in each kernel: keeps it positive definite
KAPPA = 20.0  # κ, slope of tanh(κ z_0): how sharp a zero crossing is
VARIANTS = {  # row of table 4: (network, with a Gaussian process)
    "MLP VAE": ("mlp", False),
    "LSTM VAE": ("lstm", False),
    "Trans VAE": ("transformer", False),
    "Trans GP-VAE": ("transformer", True),
}


def cauchy(lag, length_scale, variance=1.0):
    """Cauchy covariance σ² (1 + lag²/ℓ²)⁻¹ (eq. 7); lag and ℓ in frames, all broadcast."""
    return variance / (1 + (lag / length_scale) ** 2)  # eq. 7


def cauchy_kernel(
    T: int, length_scale: float | Tensor, variance: float = 1.0, jitter: float = JITTER
) -> Tensor:
    """Kernel matrix of eq. 7, K_ij = σ² (1 + (i - j)²/ℓ²)⁻¹ + jitter δ_ij, in float64.

    (T, T) for a number ℓ, (D, T, T) for ℓ (D,), on the device of ℓ.
    """
    ell = torch.as_tensor(length_scale).double()[..., None, None]
    t = torch.arange(T, dtype=ell.dtype, device=ell.device)
    K = cauchy(t[:, None] - t, ell, variance)
    return K + jitter * torch.eye(T, dtype=ell.dtype, device=ell.device)


def cholesky(K: Tensor) -> Tensor:
    """L of K = L Lᵀ, (..., T, T). Raises ValueError if K is not finite and positive definite."""
    L, info = torch.linalg.cholesky_ex(K)
    if info.any() or not L.isfinite().all():
        raise ValueError(
            "a covariance is not positive definite: increase the jitter, and check the data for nan"
        )
    return L


def posterior_decay(phi_logit: Tensor) -> Tensor:
    """P_ts = Π_{s<r≤t} φ_r, lower triangular: phi_logit (B, T, D) -> P (B, D, T, T).

    The posterior is z_t - μ_t = φ_t (z_{t-1} - μ_{t-1}) + σ_t ε_t with φ = sigmoid(phi_logit). Its
    precision is U Uᵀ with bidiagonal U, as in Fortuin et al. 2020; its covariance has the factor
    L_q = P diag(σ). A loop over frames costs O(T), but at T = 100 the whole matrix is faster.
    """
    c = F.logsigmoid(phi_logit).cumsum(1).transpose(1, 2)  # (B, D, T)
    T = c.shape[2]
    upper = torch.full((T, T), -torch.inf, dtype=c.dtype, device=c.device).triu(1)
    # c_t - c_s as a product of rank two: one pass over (T, T), a difference needs three
    c = c.flatten(0, 1)
    left, right = torch.stack([c, torch.ones_like(c)], 2), torch.stack([torch.ones_like(c), -c], 1)
    return torch.baddbmm(upper, left, right).exp().unflatten(0, phi_logit.shape[::2])


def posterior_sample(mean: Tensor, sigma: Tensor, P: Tensor | None, generator=None) -> Tensor:
    """Sample z of eq. 5 (B, T, D), reparameterized: μ + P diag(σ) ε, or μ + σ ε if P is None.

    mean, sigma: (B, T, D); P: (B, D, T, T).
    """
    eps = torch.randn(mean.shape, generator=generator).to(mean.device)
    if P is None:
        return mean + sigma * eps
    noise = (sigma * eps).transpose(1, 2)[..., None]  # (B, D, T, 1)
    return mean + (P @ noise)[..., 0].transpose(1, 2)  # eq. 5, (B, T, D)


def gaussian_kl(
    mean_q: Tensor, sigma_q: Tensor, P: Tensor | None, factor_p: Tensor | None,
    mean_p: Tensor | float = 0.0, scale_p: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """L_KL of eq. 8: KL(q || p) of each latent dimension in nats, (B, D), in closed form:

    log|L_p| - log|L_q| + ½ (tr K_p⁻¹ K_q + ‖L_p⁻¹ (μ_q - μ_p)‖² - T).

    Args:
        mean_q, sigma_q: (B, T, D), P: (B, D, T, T) of the posterior. P None: independent frames.
        factor_p: L_p (D, T, T) of the prior. With scale_p the factor is diag(scale_p) L_p.
        mean_p, scale_p: (B, T, D) of the prior.

    A Markov q has K_q,ts = P_ts v_s for t ≥ s, with variances v = P² σ². The trace then costs O(T²)
    per dimension. The paper writes KL(p, q); the evidence lower bound needs KL(q || p).
    """
    if P is None:
        q, p = Normal(mean_q, sigma_q), Normal(mean_p, 1.0 if scale_p is None else scale_p)
        return kl_divergence(q, p).sum(1)
    T = mean_q.shape[1]
    v = (P.square() @ sigma_q.transpose(1, 2).square()[..., None])[..., 0]  # (B, D, T)
    delta = (mean_q - mean_p).transpose(1, 2)
    logdet = factor_p.diagonal(dim1=1, dim2=2).log().sum(1) - sigma_q.log().sum(1)
    inverse = torch.cholesky_inverse(factor_p)
    twice = 2 * inverse - torch.diag_embed(inverse.diagonal(dim1=1, dim2=2))  # K_q is symmetric
    weighted = twice * P
    if scale_p is not None:
        s = scale_p.transpose(1, 2)
        delta, v, logdet = delta / s, v / s, logdet + s.log().sum(2)
        trace = (weighted * v[..., None, :] / s[..., :, None]).sum((2, 3))
    else:
        trace = (weighted.sum(2) * v).sum(2)
    white = torch.einsum("dts,bds->bdt", inverse, delta)
    return logdet + 0.5 * (trace + (white * delta).sum(2) - T)  # eq. 8


class Block(nn.Module):
    """A Transformer block whose attention has a learned bias for each time lag."""

    REACH = 32  # frames; larger lags have the bias of this lag

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
        """x (B, T, width) -> weights (B, heads, T, T), values (B, heads, T, width / heads)."""
        B, T, W = x.shape
        qkv = self.qkv(self.norm1(x)).view(B, T, 3, self.heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # (B, heads, T, d) each
        t = torch.arange(T, device=x.device)
        lag = (t[:, None] - t).clamp(-self.REACH, self.REACH)  # (T, T)
        bias = self.bias[:, lag + self.REACH]  # (heads, T, T)
        return (q @ k.mT / math.sqrt(W / self.heads) + bias).softmax(-1), v

    def forward(self, x: Tensor) -> Tensor:
        weights, v = self.attention(x)
        x = x + self.out((weights @ v).transpose(1, 2).flatten(2))  # (B, T, width)
        return x + self.mlp(self.norm2(x))


class Transformer(nn.Module):
    """(B, T, d_in) -> (B, T, d_out), any T. Only the bias of attention depends on time."""

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
    """(B, T, d_in) -> (B, T, d_out), any T: bidirectional, about the size of `Transformer`."""

    def __init__(self, d_in: int, d_out: int, layers: int):
        super().__init__()
        width = 24 + 24 * layers
        self.lstm = nn.LSTM(d_in, width, batch_first=True, bidirectional=True)
        self.head = nn.Linear(2 * width, d_out)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0])


class MLP(nn.Module):
    """(B, T, d_in) -> (B, T, d_out), T at most WINDOW: all frames as one vector, zero-padded."""

    def __init__(self, d_in: int, d_out: int, layers: int, width: int = 32):
        super().__init__()
        self.d_out = d_out
        self.net = nn.Sequential(
            nn.Linear(WINDOW * (d_in + 1), width), nn.GELU(), nn.Linear(width, width), nn.GELU()
        )
        self.head = nn.Linear(width, WINDOW * d_out)

    def forward(self, x: Tensor) -> Tensor:
        B, T, _ = x.shape
        x = F.pad(F.pad(x, (0, 1), value=1.0), (0, 0, 0, WINDOW - T))  # 1 marks real frames
        return self.head(self.net(x.flatten(1))).view(B, WINDOW, self.d_out)[:, :T]


NETS = {"mlp": MLP, "lstm": LSTM, "transformer": Transformer}


class AttributeVAE(nn.Module):
    """Encoder E_h, latent space Z, decoder D (figure 4a). By default the Transformer GP-VAE.

    Args:
        net: "transformer", "lstm" or "mlp", for encoder and decoder.
        gp: True: the prior is a Gaussian process in time and the posterior is correlated. False:
            frames are independent (Kingma & Welling 2014), and pose and eyes have the same latents,
            because zero crossings of white noise are not blinks.
        d, latent: channels of x, and dimensions of z (D).
        scales: shortest and longest ℓ of the dimensions that drive the pose, frames.

    It expects attributes from `centred`: where a person sits says nothing about how they move.
    """

    def __init__(
        self, net: str = "transformer", gp: bool = True, d: int = 14, latent: int = 10,
        scales: tuple[float, float] = (5.0, 60.0),
    ):  # fmt: skip
        super().__init__()
        self.net, self.gp, self.d, self.latent = net, gp, d, latent
        spread = torch.logspace(math.log10(scales[0]), math.log10(scales[1]), latent - 1)
        self.register_buffer("length_scales", torch.cat([torch.tensor([16.0]), spread]))  # frames
        for name in ("mean", "std", "std_velocity"):
            self.register_buffer(name, torch.ones(d))
        self.register_buffer("blink_axis", torch.ones(d - POSE))
        self.register_buffer("blink_level", torch.tensor(1.0))
        network = NETS[net]
        self.encoder = network(d, 3 * latent if gp else 2 * latent, layers=2)  # E_h
        if gp:
            self.decoder = network(latent - 1, POSE, layers=3)  # D, of h
            self.eye_decoder = network(1, d - POSE, layers=2)  # D, of f_e
        else:
            self.decoder = network(latent, d, layers=5)
        with torch.no_grad():  # the posterior starts narrow and correlated
            self.encoder.head.weight.mul_(0.3)
            bias = self.encoder.head.bias.view(-1, 3 if gp else 2, latent)
            bias[:, 1] = -1.0
            bias[:, 2:] = 1.0

    def fit_scale(self, xs: list[Tensor]) -> None:
        """Set units, blink axis and ℓ_0 from sequences (T, d). ValueError if one is not finite."""
        x = torch.cat(xs)
        if not x.isfinite().all():
            raise ValueError("attributes are not finite: check the tracking that made them")
        self.mean.copy_(x.mean(0))
        self.std.copy_(x.std(0))
        self.std_velocity.copy_(torch.cat([s.diff(dim=0) for s in xs]).std(0))
        eyes = ((x - self.mean) / self.std)[:, POSE:]
        open_eyes = eyes.median(0).values
        offset = eyes - open_eyes  # (T, 8)
        shut = offset[offset.norm(dim=1) >= offset.norm(dim=1).quantile(0.98)].mean(0)  # (8,)
        self.blink_axis.copy_(shut / shut.norm())
        self.blink_level.copy_(open_eyes @ self.blink_axis + 0.5 * shut.norm())
        self.length_scales[0] = rice_length(max(self.blinks(xs), 1) / len(x))

    def shut(self, x: Tensor) -> Tensor:
        """x (B, T, d) -> (B, T): 1 where the eyes are more than half closed, else 0."""
        eyes = ((x - self.mean) / self.std)[..., POSE:]
        return (eyes @ self.blink_axis > self.blink_level).float()

    def blinks(self, xs: list[Tensor]) -> int:
        """Number of blinks in sequences (T, d)."""
        return sum(int((self.shut(s[None])[0].diff() > 0).sum()) for s in xs)

    def prior(self, T: int) -> Tensor | None:
        """Cholesky factor L_p (D, T, T) of p(z) = N(0, K) (eq. 7); None without a process."""
        if not self.gp:
            return None
        return cholesky(cauchy_kernel(T, self.length_scales, 1 - JITTER)).float()

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """E_h: x (B, T, d) -> μ_φ, σ (B, T, D), P (B, D, T, T); K_φ = P diag(σ²) Pᵀ (eq. 4)."""
        mean, log_sigma, *phi = self.encoder((x - self.mean) / self.std).split(self.latent, -1)
        P = posterior_decay(phi[0].clamp(-6, 6)) if self.gp else None
        return mean, log_sigma.clamp(-4, 2).exp(), P  # eq. 4

    def decode(self, z: Tensor) -> Tensor:
        """D: z (B, T, D) -> attributes (B, T, d) in the units of x."""
        if not self.gp:
            return self.decoder(z) * self.std + self.mean
        sign = torch.tanh(KAPPA * z[..., :1])
        rises = F.relu(sign.diff(dim=1, prepend=sign[:, :1]))  # (B, T, 1), upward crossings
        eyes = self.eye_decoder(rises)
        return torch.cat([self.decoder(z[..., 1:]), eyes], -1) * self.std + self.mean

    def blink_target(self, x: Tensor) -> Tensor:
        """Training target (B, T) of z_0 for x (B, T, d).

        Negative before a blink, positive after it; the size decays over 12 frames.
        """
        t = torch.arange(WINDOW, -WINDOW - 1, -1.0, device=x.device)
        kernel = (t.sign() * torch.exp(-t.abs() / 12))[None, None]
        return F.conv1d(self.shut(x)[:, None], kernel, padding=WINDOW)[:, 0]  # (B, T)

    def distance(self, decoded: Tensor, x: Tensor) -> Tensor:
        """L_rec (eq. 6): mean squared error of values and velocities, each in units of its std.

        decoded, x: (B, T, d). Returns a scalar. Eye codes far from a blink are mostly noise: they
        have less weight.
        """
        weight = torch.ones_like(x)
        near_blink = F.max_pool1d(self.shut(x)[:, None], 9, 1, 4)[:, 0]  # four frames on both sides
        weight[..., POSE:] = 0.2 + 0.8 * near_blink[..., None]
        error = decoded - x
        values = (weight * (error / self.std).square()).mean()  # eq. 6
        velocities = weight[:, 1:] * (error.diff(dim=1) / self.std_velocity).square()
        return values + 0.25 * velocities.mean()

    def loss(
        self, x: Tensor, generator: torch.Generator, beta: float = 0.3
    ) -> tuple[Tensor, dict[str, float]]:
        """Reconstruction (eq. 6) + β KL (eq. 8) + error of the zero crossings at blinks.

        x: (B, T, d). Returns the loss and its parts. A quarter of the batches is cut to a random
        length, because E_h must also encode a short beginning of pose.
        """
        if torch.rand((), generator=generator) < 0.25 and x.shape[1] > BOP + 1:
            x = x[:, : int(torch.randint(BOP, x.shape[1], (), generator=generator))]
        mean, sigma, P = self.encode(x)
        z, crossings = posterior_sample(mean, sigma, P, generator), 0.0
        if self.gp:
            # E_h learns to put the crossings at blinks; D learns to decode crossings at the right
            # place. Without this target z_0 > 0 comes to mean "shut": eyes stay shut for seconds.
            target = self.blink_target(x)
            ideal = torch.where(target > 0, 1.0, -1.0)  # (B, T)
            wrong = F.relu(0.8 - ideal * mean[..., 0]).square()
            crossings = 2.0 * ((4 * target.abs()).clamp(0.2, 1) * wrong).mean()
            # The slope of the process at a crossing: about √2 / ℓ_0 per frame.
            ideal = F.avg_pool1d(ideal[:, None], 3, 1, 1, count_include_pad=False)[:, 0]
            z = torch.cat([0.1 * ideal[..., None], z[..., 1:]], -1)
        rec = self.distance(self.decode(z), x)
        T = x.shape[1]
        kl = gaussian_kl(mean, sigma, P, self.prior(T)).sum(1).mean() / (T * self.d)
        return rec + beta * kl + crossings, {"rec": rec.item(), "kl": kl.item()}


def rice_length(rate: float) -> float:
    """ℓ in frames of the Cauchy process with `rate` upward crossings per frame (Rice 1944)."""
    return 1 / (math.sqrt(2) * math.pi * rate)


def centred(x: Tensor) -> tuple[Tensor, Tensor]:
    """[h ; f_e] (T, 14) -> its deviation from the person's centre (T, 14), and the centre (14,).

    The centre is the mean pose and the median eye code, which is open eyes.
    """
    centre = torch.cat([x[:, :POSE].mean(0), x[:, POSE:].median(0).values])
    return x - centre, centre


@dataclass(frozen=True)
class VAERecipe(Recipe):
    """Settings of the training of a VAE."""

    lr: float = 2e-3
    batch: int = 8  # windows per step
    variant: str = "Trans GP-VAE"  # one of `VARIANTS`
    beta: float = 0.3  # weight of the KL term


def train_vae(
    x: list[Tensor], recipe: VAERecipe, path: Path, seed: int, device: str = "auto"
) -> tuple[AttributeVAE, list[dict]]:
    """Train a row of table 4 (eq. 4-8) on attributes [h ; f_e] (T, 14) of all corpus subjects.

    Returns the VAE, on the CPU, and the history. Arguments, history and errors as in
    `training.train`.
    """
    torch.manual_seed(seed)
    where = pick_device(device)
    vae, x = AttributeVAE(*VARIANTS[recipe.variant]), [centred(s)[0] for s in x]
    vae.fit_scale(x)
    vae.to(where)

    def loss(g: torch.Generator) -> tuple[Tensor, dict]:
        windows = [x[i][s : s + WINDOW] for i, s in random_windows(x, WINDOW, recipe.batch, g)]
        return vae.loss(torch.stack(windows).to(where), g, recipe.beta)  # (batch, WINDOW, 14)

    data, label = digest(*x), recipe.variant
    history = train(vae, loss, recipe, path=path, seed=seed, data=data, label=label)
    return vae.cpu(), history
