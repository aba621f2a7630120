"""Section 3.4: a Transformer GP-VAE for head pose and blinks, and its cross-modal encoder.

The attributes x = [h ; f_e] are (B, T, d): pose channels first, eye code last, 25 frames a second.
Each latent dimension is one Gaussian process over the window, so a sample is a smooth curve of any
length. Curves cannot be blinks, which are short, rare and all of one height; but the *zero
crossings* of a curve can. Latent 0 is that curve: the eyes close where it rises through zero.
Subtract each subject's mean pose before training: the latents then code motion, not seating.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from dfa.media import FPS, InputError

NUGGET = 1e-5  # samples are drawn from the smooth process; this only keeps Cholesky stable


def cauchy_kernel(
    T: int, length_scale: float | Tensor, variance: float | Tensor = 1.0, jitter: float = 1e-6
) -> Tensor:
    """K_ij = variance / (1 + (i-j)^2 / length_scale^2) + jitter [i=j]: (..., T, T) float64, eq. 7.

    `length_scale` in frames and `variance` may be tensors of one shape, which leads the result's.
    """
    t = torch.arange(T, dtype=torch.float64)
    ell, var = (
        torch.as_tensor(v, dtype=torch.float64).cpu()[..., None, None]
        for v in (length_scale, variance)
    )
    return var / (1 + ((t[:, None] - t) / ell) ** 2) + jitter * torch.eye(T, dtype=torch.float64)


def blink_length_scale(blinks_per_s: float) -> float:
    """The length scale (frames) whose process rises through zero `blinks_per_s` times a second.

    Rice's formula gives 1 / (sqrt(2) pi l) a frame for the Cauchy kernel. A sixth of the rises
    follow the one before too closely to be a blink of their own (counted on samples), hence 1.2.
    """
    return FPS / (math.sqrt(2) * math.pi * 1.2 * blinks_per_s)


def normal(shape: Sequence[int], like: Tensor, generator: Generator | None) -> Tensor:
    """Standard normal numbers on `like`'s device, drawn on the generator's."""
    device = generator.device if generator else like.device
    return torch.randn(*shape, generator=generator, device=device).to(like)


class Block(nn.Module):
    """Pre-norm attention and MLP. A learned bias per head and lag starts as ALiBi's slopes, so
    that neighbours count first, whatever the length of the sequence."""

    def __init__(self, width: int, heads: int = 4, reach: int = 32) -> None:
        super().__init__()
        self.heads, self.reach = heads, reach
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )
        slope = 2.0 ** (-1.5 * torch.arange(heads))[:, None]
        self.bias = nn.Parameter(-slope * torch.arange(-reach, reach + 1).abs())

    def forward(self, x: Tensor) -> Tensor:
        B, T, W = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(B, T, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        t = torch.arange(T, device=x.device)
        lag = (t[:, None] - t).clamp(-self.reach, self.reach) + self.reach
        score = q @ k.mT / math.sqrt(q.shape[-1]) + self.bias[:, lag]  # (B, heads, T, T)
        y = (score.softmax(-1) @ v).transpose(1, 2).reshape(B, T, W)
        x = x + self.out(y)
        return x + self.mlp(self.norm2(x))


class Transformer(nn.Module):
    """(B, T, d_in) -> (B, T, d_out) for any T: linear in, sinusoidal positions, blocks, linear."""

    def __init__(self, d_in: int, d_out: int, width: int = 64, layers: int = 2) -> None:
        super().__init__()
        self.embed = nn.Linear(d_in, width)
        self.blocks = nn.Sequential(*(Block(width) for _ in range(layers)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, d_out)

    def forward(self, x: Tensor) -> Tensor:
        y = self.embed(x)
        T, W = y.shape[1:]
        w = torch.exp(torch.arange(0, W, 2, device=x.device) * (-math.log(1e4) / W))
        angle = torch.arange(T, device=x.device)[:, None] * w
        # 0.3: positions say where, the bias says how far; at full size they drown the input
        y = y + 0.3 * torch.stack([angle.sin(), angle.cos()], -1).flatten(1)
        return self.head(self.norm(self.blocks(y)))


def posterior_factor(phi: Tensor, log_sigma: Tensor) -> Tensor:
    """L_q (B, D, T, T) with K = L_q L_q^T for eq. 4, from two (B, T, D) outputs of the encoder.

    K's inverse is tridiagonal, U U^T, with U upper bidiagonal: U_tt = 1/sigma_t and
    U_(t-1)t = -phi_t/sigma_t (Fortuin et al. 2020). So z_t = phi_t z_(t-1) + sigma_t eps_t, and
    L_q = U^-T needs no solve: its entry (i, j) is sigma_j times the product of phi over j < t <= i.
    `phi` comes as a logit: in (0, 1) the products are differences of one cumulative sum of logs.
    Dense, so memory grows with T^2; windows are short.
    """
    c = F.logsigmoid(phi).cumsum(1).transpose(1, 2)  # (B, D, T)
    above = torch.ones(c.shape[-1], c.shape[-1], dtype=torch.bool, device=c.device).triu(1)
    ratio = (c[..., :, None] - c[..., None, :]).masked_fill(above, -torch.inf).exp()
    return ratio * log_sigma.exp().transpose(1, 2)[..., None, :]


def gaussian_sample(mean: Tensor, factor: Tensor, generator: Generator | None = None) -> Tensor:
    """z = mean + factor eps (reparameterised): (B, T, D) from (B, T, D) and (B or 1, D, T, T)."""
    B, T, D = mean.shape
    eps = normal((B, D, T, 1), mean, generator)
    return mean + (factor @ eps)[..., 0].transpose(1, 2)


def gaussian_kl(
    mean_q: Tensor,
    factor_q: Tensor,
    factor_p: Tensor,
    mean_p: Tensor | float = 0.0,
    scale_p: Tensor | None = None,
) -> Tensor:
    """KL(q || p) in nats for each sequence and latent, (B, D), eq. 8.

    log|L_p| - log|L_q| + (||L_p^-1 L_q||^2 + ||L_p^-1 (mu_q - mu_p)||^2 - T) / 2, with
    q = N(mean_q, L_q L_q^T), L_q (B, D, T, T), and L_p = diag(scale_p) factor_p, factor_p
    (D, T, T), scale_p (B, T, D). The paper writes KL(p, q) and means a VAE's usual term, this one.
    """
    B, D, T, _ = factor_q.shape
    delta = (mean_q - mean_p).transpose(1, 2)[..., None]
    rhs = torch.cat([factor_q, delta], -1)  # (B, D, T, T+1)
    logdet = factor_p.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    logdet = logdet - factor_q.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    if scale_p is not None:
        s = scale_p.transpose(1, 2)  # (B, D, T)
        rhs, logdet = rhs / s[..., None], logdet + s.log().sum(-1)
    # one wide triangular solve per latent rather than one per sequence and latent
    rhs = rhs.permute(1, 2, 0, 3).reshape(D, T, B * (T + 1))
    white = torch.linalg.solve_triangular(factor_p, rhs, upper=False).view(D, T, B, T + 1)
    return logdet + 0.5 * (white.square().sum((1, 3)).T - T)


def patches(x: Tensor, size: int = 16, step: int = 4) -> Tensor:
    """(B, T, d) -> (B * n, d * size): short pieces of every sequence."""
    return x.unfold(1, size, step).flatten(0, 1).flatten(1)


def energy_distance(x: Tensor, y: Tensor) -> Tensor:
    """2 E|X-Y| - E|X-X'| - E|Y-Y'| between samples (n, k) and (m, k), unbiased, over sqrt(k).
    Zero only where the two distributions agree."""

    def distances(a: Tensor, b: Tensor) -> Tensor:
        square = a.square().sum(1)[:, None] + b.square().sum(1) - 2 * a @ b.T
        return square.clamp_min(1e-4).sqrt() / math.sqrt(a.shape[1])  # 1e-4: finite gradient

    n, m = len(x), len(y)
    within = distances(x, x).sum() / (n * (n - 1)) + distances(y, y).sum() / (m * (m - 1))
    return 2 * distances(x, y).mean() - within


class TransformerGPVAE(nn.Module):
    """Fig. 4a: E_h and D are Transformers, the latent space Z is `latent` Gaussian processes.

    Latent 0 carries the blinks: the eye decoder sees only the sign of it (steeply, tanh(20 z)), so
    that a rise through zero is a whole blink or none. The others carry the pose, with length scales
    spread geometrically over `scales` (frames). `gp=False` gives every latent an i.i.d. prior
    (the ablation), `network` replaces the Transformer by another (d_in, d_out, width, layers).
    Call `fit` once with the corpus before training.
    """

    def __init__(
        self,
        d: int = 14,
        eyes: int = 8,
        latent: int = 10,
        width: int = 64,
        scales: tuple[float, float] = (5.0, 60.0),
        gp: bool = True,
        network: type[nn.Module] = Transformer,
        jitter: float = 1e-2,
        beta: float = 0.3,
        velocity: float = 0.25,
        eye_weight: float = 0.3,
        guide: float = 2.0,
        match: float = 1.0,
        shortest: int = 25,
    ) -> None:
        super().__init__()
        self.d, self.pose, self.eyes, self.latent, self.gp = d, d - eyes, eyes, latent, gp
        self.jitter, self.beta, self.velocity, self.eye_weight = jitter, beta, velocity, eye_weight
        self.guide, self.match, self.shortest = guide, match, shortest
        self.encoder = network(d, 3 * latent, width, 2)  # E_h
        self.pose_decoder = network(latent - 1, self.pose, width, 3)  # D
        self.eye_decoder = network(1, eyes, width, 2)
        ell = torch.logspace(math.log10(scales[0]), math.log10(scales[1]), latent - 1)
        ell = torch.cat([torch.tensor([blink_length_scale(0.35)]), ell])
        self.register_buffer("length_scales", ell if gp else torch.full_like(ell, 1e-6))
        self.register_buffer("mean", torch.zeros(d))
        self.register_buffer("std", torch.ones(d))
        self.register_buffer("std_v", torch.ones(d))  # of the frame-to-frame difference
        self.register_buffer("blink_axis", torch.ones(eyes))
        self.register_buffer("blink_level", torch.tensor(1.0))

    def fit(self, sequences: Sequence[Tensor]) -> None:
        """Set the corpus's mean and std and what a blink is, from sequences (T_i, d)."""
        x = torch.cat(list(sequences))
        if x.shape[1] != self.d:
            raise InputError(f"the GP-VAE expects {self.d} channels, the sequences have {x.shape[1]}")
        self.mean.copy_(x.mean(0))
        self.std.copy_(x.std(0).clamp_min(1e-6))
        self.std_v.copy_(torch.cat([s.diff(dim=0) for s in sequences]).std(0).clamp_min(1e-7))
        e = self.standardise(x)[:, self.pose :]
        rest = e.median(0).values
        distance = (e - rest).norm(dim=1)
        # eyes are shut in more than 2 % of all frames, and nothing else moves the code as far
        shut = (e[distance >= distance.quantile(0.98)] - rest).mean(0)
        self.blink_axis.copy_(shut / shut.norm())
        self.blink_level.copy_(rest @ self.blink_axis + 0.5 * shut.norm())
        if self.gp:
            self.length_scales[0] = blink_length_scale(max(self.blink_rate(sequences), 0.05))

    def standardise(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std

    def shut(self, x: Tensor) -> Tensor:
        """1 where the eyes are more than half closed, else 0: (B, T, d) -> (B, T)."""
        return (self.standardise(x)[..., self.pose :] @ self.blink_axis > self.blink_level).float()

    def blink_rate(self, sequences: Sequence[Tensor]) -> float:
        """Blinks per second in sequences (T_i, d)."""
        blinks = sum(int((self.shut(s[None]).diff() > 0).sum()) for s in sequences)
        return blinks / sum(len(s) for s in sequences) * FPS

    def prior(self, T: int, jitter: float | None = None) -> Tensor:
        """L_p (latent, T, T) of eq. 7, with the model's jitter unless one is given."""
        K = cauchy_kernel(T, self.length_scales, 1.0, self.jitter if jitter is None else jitter)
        return torch.linalg.cholesky(K).to(self.mean)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """E_h, eq. 4: mean (B, T, D) and factor (B, D, T, T) of q(z|x) for x (B, T, d), any T."""
        mean, phi, log_sigma = self.encoder(self.standardise(x)).chunk(3, -1)
        # q is never finer than the prior's jitter, or blinks would hide in amplitudes near zero
        log_sigma = (log_sigma - 1).clamp(0.5 * math.log(self.jitter), 2)
        return mean, posterior_factor((phi + 1).clamp(-6, 6), log_sigma)

    def decode(self, z: Tensor) -> Tensor:
        """D: (B, T, D) -> (B, T, d), in the data's units."""
        pose, eyes = self.pose_decoder(z[..., 1:]), self.eye_decoder(torch.tanh(20 * z[..., :1]))
        return torch.cat([pose, eyes], -1) * self.std + self.mean

    def blink_guide(self, x: Tensor, u: Tensor) -> Tensor:
        """Asks latent 0's mean u (B, T) to be below -0.8 before a blink of x and above 0.8 after."""
        tau = torch.arange(40.0, -41.0, -1.0, device=x.device)
        near = (tau.sign() * (-tau.abs() / 12).exp())[None, None]
        s = F.conv1d(self.shut(x)[:, None], near, padding=40)[:, 0]  # > 0 after, < 0 before
        return ((4 * s.abs()).clamp_max(1) * F.relu(0.8 - s.sign() * u).square()).mean()

    def loss(self, x: Tensor, generator: Generator | None = None) -> tuple[Tensor, dict]:
        """L_rec (eq. 6) + beta L_KL (eq. 8) for windows x (B, T, d), and the parts as numbers.

        Both are means per frame and channel. To eq. 6 we add the error of the velocities (their
        scale is far smaller, so eq. 6 alone lets the head tremble); eye channels weigh
        `eye_weight`. A quarter of the calls cut the windows, so that E_h also knows short
        sequences such as a BOP. `match` weighs the energy distance between decoded prior samples
        and the data, which a VAE's aggregate posterior alone does not bring together.
        """
        coin, cut = torch.rand(2, generator=generator).tolist()
        if coin < 0.25:
            x = x[:, : int(self.shortest + cut * (x.shape[1] - self.shortest))]
        B, T, d = x.shape
        mean, factor = self.encode(x)
        error = self.decode(gaussian_sample(mean, factor, generator)) - x
        weight = torch.ones_like(self.mean)
        weight[self.pose :] = self.eye_weight
        rec = (weight * (error / self.std).square()).mean()
        vel = (weight * (error.diff(dim=1) / self.std_v).square()).mean()
        kl = gaussian_kl(mean, factor, self.prior(T)).sum(1).mean() / (T * d)
        guide = self.blink_guide(x, mean[..., 0])
        loss = rec + self.velocity * vel + self.beta * kl + self.guide * guide
        parts = {"rec": rec, "velocity": vel, "kl": kl, "guide": guide}
        if self.match:
            zero = mean.new_zeros(max(2, B // 2), T, self.latent)
            z = gaussian_sample(zero, self.prior(T, NUGGET), generator)
            a, b = self.pose_decoder(z[..., 1:]), self.standardise(x)[..., : self.pose]
            fast = (self.std / self.std_v)[: self.pose]
            parts["match"] = energy_distance(patches(a), patches(b)) + energy_distance(
                patches(a.diff(dim=1) * fast), patches(b.diff(dim=1) * fast)
            )
            loss = loss + self.match * parts["match"]
        return loss, {k: float(v.detach()) for k, v in parts.items()}

    @torch.no_grad()
    def prior_sample(self, n: int, T: int, generator: Generator | None = None) -> Tensor:
        """n sequences (n, T, d) from the prior: face attributes without any input."""
        zero = self.mean.new_zeros(n, T, self.latent)
        return self.decode(gaussian_sample(zero, self.prior(T, NUGGET), generator))


def gp_conditional(
    T: int, tau: int, length_scales: Tensor, variances: Tensor, jitter: float, noise: float = 0.02
) -> tuple[Tensor, Tensor]:
    """Z's process given its first tau values, seen with variance `noise`: N(W z_(1:tau), L L^T).

    W (D, T, tau) and L (D, T, T), float64, differentiable in the kernel's parameters (D,).
    """
    K = cauchy_kernel(T, length_scales, variances, jitter)
    seen = K[:, :tau, :tau] + noise * torch.eye(tau, dtype=K.dtype)
    W = torch.linalg.solve(seen, K[:, :tau]).mT
    return W, torch.linalg.cholesky(K - W @ K[:, :tau])


class CrossModalEncoder(nn.Module):
    """Fig. 4b, E^a_h: audio and BOP to N(mu', K') of z^a_h over a window, for one subject.

    It is the latent process given the BOP's latents, with the subject's own length scales and
    variances (learnt); the Transformer over [f_a : f_h] moves the mean and scales the covariance:
    mu' = W f_h + delta, K' = diag(s) L L^T diag(s). Without audio a learnt embedding stands for
    f_a. Call `fit` with the subject's sequence before training; keep the VAE frozen.
    """

    def __init__(
        self,
        vae: TransformerGPVAE,
        d_audio: int = 64,
        width: int = 64,
        beta: float = 1.0,
        energy: float = 0.5,
        drop_audio: float = 0.2,
        spread: bool = True,
    ) -> None:
        super().__init__()
        self.beta, self.energy, self.drop_audio, self.spread = beta, energy, drop_audio, spread
        self.audio_in, self.bop_in = nn.Linear(d_audio, width), nn.Linear(vae.latent, width)
        self.no_audio = nn.Parameter(torch.zeros(width))
        self.modality = nn.Parameter(0.02 * torch.randn(2, width))
        self.transformer = Transformer(width, 2 * vae.latent, width)
        nn.init.normal_(self.transformer.head.weight, std=0.01)  # starts as the plain conditional
        nn.init.zeros_(self.transformer.head.bias)
        # log ratios to the VAE's kernels, in fifths: they have to move faster than weights do
        self.kernel = nn.Parameter(torch.zeros(2, vae.latent))
        self.register_buffer("length_scales", vae.length_scales.clone())
        self.register_buffer("range", torch.stack([vae.mean - 3 * vae.std, vae.mean + 3 * vae.std]))

    def fit(self, vae: TransformerGPVAE, x: Tensor) -> None:
        """Set the subject's blink rate and range of motion from a sequence x (T, d)."""
        if vae.gp:
            self.length_scales[0] = blink_length_scale(max(vae.blink_rate([x]), 0.05))
        self.range.copy_(torch.stack([x.amin(0), x.amax(0)]))

    def forward(
        self,
        vae: TransformerGPVAE,
        bop: Tensor,
        f_a: Tensor | None,
        T: int,
        drop: Tensor | None = None,
        jitter: float | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """mu' (B, T, D), s (B, T, D) and L (D, T, T) for windows of T frames.

        bop (B, tau, d) is h_(1:tau), f_a (B, T - tau, d_audio) the audio of the frames to come (the
        BOP's own motion is known), `drop` (B,) bool marks the sequences whose audio is withheld.
        """
        B, tau, _ = bop.shape
        with torch.no_grad():
            f_h, _ = vae.encode(bop)  # (B, tau, D)
        silence = self.no_audio.expand(B, T - tau, -1)
        a = silence if f_a is None else self.audio_in(f_a)
        if drop is not None:
            a = torch.where(drop[:, None, None], silence, a)
        tokens = torch.cat([self.bop_in(f_h) + self.modality[0], a + self.modality[1]], 1)
        delta, log_s = self.transformer(tokens).chunk(2, -1)
        # latent 0's kernel follows from the blink rate, see fit
        learnt = torch.cat([torch.zeros_like(self.kernel[:, :1]), self.kernel[:, 1:]], 1)
        ell, var = (5 * learnt).exp()
        jitter = vae.jitter if jitter is None else jitter
        W, L = gp_conditional(T, tau, self.length_scales * ell, var, jitter)
        mean = torch.einsum("dts,bsd->btd", W.to(f_h), f_h) + delta
        return mean, log_s.clamp(-4, 1).exp(), L.to(f_h)

    def loss(
        self,
        vae: TransformerGPVAE,
        x: Tensor,
        f_a: Tensor | None,
        tau: int,
        generator: Generator | None = None,
    ) -> tuple[Tensor, dict]:
        """Eq. 9 for windows x (B, T, d) with audio f_a (B, T, d_audio); tau frames are the BOP.

        Eq. 9 is least for samples that all equal the mean of what may follow: a head that sinks to
        rest, eyes that never shut. So we subtract half the distance between two samples (the
        energy score, least for the true distribution) and add beta KL(q(z|x) || N(mu', K')).
        `spread=False` is eq. 9 alone.
        """
        B, T, d = x.shape
        drop = torch.rand(B, generator=generator).to(x.device) < self.drop_audio
        future = None if f_a is None else f_a[:, tau:]
        mean, s, L = self(vae, x[:, :tau], future, T, drop)

        def draw() -> Tensor:
            z = mean + s * gaussian_sample(torch.zeros_like(mean), L, generator)
            return vae.standardise(vae.decode(z))[:, tau:]

        h = vae.standardise(x)[:, tau:]
        if not self.spread:
            rec = (draw() - h).square().mean()
            return rec, {"rec": float(rec.detach())}
        with torch.no_grad():
            mean_q, factor_q = vae.encode(x)
        kl = gaussian_kl(mean_q, factor_q, L, mean, s).sum(1).mean() / (T * d)

        def distance(a: Tensor, b: Tensor) -> Tensor:
            e = patches((a - b)[..., : vae.pose], 15, 15)  # eyes: by the KL and the blink rate
            return (e.square().mean(1) + 1e-4).sqrt().mean()

        a, b = draw(), draw()
        energy = 0.5 * (distance(a, h) + distance(b, h) - distance(a, b))
        loss = self.energy * energy + self.beta * kl
        return loss, {"energy": float(energy.detach()), "kl": float(kl.detach())}


def soft_clamp(x: Tensor, low: Tensor, high: Tensor, slack: float = 0.25) -> Tensor:
    """x where it is well inside [low, high]; beyond, bent smoothly to a little over the ends."""
    centre, half = (low + high) / 2, ((high - low) / 2).clamp_min(1e-9)
    u = (x - centre) / half
    over = (u.abs() - 1 + slack / 2).clamp_min(0)
    return centre + half * (u - u.sign() * (over - slack * torch.tanh(over / slack)))


@torch.no_grad()
def generate(
    vae: TransformerGPVAE,
    cme: CrossModalEncoder,
    bop: Tensor,
    f_a: Tensor | None,
    length: int,
    generator: Generator | None = None,
    T: int = 100,
) -> Tensor:
    """The `length` frames (length, d) that follow bop (tau, d), driven by audio f_a or by none.

    f_a (length, d_audio) starts where the BOP ends. Windows of T frames follow each other, each
    given the last tau frames of the one before. The decoder meets them only nearly, so what is
    left at the join fades out: over about 10 frames for the pose, 2 for the eyes.
    """
    tau = len(bop)
    if T <= tau:
        raise InputError(f"a window of {T} frames leaves nothing after a BOP of {tau}")
    if f_a is not None and len(f_a) < length:
        raise InputError(f"{length} frames asked for, audio features for {len(f_a)} given")
    out = bop
    fade = torch.full((vae.d,), 0.9).index_fill(0, torch.arange(vae.pose, vae.d), 0.6).to(bop)
    fade = fade ** torch.arange(1, T - tau + 1).to(bop)[:, None]
    while len(out) < tau + length:
        start = len(out) - tau
        audio = None
        if f_a is not None:  # after its end the last frame's sound goes on
            index = torch.arange(start, start + T - tau, device=f_a.device)
            audio = f_a[index.clamp_max(length - 1)][None]
        mean, s, L = cme(vae, out[None, -tau:], audio, T, jitter=NUGGET)
        z = mean + s * gaussian_sample(torch.zeros_like(mean), L, generator)
        x = vae.decode(z)[0]  # (T, d)
        new = soft_clamp(x[tau:], *cme.range) + fade * (out[-1] - soft_clamp(x[tau - 1], *cme.range))
        out = torch.cat([out, new])
    return out[tau : tau + length]
