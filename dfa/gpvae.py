"""Personalized attributes (section 3.4): the Transformer GP-VAE (eq. 4-8) and the cross-modal
encoder (eq. 9).

A sequence x (T, d) of head poses and eye codes [h ; f_e] becomes a latent sequence z (T, D) whose
prior is a Gaussian process in time: dimension k has the Cauchy kernel with length scale ℓ_k.

Blinks are rare, short events, and a Gaussian that is decoded smoothly does not make them. So
dimension 0 is read through its sign alone, tanh(κ z_0): a blink is an upward crossing of zero. By
Rice's formula such crossings come (√2 π ℓ_0)⁻¹ times a frame under the Cauchy prior, which gives
ℓ_0 from the blink rate that the corpus shows.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

POSE = 6  # the first channels of x are h, the rest f_e
JITTER = 1e-2  # share of white noise in every kernel: keeps Cholesky factors finite
KAPPA = 20.0  # how sharply dimension 0 is read


def cauchy_kernel(T: int, length_scale: float, variance: float = 1.0, jitter: float = JITTER):
    """K_ij = σ² (1 + (i - j)²/ℓ²)⁻¹ + jitter δ_ij over frames, (T, T) in double precision."""
    t = torch.arange(T, dtype=torch.float64)
    lag = (t[:, None] - t) / length_scale
    return variance / (1 + lag**2) + jitter * torch.eye(T, dtype=torch.float64)


def posterior_factor(log_sigma: Tensor, phi_logit: Tensor) -> Tensor:
    """L_q of the posterior covariance K_φ = L_q L_qᵀ, from (B, T, D) each to (B, D, T, T).

    z_t = φ_t z_{t-1} + σ_t ε_t with φ = sigmoid(phi_logit): a precision U Uᵀ with bidiagonal U, as
    in Fortuin et al. 2020. Its inverse is written out densely, L_ts = σ_s Π_{s<r≤t} φ_r, since at
    T = 100 one batched product is faster than a loop over time.
    """
    c = F.logsigmoid(phi_logit).cumsum(1).transpose(1, 2)  # (B, D, T)
    upper = torch.ones(c.shape[2], c.shape[2], dtype=torch.bool, device=c.device).triu(1)
    products = (c[..., :, None] - c[..., None, :]).masked_fill(upper, -torch.inf).exp()
    return products * log_sigma.transpose(1, 2).exp()[..., None, :]


def gaussian_sample(mean: Tensor, factor: Tensor, generator: torch.Generator | None = None):
    """The reparameterization trick: mean (B, T, D) + L ε, L (B or 1, D, T, T)."""
    B, T, D = mean.shape
    eps = torch.randn(B, D, T, 1, generator=generator).to(mean.device)
    return mean + (factor @ eps)[..., 0].transpose(1, 2)


def gaussian_kl(
    mean_q: Tensor,
    factor_q: Tensor,
    factor_p: Tensor,
    mean_p: Tensor | float = 0.0,
    scale_p: Tensor | None = None,
) -> Tensor:
    """KL(q || p) of each latent dimension, (B, D), in closed form:

    log|L_p| - log|L_q| + ½ (‖L_p⁻¹ L_q‖² + ‖L_p⁻¹ (μ_q - μ_p)‖² - T).

    Args:
        mean_q, mean_p, scale_p: (B, T, D). factor_q: (B, D, T, T). factor_p: (D, T, T), multiplied
            from the left by diag(scale_p) where that is given.

    The paper writes KL(p, q) (eq. 8); the evidence lower bound needs this direction.
    """
    B, D, T, _ = factor_q.shape
    delta = (mean_q - mean_p).transpose(1, 2)[..., None]  # (B, D, T, 1)
    rhs = torch.cat([factor_q, delta], -1)
    logdet = factor_p.diagonal(dim1=1, dim2=2).log().sum(1)
    logdet = logdet - factor_q.diagonal(dim1=2, dim2=3).log().sum(2)
    if scale_p is not None:
        s = scale_p.transpose(1, 2)  # (B, D, T)
        rhs, logdet = rhs / s[..., None], logdet + s.log().sum(2)
    rhs = rhs.permute(1, 2, 0, 3).reshape(D, T, B * (T + 1))
    white = torch.linalg.solve_triangular(factor_p, rhs, upper=False).view(D, T, B, T + 1)
    return logdet + 0.5 * (white.square().sum((1, 3)).T - T)


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

    def forward(self, x: Tensor, lag: Tensor) -> Tensor:
        B, T, W = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(B, T, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        bias = self.bias[:, lag.clamp(-self.REACH, self.REACH) + self.REACH]  # (heads, T, T)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.expand(B, -1, -1, -1))
        x = x + self.out(y.transpose(1, 2).reshape(B, T, W))
        return x + self.mlp(self.norm2(x))


class Transformer(nn.Module):
    """(B, T, d_in) -> (B, T, d_out), any T."""

    def __init__(self, d_in: int, d_out: int, width: int = 64, layers: int = 2, heads: int = 4):
        super().__init__()
        self.width = width
        self.embed = nn.Linear(d_in, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, d_out)

    def forward(self, x: Tensor) -> Tensor:
        t = torch.arange(x.shape[1], device=x.device)
        w = torch.exp(
            torch.arange(0, self.width, 2, device=x.device) * (-math.log(1e4) / self.width)
        )
        place = torch.stack([torch.sin(t[:, None] * w), torch.cos(t[:, None] * w)], -1).flatten(1)
        y = self.embed(x) + 0.3 * place
        for block in self.blocks:
            y = block(y, t[:, None] - t)
        return self.head(self.norm(y))


class TransformerGPVAE(nn.Module):
    """Encoder E_h, Gaussian-process latent space Z, decoder D (figure 4a).

    Poses are expected around a person's own mean: where somebody sits is not how they move.
    """

    def __init__(self, d: int = 14, latent: int = 10, scales: tuple[float, float] = (5.0, 60.0)):
        super().__init__()
        self.d, self.latent = d, latent
        spread = torch.logspace(math.log10(scales[0]), math.log10(scales[1]), latent - 1)
        self.register_buffer("length_scales", torch.cat([torch.tensor([16.0]), spread]))  # frames
        for name in ("mean", "std", "std_velocity"):
            self.register_buffer(name, torch.ones(d))
        self.register_buffer("blink_axis", torch.ones(d - POSE))
        self.register_buffer("blink_level", torch.tensor(1.0))
        self.encoder = Transformer(d, 3 * latent)  # E_h
        self.decoder = Transformer(latent - 1, POSE, layers=3)  # D, of h
        self.eye_decoder = Transformer(1, d - POSE, width=48)  # D, of f_e
        with torch.no_grad():  # a posterior that starts narrow and correlated
            self.encoder.head.weight.mul_(0.3)
            self.encoder.head.bias[latent : 2 * latent] = -1.0
            self.encoder.head.bias[2 * latent :] = 1.0

    def fit_scale(self, xs: list[Tensor]) -> None:
        """Take units, the direction of a blink and the blink rate from sequences (T, d)."""
        x = torch.cat(xs)
        self.mean.copy_(x.mean(0))
        self.std.copy_(x.std(0))
        self.std_velocity.copy_(torch.cat([s.diff(dim=0) for s in xs]).std(0))
        eyes = ((x - self.mean) / self.std)[:, POSE:]
        open_eyes = eyes.median(0).values
        away = eyes - open_eyes
        far = away[away.norm(dim=1) >= away.norm(dim=1).quantile(0.98)].mean(0)  # eyes shut
        self.blink_axis.copy_(far / far.norm())
        self.blink_level.copy_(open_eyes @ self.blink_axis + 0.5 * far.norm())
        blinks = sum(int((self.shut(s[None])[0].diff() > 0).sum()) for s in xs)
        rate = max(blinks, 1) / len(x)  # a frame
        self.length_scales[0] = 1 / (math.sqrt(2) * math.pi * rate)

    def shut(self, x: Tensor) -> Tensor:
        """1 where the eyes of (B, T, d) are more than half way to a blink, else 0: (B, T)."""
        eyes = ((x - self.mean) / self.std)[..., POSE:]
        return (eyes @ self.blink_axis > self.blink_level).float()

    def prior(self, T: int) -> Tensor:
        """L_p of p(z) = N(0, K) (eq. 7), (D, T, T)."""
        kernels = [cauchy_kernel(T, float(ell), 1 - JITTER) for ell in self.length_scales]
        return torch.linalg.cholesky(torch.stack(kernels)).float().to(self.mean.device)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """μ_φ (B, T, D) and the factor of K_φ (B, D, T, T) (eq. 4, 5)."""
        mean, log_sigma, phi = self.encoder((x - self.mean) / self.std).chunk(3, -1)
        return mean, posterior_factor(log_sigma.clamp(-2.3, 2), phi.clamp(-6, 6))

    def decode(self, z: Tensor) -> Tensor:
        """D: (B, T, D) -> (B, T, d), in the units of x."""
        eyes = self.eye_decoder(torch.tanh(KAPPA * z[..., :1]))
        return torch.cat([self.decoder(z[..., 1:]), eyes], -1) * self.std + self.mean

    def crossing_loss(self, x: Tensor, z_0: Tensor) -> Tensor:
        """Draws μ_0 below zero before a blink of x and above it after: crossings become blinks.

        Without it the sign of z_0 has no gradient towards a blink that it does not yet make.
        """
        t = torch.arange(40, -41, -1.0, device=x.device)
        nearness = (t.sign() * torch.exp(-t.abs() / 12))[None, None]
        side = F.conv1d(self.shut(x)[:, None], nearness, padding=40)[:, 0]  # < 0 before, > 0 after
        return ((4 * side.abs()).clamp_max(1) * F.relu(0.8 - side.sign() * z_0).square()).mean()

    def loss(self, x: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """Reconstruction (eq. 6, of values and velocities), KL (eq. 8), and crossings of blinks.

        A quarter of the batches is cut short, since E_h must also read a beginning of pose.
        """
        if torch.rand((), generator=generator) < 0.25 and x.shape[1] > 26:
            x = x[:, : int(torch.randint(25, x.shape[1], (), generator=generator))]
        T = x.shape[1]
        mean, factor = self.encode(x)
        error = self.decode(gaussian_sample(mean, factor, generator)) - x
        weight = torch.ones(self.d, device=x.device)
        weight[POSE:] = 0.3  # eyes are mostly noise around open
        rec = (weight * (error / self.std).square()).mean()
        rec = rec + 0.25 * (weight * (error.diff(dim=1) / self.std_velocity).square()).mean()
        kl = gaussian_kl(mean, factor, self.prior(T)).sum(1).mean() / (T * self.d)
        total = rec + 0.3 * kl + 2.0 * self.crossing_loss(x, mean[..., 0])
        return total, {"rec": rec.item(), "kl": kl.item()}

    @torch.no_grad()
    def prior_sample(self, n: int, T: int, generator: torch.Generator | None = None) -> Tensor:
        """n sequences (n, T, d) of nobody in particular, from z ~ p(z)."""
        z = torch.zeros(n, T, self.latent, device=self.mean.device)
        return self.decode(gaussian_sample(z, self.prior(T), generator))


class CrossModalEncoder(nn.Module):
    """E_ah (figure 4b): [f_a : f_h], concatenated in time, -> N(μ', K') of z over the whole window.

    The network adds to what the Gaussian process says already: its conditional mean and covariance
    given the latent code f_h of the beginning of pose, with this person's own length scales and
    variances (learned; dimension 0 keeps the blink rate's).
    """

    def __init__(self, vae: TransformerGPVAE, d_audio: int = 64, width: int = 64):
        super().__init__()
        self.audio_in, self.bop_in = nn.Linear(d_audio, width), nn.Linear(vae.latent, width)
        self.silence = nn.Parameter(torch.zeros(width))  # stands for audio that is not given
        self.modality = nn.Parameter(0.02 * torch.randn(2, width))
        self.net = Transformer(width, 2 * vae.latent, width)
        self.log_scales = nn.Parameter(vae.length_scales[1:].log().clone())
        self.log_variances = nn.Parameter(torch.zeros(vae.latent - 1))
        with torch.no_grad():
            self.net.head.weight.mul_(0.1)
            self.net.head.bias.zero_()

    def conditional(self, vae: TransformerGPVAE, T: int, tau: int) -> tuple[Tensor, Tensor]:
        """W (D, T, τ), L (D, T, T): z | z_{1:τ} ~ N(W z_{1:τ}, L Lᵀ), z_{1:τ} known up to noise."""
        ell = torch.cat([vae.length_scales[:1], self.log_scales.exp()]).double()[:, None, None]
        variance = torch.cat([torch.ones_like(self.log_variances[:1]), self.log_variances.exp()])
        t = torch.arange(T, dtype=torch.float64, device=ell.device)
        identity = torch.eye(T, dtype=torch.float64, device=ell.device)
        K = (1 - JITTER) * variance.double()[:, None, None] / (1 + ((t[:, None] - t) / ell) ** 2)
        K = K + JITTER * identity
        known = K[:, :tau, :tau] + 0.02 * identity[:tau, :tau]
        W = torch.linalg.solve(known, K[:, :tau]).mT
        return W.float(), torch.linalg.cholesky(K - W @ K[:, :tau]).float()

    def forward(
        self,
        vae: TransformerGPVAE,
        bop: Tensor,
        f_a: Tensor | None,
        T: int,
        deaf: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """bop (B, τ, d), f_a (B, T, 64) or None, deaf (B,) bool -> μ', s (B, T, D), L (D, T, T).

        K' = diag(s) L Lᵀ diag(s).
        """
        tau = bop.shape[1]
        with torch.no_grad():
            f_h = vae.encode(bop)[0]  # E_h of the beginning of pose
        if f_a is None:
            heard = self.silence.expand(len(bop), T - tau, -1)
        else:
            heard = self.audio_in(f_a[:, tau:])
            if deaf is not None:
                heard = torch.where(deaf[:, None, None], self.silence, heard)
        tokens = [self.bop_in(f_h) + self.modality[0], heard + self.modality[1]]
        shift, log_s = self.net(torch.cat(tokens, 1)).chunk(2, -1)
        W, L = self.conditional(vae, T, tau)
        return torch.einsum("dts,bsd->btd", W, f_h) + shift, log_s.clamp(-4, 1).exp(), L

    def loss(
        self, vae: TransformerGPVAE, x: Tensor, f_a: Tensor, tau: int, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        """Eq. 9 on the mean prediction of the pose, plus KL(q_φ(z | h_{1:T}) || N(μ', K')).

        Eq. 9 alone asks for the mean of all futures, and the mean never blinks; the KL term makes
        the predicted distribution cover what the person really did. A fifth of the batch hears
        nothing, so that the same encoder serves without audio.
        """
        B, T, d = x.shape
        deaf = (torch.rand(B, generator=generator) < 0.2).to(x.device)
        mean, s, L = self(vae, x[:, :tau], f_a, T, deaf)
        with torch.no_grad():
            mean_q, factor_q = vae.encode(x)
        kl = gaussian_kl(mean_q, factor_q, L, mean, s).sum(1).mean() / (T * d)
        error = ((vae.decode(mean) - x) / vae.std)[:, tau:, :POSE]
        rec = error.square().mean()
        return 0.3 * rec + kl, {"rec": rec.item(), "kl": kl.item()}


@torch.no_grad()
def generate(
    vae: TransformerGPVAE,
    cme: CrossModalEncoder,
    bop: Tensor,
    f_a: Tensor | None,
    n: int,
    generator: torch.Generator,
    T: int = 100,
) -> Tensor:
    """n frames (n, d) that follow a beginning of pose (τ, d), window after window, any length.

    f_a: (n, 64), or None for motion without audio. Each window of T frames is conditioned on the
    last τ frames made so far; what its reconstruction of them misses at the joint fades out over
    the next frames, so that windows meet without a step.
    """
    tau, out = len(bop), bop.clone()
    sound = None if f_a is None else F.pad(f_a, (0, 0, tau, T))
    while len(out) < n + tau:
        start = len(out) - tau
        heard = None if sound is None else sound[start : start + T][None]
        mean, s, L = cme(vae, out[None, -tau:], heard, T)
        noise = gaussian_sample(torch.zeros_like(mean), L, generator)
        x = vae.decode(mean + s * noise)[0]
        k = torch.arange(1, T - tau + 1, device=x.device)[:, None]
        fade = torch.where(torch.arange(x.shape[1], device=x.device) < POSE, 0.9**k, 0.6**k)
        out = torch.cat([out, x[tau:] + fade * (out[-1] - x[tau - 1])])
    return out[tau : tau + n]
