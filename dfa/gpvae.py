"""The Transformer GP-VAE of section 3.4: head pose and eye codes as samples of Gaussian processes."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def cauchy_kernel(
    T: int, length_scale: float, variance: float = 1.0, jitter: float = 1e-2
) -> Tensor:
    t = torch.arange(T, dtype=torch.float64)
    lag = (t[:, None] - t) / length_scale
    return variance / (1 + lag**2) + jitter * torch.eye(T, dtype=torch.float64)


def sinusoids(T: int, width: int) -> Tensor:
    t = torch.arange(T)[:, None]
    w = torch.exp(torch.arange(0, width, 2) * (-math.log(1e4) / width))
    return torch.stack([torch.sin(t * w), torch.cos(t * w)], -1).flatten(1)


class Block(nn.Module):
    def __init__(self, width: int, heads: int, reach: int = 32) -> None:
        super().__init__()
        self.heads, self.reach = heads, reach
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )
        slope = 2.0 ** (-1.5 * torch.arange(heads))[:, None]
        self.bias = nn.Parameter(-slope * torch.arange(-reach, reach + 1).abs())

    def forward(self, x: Tensor, lag: Tensor) -> Tensor:
        B, T, W = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(B, T, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        bias = self.bias[:, lag.clamp(-self.reach, self.reach) + self.reach]
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.expand(B, -1, -1, -1))
        x = x + self.out(y.transpose(1, 2).reshape(B, T, W))
        return x + self.mlp(self.norm2(x))


class Transformer(nn.Module):
    def __init__(self, d_in: int, d_out: int, width: int, layers: int, heads: int = 4) -> None:
        super().__init__()
        self.width = width
        self.embed = nn.Linear(d_in, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, d_out)

    def forward(self, x: Tensor) -> Tensor:
        t = torch.arange(x.shape[1])
        y = self.embed(x) + 0.3 * sinusoids(len(t), self.width)
        for block in self.blocks:
            y = block(y, t[:, None] - t)
        return self.head(self.norm(y))


def posterior_factor(log_sigma: Tensor, phi_logit: Tensor) -> Tensor:
    """L_q = U^-T of z_t = phi_t z_{t-1} + sigma_t eps_t; (B,T,D)x2 -> (B,D,T,T)."""
    c = F.logsigmoid(phi_logit).cumsum(1).transpose(1, 2)  # (B, D, T)
    T = c.shape[2]
    upper = torch.ones(T, T, dtype=torch.bool).triu(1)
    ratio = (c[..., :, None] - c[..., None, :]).masked_fill(upper, -torch.inf).exp()
    return ratio * log_sigma.transpose(1, 2).exp()[..., None, :]


def gaussian_sample(mean: Tensor, factor: Tensor, generator=None) -> Tensor:
    B, T, D = mean.shape
    eps = torch.randn(B, D, T, 1, generator=generator)
    return mean + (factor @ eps)[..., 0].transpose(1, 2)


def gaussian_kl(mean_q, factor_q, factor_p, mean_p=0.0, scale_p=None):
    B, D, T, _ = factor_q.shape
    delta = (mean_q - mean_p).transpose(1, 2)[..., None]  # (B, D, T, 1)
    rhs = torch.cat([factor_q, delta], -1)
    logdet = factor_p.diagonal(dim1=1, dim2=2).log().sum(1) - factor_q.diagonal(
        dim1=2, dim2=3
    ).log().sum(2)
    if scale_p is not None:
        s = scale_p.transpose(1, 2)
        rhs = rhs / s[..., None]
        logdet = logdet + s.log().sum(2)
    rhs = rhs.permute(1, 2, 0, 3).reshape(D, T, B * (T + 1))
    white = torch.linalg.solve_triangular(factor_p, rhs, upper=False).view(D, T, B, T + 1)
    return logdet + 0.5 * (white.square().sum((1, 3)).T - T)


def energy_distance(x, y):
    n, m = len(x), len(y)
    d = math.sqrt(x.shape[1])
    c = lambda a, b: (
        ((a[:, None] - b).square().sum(-1) + 1e-6).sqrt() / d
        if False
        else torch.sqrt(
            (a.square().sum(1)[:, None] + b.square().sum(1) - 2 * a @ b.T).clamp_min(1e-4)
        )
        / d
    )
    return 2 * c(x, y).mean() - c(x, x).sum() / (n * (n - 1)) - c(y, y).sum() / (m * (m - 1))


class TransformerGPVAE(nn.Module):
    def __init__(
        self,
        d=14,
        latent=12,
        width=64,
        layers=2,
        T=100,
        scales=(2.0, 50.0),
        beta=0.05,
        jitter=1e-2,
        min_T=25,
        ptrunc=0.25,
        dlayers=3,
        wpose=1.0,
        weye=1.0,
        learn=False,
        vel=0.1,
        gen=0.0,
        patch=16,
    ):
        self.gen, self.patch = gen, patch
        self.vel = vel
        super().__init__()
        (
            self.d,
            self.latent,
            self.beta,
            self.jitter,
            self.min_T,
            self.ptrunc,
            self.wpose,
            self.weye,
        ) = d, latent, beta, jitter, min_T, ptrunc, wpose, weye
        self.learn = learn
        self.log_scale = nn.Parameter(
            torch.linspace(math.log(scales[0]), math.log(scales[1]), latent), requires_grad=learn
        )
        self.register_buffer("mean", torch.zeros(d))
        self.register_buffer("std", torch.ones(d))
        self.register_buffer("std_v", torch.ones(d))
        self.encoder = Transformer(d, 3 * latent, width, layers)
        self.decoder = Transformer(latent, d, width, dlayers)
        self._factors = {}
        with torch.no_grad():
            self.encoder.head.weight.mul_(0.3)
            self.encoder.head.bias[latent : 2 * latent] = -1.5
            self.encoder.head.bias[2 * latent :] = 1.0

    def fit_scale(self, x):
        self.std_v.copy_(torch.cat([s.diff(dim=0) for s in x]).std(0))
        x = torch.cat(x)
        self.mean.copy_(x.mean(0))
        self.std.copy_(x.std(0)); e=(x[:,6:]-self.mean[6:])/self.std[6:]; v=torch.linalg.eigh(e.T@e)[1][:,-1]; p=e@v; v=v*torch.sign((p**3).mean()); p=e@v; self.guide_dir=v; self.guide_thr=float(p.quantile(.5)+.5*(p.quantile(.995)-p.quantile(.5)))

    def prior(self, T):
        if T not in self._factors or self.learn:
            self._factors[T] = torch.stack(
                [
                    torch.linalg.cholesky(cauchy_kernel(T, l, 1 - self.jitter, self.jitter))
                    for l in self.log_scale.double().exp()
                ]
            ).float()
        return self._factors[T]

    def encode(self, x):
        mean, log_sigma, phi = self.encoder((x - self.mean) / self.std).chunk(3, -1)
        return mean, posterior_factor(log_sigma.clamp(-6, 2), phi.clamp(-6, 6))

    def decode(self, z):
        return self.decoder(z) * self.std + self.mean

    def loss(self, x, generator=None):
        if torch.rand((), generator=generator) < self.ptrunc:
            x = x[:, : int(torch.randint(self.min_T, x.shape[1], (), generator=generator))]
        mean, factor = self.encode(x)
        xh = self.decode(gaussian_sample(mean, factor, generator))
        w = torch.ones(self.d)
        w[6:] = self.weye
        rec = (w * ((xh - x) / self.std).square()).mean()
        rec = rec + self.vel * (w * ((xh - x).diff(dim=1) / self.std_v).square()).mean()
        gd = torch.zeros(())
        if self.guide:
            shut = (((x-self.mean)/self.std)[..., 6:] @ self.guide_dir > self.guide_thr).float()
            R = 12; k = torch.cat([torch.ones(R), torch.zeros(1), -torch.ones(R)])[None, None]
            sgn = F.conv1d(shut[:, None], k, padding=R)[:, 0]   # cross-correlation: out[t]=sum_j shut[t+j-R]k[j]: past -> +1
            gd = (sgn.abs().clamp_max(2) * F.softplus(-2 * sgn.sign() * mean[..., self.gi])).mean()
        gen = torch.zeros(())
        if self.gen:
            xp = self.decode(
                gaussian_sample(
                    torch.zeros_like(mean),
                    self.prior(x.shape[1]).expand(len(x), -1, -1, -1),
                    generator,
                )
            )
            P = lambda v: v.unfold(1, self.patch, 4).flatten(0, 1).flatten(1)
            f = lambda v: (
                (v / self.std)[..., 6:],
                (v.diff(dim=1) / self.std_v)[..., :6],
                (v / self.std)[..., :6],
            )
            gen = sum(energy_distance(P(a), P(b)) for a, b in zip(f(xp), f(x)))
        kld = gaussian_kl(mean, factor, self.prior(x.shape[1])).mean(0)
        kl = kld.sum() / (x.shape[1] * self.d)
        return rec + self.beta * kl + self.gen * gen + self.guide * gd, dict(gd=float(gd), 
            gen=float(gen),
            rec=float(rec),
            kl=float(kl),
            kld=kld.detach() / x.shape[1],
            pose=float(((xh - x) / self.std)[..., :6].square().mean()),
        )

    @torch.no_grad()
    def prior_sample(self, n, T, generator=None):
        f = self.prior(T)
        return self.decode(
            gaussian_sample(torch.zeros(n, T, self.latent), f.expand(n, -1, -1, -1), generator)
        )


class CrossModalEncoder(nn.Module):
    def __init__(
        self,
        vae,
        d_audio=64,
        width=64,
        layers=2,
        bop=25,
        beta=1.0,
        p_null=0.2,
        noise=0.05,
        cond=True,
        wrec=0.1,
    ):
        super().__init__()
        self.latent, self.bop, self.beta, self.p_null, self.noise, self.cond, self.wrec = (
            vae.latent,
            bop,
            beta,
            p_null,
            noise,
            cond,
            wrec,
        )
        self.audio_in, self.bop_in = nn.Linear(d_audio, width), nn.Linear(vae.latent, width)
        self.null = nn.Parameter(torch.zeros(width))
        self.modality = nn.Parameter(0.02 * torch.randn(2, width))
        self.net = Transformer(width, 2 * vae.latent, width, layers)
        with torch.no_grad():
            self.net.head.weight.mul_(0.1)
            self.net.head.bias.zero_()
        self._cache = {}

    def resampling(self, vae, T, tau):
        if (T, tau) not in self._cache:
            Ws, Ls = [], []
            for l in vae.log_scale.detach().double().exp():
                K = cauchy_kernel(T, l, 1 - vae.jitter, vae.jitter)
                if self.cond:
                    W = torch.linalg.solve(
                        K[:tau, :tau] + self.noise * torch.eye(tau, dtype=K.dtype), K[:tau]
                    ).T
                    K = K - W @ K[:tau]
                else:
                    W = torch.zeros(T, tau, dtype=K.dtype)
                    W[:tau] = torch.eye(tau)
                Ws.append(W)
                Ls.append(torch.linalg.cholesky(K))
            self._cache[T, tau] = torch.stack(Ws).float(), torch.stack(Ls).float()
        return self._cache[T, tau]

    def forward(self, vae, bop, f_a, T, null=None):
        tau = bop.shape[1]
        with torch.no_grad():
            f_h = vae.encode(bop)[0]
        if f_a is None:
            a = self.null.expand(len(bop), T - tau, -1)
        else:
            a = self.audio_in(f_a[:, tau:])
            if null is not None:
                a = torch.where(null[:, None, None], self.null, a)
        tok = torch.cat([self.bop_in(f_h) + self.modality[0], a + self.modality[1]], 1)
        dmu, ls = self.net(tok).chunk(2, -1)
        W, L = self.resampling(vae, T, tau)
        mu = torch.einsum("dts,bsd->btd", W, f_h) + dmu
        return mu, ls.clamp(-4, 1).exp(), L

    def sample(self, mu, s, L, generator=None):
        B, T, D = mu.shape
        eps = torch.randn(B, D, T, 1, generator=generator)
        return mu + s * (L @ eps)[..., 0].transpose(1, 2)

    def loss(self, vae, x, f_a, tau, generator=None):
        B, T, d = x.shape
        null = torch.rand(B, generator=generator) < self.p_null
        mu, s, L = self(vae, x[:, :tau], f_a, T, null)
        with torch.no_grad():
            mq, Lq = vae.encode(x)
        kl = gaussian_kl(mq, Lq, L, mu, s).sum(1).mean() / (T * d)
        rec = torch.zeros(())
        if self.wrec:
            xh = vae.decode(self.sample(mu, s, L, generator))
            rec = (((xh - x) / vae.std)[:, tau:]).square().mean()
        return self.wrec * rec + self.beta * kl, dict(
            rec=float(rec), kl=float(kl), s=float(s[:, tau:].mean()), dmu=float((mu[:, tau:].var()))
        )


@torch.no_grad()
def generate(vae, cme, bop, f_a, n, generator=None, T=100):
    tau = len(bop)
    out = bop.clone()
    bias = None
    while len(out) < n + tau:
        start = len(out) - tau
        a = None
        if f_a is not None:
            a = f_a.new_zeros(T, f_a.shape[1])
            seg = f_a[max(0, start - tau) : start - tau + T]
            i = max(0, tau - start)
            a = F.pad(f_a, (0, 0, tau, T))[start : start + T][None]
        mu, s, L = cme(vae, out[None, -tau:], a, T)
        x = vae.decode(cme.sample(mu, s, L, generator))[0]
        off = out[-1] - x[tau - 1]
        k = torch.arange(1, T - tau + 1)[:, None]
        w = torch.where(torch.arange(x.shape[1]) < 6, 0.9**k, 0.6**k)
        out = torch.cat([out, x[tau:] + w * off])
    return out[tau : tau + n]
