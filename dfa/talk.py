"""One subject from end to end: a video in, a talking head out.

`Corpus` holds what is learnt once from many people (F_d, E_a, the GP-VAE); `Subject` holds what is
learnt from one (the cross-modal encoder's fine-tuning and the radiance field) and can speak.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from . import face, tracking
from .audio import mfcc
from .disentangle import Disentangler, swap_loss
from .gpvae import CrossModalEncoder, TransformerGPVAE, generate
from .media import FPS
from .nerf import RadianceField, conditions, photo_loss, region_weights, render
from .profiles import Profile
from .provenance import sha256
from .sync import SyncExpert, SyncModel, augment, contrastive_loss, expert_loss
from .tracking import Attributes
from .training import digest, load, pick_device, train

WEIGHTS = Path(__file__).parent / "data" / "weights"  # trained on the sample captures' corpus
BOP = 25  # frames of the beginning of pose, tau
WINDOW = 100  # frames of a GP-VAE window, T


def training_part(T: int) -> int:
    """Frames of the first 10/11 of a capture; the rest tests (the authors' split)."""
    return T * 10 // 11


def tracked(video: str | Path, path: Path, seconds: float | None = None) -> Attributes:
    """Attributes of a video, from `path` if this code tracked this very video before."""
    sources = [Path(module.__file__).read_bytes() for module in (face, tracking)]
    key = digest(sha256(video), seconds, *(np.frombuffer(s, np.uint8) for s in sources))
    marker = path.with_suffix(".key")
    if not (path.exists() and marker.exists() and marker.read_text() == key):
        path.parent.mkdir(parents=True, exist_ok=True)
        marker.unlink(missing_ok=True)
        tracking.track(video, seconds=seconds).save(path)
        marker.write_text(key)
    return Attributes.load(path)


# --- what is learnt from many people -----------------------------------------------------------


@dataclass
class Corpus:
    """The stages that are learnt once: F_d, E_a and the Transformer GP-VAE."""

    f_d: Disentangler
    sync: SyncModel
    vae: TransformerGPVAE

    @classmethod
    def load(cls, folder: str | Path = WEIGHTS) -> Corpus:
        """Read the three networks from a folder of safetensors (the package ships one)."""
        corpus = cls(Disentangler(), SyncModel(), TransformerGPVAE())
        for model, name in (
            (corpus.f_d, "disentangle"),
            (corpus.sync, "sync"),
            (corpus.vae, "gpvae"),
        ):
            load(model, Path(folder) / f"{name}.safetensors")
        return corpus

    @torch.inference_mode()
    def f_a(self, audio: np.ndarray, n_frames: int | None = None) -> Tensor:
        """E_a of a whole utterance, (T, 64)."""
        return self.sync.audio(torch.from_numpy(mfcc(audio, n_frames))[None])[0].clone()

    @torch.inference_mode()
    def f_e(self, attributes: Attributes) -> Tensor:
        """Eye codes of a tracked video, (T, 8)."""
        return self.f_d.encode(torch.from_numpy(attributes.landmarks))[1].clone()

    def personal(self, attributes: Attributes) -> Tensor:
        """[h ; f_e], the attributes that the GP-VAE models, (T, 14)."""
        return torch.cat([torch.from_numpy(attributes.h), self.f_e(attributes)], 1)


def load_expert(folder: str | Path = WEIGHTS) -> SyncExpert:
    """The Sync expert of a folder of weights."""
    expert = SyncExpert()
    load(expert, Path(folder) / "expert.safetensors")
    return expert


def _windows(
    tensors: list[Tensor],
    lengths: list[int],
    length: int,
    batch: int,
    g: torch.Generator,
    rate: int = 1,
):
    """`batch` random windows of `length` frames: which tensor, and slices scaled by `rate`."""
    for _ in range(batch):
        i = int(torch.randint(len(tensors), (), generator=g))
        start = int(torch.randint(max(lengths[i] - length, 0) + 1, (), generator=g))
        yield i, start


def train_disentangler(
    landmarks: Tensor, p: Profile, path: Path, seed: int
) -> tuple[Disentangler, list[dict]]:
    """F_d on (N, 68, 3) frontal landmarks of all corpus subjects (eq. 2)."""
    torch.manual_seed(seed)
    f_d = Disentangler.for_landmarks(landmarks)

    def loss(g: torch.Generator):
        a, b = landmarks[torch.randint(len(landmarks), (2, 256), generator=g)]
        value = swap_loss(f_d, a, b)
        return value, {}

    history = train(
        f_d,
        loss,
        path=path,
        steps=p.disentangle_steps,
        lr=1e-3,
        seed=seed,
        inputs=digest(landmarks),
        label="F_d",
    )
    return f_d, history


def train_sync(f_m: list[Tensor], sounds: list[Tensor], p: Profile, path: Path, seed: int):
    """E_a on the mouth codes (T, 32) and MFCC (4T, 20) of all corpus subjects (eq. 3)."""
    torch.manual_seed(seed)
    model, lengths, n = SyncModel(), [len(f) for f in f_m], 50
    model.f_m_mean.copy_(torch.cat(f_m).mean(0))
    model.f_m_std.copy_(torch.cat(f_m).std(0))

    def loss(g: torch.Generator):
        cuts = list(_windows(f_m, lengths, n, 24, g))
        a = torch.stack([sounds[i][4 * s : 4 * (s + n)] for i, s in cuts])
        m = torch.stack([f_m[i][s : s + n] for i, s in cuts])
        a, m = augment(a, m, g)
        return contrastive_loss(model.audio(a), model.mouth(m), g), {}

    history = train(
        model, loss, path=path, steps=p.sync_steps, lr=2e-3, seed=seed,
        inputs=digest(*f_m, *sounds), label="E_a",
        weight_decay=1e-2,
    )  # fmt: skip
    return model, history


def train_expert(mouths: list[Tensor], sounds: list[Tensor], p: Profile, path: Path, seed: int):
    """The Sync expert on the mouths (T, 48, 64) and MFCC (4T, 20) of all corpus subjects."""
    torch.manual_seed(seed)
    expert, lengths, n = SyncExpert(), [len(m) for m in mouths], 20
    rand = lambda g, *s: torch.rand(*s, generator=g)  # noqa: E731

    def loss(g: torch.Generator):
        cuts = list(_windows(mouths, lengths, n, 8, g))
        clips = []
        for i, s in cuts:
            x = mouths[i][s : s + n]
            x = x.flip(-1) if rand(g, 1) < 0.5 else x
            dx, dy = (torch.randint(-3, 4, (2,), generator=g)).tolist()
            x = x.roll((dy, dx), (1, 2))
            if rand(g, 1) < 0.5:  # renderers blur; a blurred mouth is judged like a sharp one
                x = torch.nn.functional.avg_pool2d(x[:, None], 3, 1, 1, count_include_pad=False)[
                    :, 0
                ]
            x = x.clamp_min(1e-3) ** (0.6 + 0.9 * rand(g, 1)) + 0.02 * torch.randn(
                x.shape, generator=g
            )
            clips.append(x)
        return expert_loss(expert, clips, [sounds[i][4 * s : 4 * (s + n)] for i, s in cuts]), {}

    history = train(
        expert, loss, path=path, steps=p.expert_steps, lr=1e-3, seed=seed,
        inputs=digest(*mouths, *sounds),
        label="Sync expert", weight_decay=1e-2,
    )  # fmt: skip
    return expert, history


def train_gpvae(
    x: list[Tensor], p: Profile, path: Path, seed: int
) -> tuple[TransformerGPVAE, list[dict]]:
    """The Transformer GP-VAE on the (T, 14) attributes of all corpus subjects (eq. 4-8)."""
    torch.manual_seed(seed)
    vae, lengths = TransformerGPVAE(), [len(s) for s in x]
    vae.fit_scale(torch.cat(x))

    def loss(g: torch.Generator):
        return vae.loss(
            torch.stack([x[i][s : s + WINDOW] for i, s in _windows(x, lengths, WINDOW, 32, g)]), g
        )

    history = train(
        vae,
        loss,
        path=path,
        steps=p.vae_steps,
        lr=1e-3,
        seed=seed,
        inputs=digest(*x),
        label="Transformer GP-VAE",
    )
    return vae, history


# --- what is learnt from one person ------------------------------------------------------------


def train_cme(corpus: Corpus, x: Tensor, f_a: Tensor, steps: int, path: Path, seed: int):
    """Fine-tune a cross-modal encoder on one subject's [h ; f_e] (T, 14), f_a (T, 64) (eq. 9)."""
    torch.manual_seed(seed)
    cme, n = CrossModalEncoder(), min(WINDOW, len(x))
    vae = corpus.vae.requires_grad_(False)

    def loss(g: torch.Generator):
        starts = [s for _, s in _windows([x], [len(x)], n, 16, g)]
        stack = lambda y: torch.stack([y[s : s + n] for s in starts])  # noqa: E731
        return cme.loss(vae, stack(x), stack(f_a), BOP, g)

    history = train(
        cme, loss, path=path, steps=steps, lr=1e-3, seed=seed,
        inputs=digest(x, f_a, *vae.state_dict().values()),
        label="cross-modal encoder",
    )  # fmt: skip
    return cme, history


def train_field(
    frames: np.ndarray,
    points: np.ndarray,
    cond: Tensor,
    steps: int,
    path: Path,
    seed: int,
    device: str = "auto",
) -> tuple[RadianceField, list[dict]]:
    """F_θ on one subject's frames (T, S, S, 3) uint8, tracked points (T, 68, 2) and conditions."""
    torch.manual_seed(seed)
    where = pick_device(device)
    field = RadianceField(cond[:, :6]).to(where)
    pictures = torch.from_numpy(frames).permute(0, 3, 1, 2).contiguous()
    landmarks = torch.from_numpy(points).float()

    def loss(g: torch.Generator):
        i = torch.randint(len(cond), (4,), generator=g)
        weight = region_weights(landmarks[i], frames.shape[1])
        return photo_loss(
            field, cond[i].to(where), pictures[i].float().div(255).to(where), weight.to(where), g
        )

    history = train(
        field, loss, path=path, steps=steps, lr=field.parameter_groups(), seed=seed, clip=None,
        inputs=digest(frames, points, cond), label="radiance field",
    )  # fmt: skip
    return field, history


@dataclass
class Subject:
    """A fitted subject: can speak any sound."""

    corpus: Corpus
    cme: CrossModalEncoder
    field: RadianceField
    bop: Tensor  # (BOP, 14) how the subject begins
    size: int

    @classmethod
    def load(cls, folder: str | Path, corpus: Corpus, size: int) -> Subject:
        """Read what `train_cme` and `train_field` left in a folder, beside attributes.npz."""
        folder = Path(folder)
        attributes = Attributes.load(folder / "attributes.npz")
        cme, field = CrossModalEncoder(), RadianceField()
        load(cme, folder / "cme.safetensors")
        load(field, folder / "field.safetensors")
        return cls(corpus, cme, field, corpus.personal(attributes)[:BOP], size)

    def attributes(self, f_a: Tensor, seed: int, listen: bool = True) -> Tensor:
        """Sampled [h ; f_e] (T, 14) for f_a (T, 64); with `listen=False` the sound is not heard."""
        g = torch.Generator().manual_seed(seed)
        return generate(self.corpus.vae, self.cme, self.bop, f_a if listen else None, len(f_a), g)

    def speak(
        self,
        audio: np.ndarray,
        *,
        seed: int = 0,
        personal: Tensor | None = None,
        size: int | None = None,
    ):
        """Frames (S, S, 3) uint8 of this subject saying `audio`, one by one.

        `personal` (T, 14) replaces the generated pose and eyes, repeated to and fro if too short.
        """
        n = max(1, round(len(audio) / 16_000 * FPS))
        f_a = self.corpus.f_a(audio, n)
        if personal is None:
            personal = self.attributes(f_a, seed)
        elif len(personal) < n:
            there_and_back = torch.cat([personal, personal.flip(0)])
            personal = there_and_back.repeat(n // len(there_and_back) + 1, 1)
        personal = personal[:n]
        yield from render(
            self.field, conditions(personal[:, :6], f_a, personal[:, 6:]), size or self.size
        )
