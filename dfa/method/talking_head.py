"""One subject from end to end: a video in, a talking head out.

`Corpus` holds what is learnt once from many people (F_d, E_a, the GP-VAE); `Subject` holds what is
learnt from one (the cross-modal encoder's fine-tuning and the radiance field) and can speak.
"""

from __future__ import annotations

import copy
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from . import face, tracking
from .asr import SpeechRecogniser, ctc_loss
from .audio import mfcc, variants
from .crossmodal import BOP, CrossModalEncoder, generate
from .disentangle import DIM_M, Disentangler, plain_loss, swap_loss
from .fields import FIELDS, load_field
from .gpvae import VARIANTS, WINDOW, AttributeVAE
from .media import SAMPLES_PER_FRAME, atomic, frame_count
from .nerf import CONTEXT, Field, PoseCorrections, conditions, region_weights, render
from .profiles import Profile
from .provenance import sha256
from .sync import SyncExpert, SyncModel, augment, expert_loss
from .tracking import Attributes
from .training import digest, load, pick_device, save, share, train

WEIGHTS = Path(__file__).parent / "data" / "weights"  # trained on the sample captures' corpus
CORPUS_WEIGHTS = ("disentangle", "sync", "gpvae", "cme")
MOVES = 8  # windows of head motion and blinks a step


def training_part(T: int) -> int:
    """Frames of the first 10/11 of a capture; the rest tests (the authors' split)."""
    return T * 10 // 11


def tracker_sources() -> list[np.ndarray]:
    """The code that tracks, as bytes: other code, and a video is tracked again."""
    modules = (face, tracking)
    return [np.frombuffer(Path(m.__file__).read_bytes(), np.uint8) for m in modules]


def tracked(video: str | Path, path: Path, seconds: float | None = None) -> Attributes:
    """Attributes of a video, from `path` if this code tracked this very video before."""
    key = digest(sha256(video), seconds, *tracker_sources())
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
    """The stages that are learnt once: F_d, E_a, the GP-VAE and the cross-modal encoder."""

    f_d: Disentangler
    sync: SyncModel
    vae: AttributeVAE | None = None
    cme: CrossModalEncoder | None = None  # what fine-tuning on a person starts from

    @classmethod
    def load(cls, folder: str | Path = WEIGHTS) -> Corpus:
        """Read the four networks from a folder of safetensors (the package ships one)."""
        vae = AttributeVAE()
        corpus = cls(Disentangler(), SyncModel(), vae, CrossModalEncoder(vae))
        for model, name in zip(
            (corpus.f_d, corpus.sync, vae, corpus.cme), CORPUS_WEIGHTS, strict=True
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

    @torch.inference_mode()
    def lid_opening(self, f_e: Tensor) -> np.ndarray:
        """Lid opening (T,) of eye codes (T, 8), as a share of inter-ocular distance."""
        l = self.f_d.decode(torch.zeros(len(f_e), DIM_M), f_e)
        lids = (l[:, [37, 38, 43, 44]] - l[:, [41, 40, 47, 46]]).norm(dim=-1).mean(1)
        return (lids / (l[:, 36:42].mean(1) - l[:, 42:48].mean(1)).norm(dim=-1)).numpy()

    def personal(self, attributes: Attributes) -> Tensor:
        """[h ; f_e], the attributes that the GP-VAE models, (T, 14)."""
        return torch.cat([torch.from_numpy(attributes.h), self.f_e(attributes)], 1)


def load_expert(folder: str | Path = WEIGHTS) -> SyncExpert:
    """The Sync expert of a folder of weights."""
    expert = SyncExpert()
    load(expert, Path(folder) / "expert.safetensors")
    return expert


def ship(runs: str | Path) -> None:
    """Put a run's corpus networks and expert into the package, for `dfa fit` and `dfa score`."""
    runs = Path(runs)
    expert = load_expert(runs)
    save(expert.half(), WEIGHTS / "expert.safetensors")  # the largest by far, and halves suffice
    for name in CORPUS_WEIGHTS:
        with atomic(WEIGHTS / f"{name}.safetensors") as part:
            shutil.copyfile(runs / f"{name}.safetensors", part)


def at_home(x: Tensor) -> tuple[Tensor, Tensor]:
    """[h ; f_e] (T, 14) around the person's own place, and that place (14,): the mean pose, and the
    median eye code, which is open eyes. How somebody's eyes look is not how they move."""
    home = torch.cat([x[:, :6].mean(0), x[:, 6:].median(0).values])
    return x - home, home


def _windows(tensors: list[Tensor], length: int, batch: int, g: torch.Generator):
    """`batch` random windows of `length` frames: which tensor, and its first frame."""
    for _ in range(batch):
        i = int(torch.randint(len(tensors), (), generator=g))
        yield i, int(torch.randint(max(len(tensors[i]) - length, 0) + 1, (), generator=g))


def train_disentangler(
    landmarks: Tensor, p: Profile, path: Path, seed: int, swapped: bool = True
) -> tuple[Disentangler, list[dict]]:
    """F_d on (N, 68, 3) frontal landmarks of all corpus subjects (eq. 2).

    swapped=False trains the control, an autoencoder that never sees two faces crossed.
    """
    torch.manual_seed(seed)
    f_d, rec = Disentangler.for_landmarks(landmarks), swap_loss if swapped else plain_loss

    def loss(g: torch.Generator):
        a, b = landmarks[torch.randint(len(landmarks), (2, 256), generator=g)]
        return rec(f_d, a, b), {}

    history = train(
        f_d,
        loss,
        path=path,
        steps=p.disentangle_steps,
        lr=1e-3,
        seed=seed,
        inputs=digest(landmarks, *([] if swapped else ["plain"])),
        label="F_d" if swapped else "F_d without swaps",
    )
    return f_d, history


def augmented(
    f_m: list[Tensor], audio: list[np.ndarray], seed: int, n: int = 6
) -> tuple[list[Tensor], list[Tensor]]:
    """Mouth codes (T, 32) and sounds (640 T,) of many people -> each pair as it is and `n` times
    disturbed (`audio.variants`): codes (T', 32) and MFCC (4T', 20), 1 + n of each person in turn.
    """
    codes, sounds = [], []
    for i, (m, a) in enumerate(zip(f_m, audio, strict=True)):
        rng = np.random.default_rng([seed, i])
        pairs = [(mfcc(a, len(m)), m.numpy()), *variants(a, m.numpy(), n, rng)]
        sounds += [torch.from_numpy(a) for a, _ in pairs]
        codes += [torch.from_numpy(m) for _, m in pairs]
    return codes, sounds


def train_sync(
    f_m: list[Tensor],
    sounds: list[Tensor],
    steps: int,
    path: Path,
    seed: int,
    loss: str = "paper",
    context: int = 2,
):
    """E_a on the mouth codes (T, 32) and MFCC (4T, 20) of all corpus subjects (eq. 3)."""
    torch.manual_seed(seed)
    model, n = SyncModel(loss, context), 50
    model.f_m_std.copy_(torch.cat(f_m).std(0))

    def loss_of(g: torch.Generator):
        cuts = list(_windows(f_m, n, 24, g))
        a = torch.stack([sounds[i][4 * s : 4 * (s + n)] for i, s in cuts])
        m = torch.stack([f_m[i][s : s + n] for i, s in cuts])
        a, m = augment(a, m, g)
        return model.loss(model.audio(a), model.mouth(m)), {}

    history = train(
        model, loss_of, path=path, steps=steps, lr=2e-3, seed=seed,
        inputs=digest(*f_m, *sounds, loss, context), label="E_a",
        weight_decay=1e-2,
    )  # fmt: skip
    return model, history


def train_asr(
    sounds: list[Tensor], texts: list[str], steps: int, path: Path, seed: int
) -> tuple[SpeechRecogniser, list[dict]]:
    """The recogniser of table 5 on utterances: MFCC (n, 20) and what they say."""
    torch.manual_seed(seed)
    asr = SpeechRecogniser()

    def loss(g: torch.Generator):
        i = torch.randint(len(sounds), (16,), generator=g).tolist()
        return ctc_loss(asr([sounds[k] for k in i]), [texts[k] for k in i]), {}

    history = train(
        asr, loss, path=path, steps=steps, lr=4e-3, seed=seed, inputs=digest(*sounds, texts),
        label="recogniser",
    )  # fmt: skip
    return asr, history


def train_expert(mouths: list[Tensor], sounds: list[Tensor], p: Profile, path: Path, seed: int):
    """The Sync expert on the mouths (T, 48, 64) and MFCC (4T, 20) of all corpus subjects."""
    torch.manual_seed(seed)
    expert, n = SyncExpert(), 20
    rand = lambda g, *s: torch.rand(*s, generator=g)  # noqa: E731

    def loss(g: torch.Generator):
        cuts = list(_windows(mouths, n, 8, g))
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


def train_vae(
    x: list[Tensor],
    steps: int,
    path: Path,
    seed: int,
    variant: str = "Trans GP-VAE",
    beta: float = 0.3,
) -> tuple[AttributeVAE, list[dict]]:
    """A row of table 4, by default the Transformer GP-VAE, on the (T, 14) attributes of all corpus
    subjects (eq. 4-8)."""
    torch.manual_seed(seed)
    vae, x = AttributeVAE(*VARIANTS[variant]), [at_home(s)[0] for s in x]
    vae.fit_scale(x)

    def loss(g: torch.Generator):
        windows = [x[i][s : s + WINDOW] for i, s in _windows(x, WINDOW, MOVES, g)]
        return vae.loss(torch.stack(windows), g, beta)

    history = train(
        vae, loss, path=path, steps=steps, lr=2e-3, seed=seed, inputs=digest(*x, variant, beta),
        label=variant,
    )  # fmt: skip
    return vae, history


# --- what is learnt from one person ------------------------------------------------------------


def train_cme(
    corpus: Corpus, x: list[Tensor], f_a: list[Tensor] | None, steps: int, path: Path, seed: int
) -> tuple[CrossModalEncoder, list[dict]]:
    """The cross-modal encoder on [h ; f_e] (T, 14) and f_a (T, 64), or no sound at all, of one
    person or many (eq. 9).

    It starts from `corpus.cme` where there is one: that is the fine-tuning on a selected person.
    """
    torch.manual_seed(seed)
    vae = corpus.vae.requires_grad_(False)
    cme = CrossModalEncoder(vae) if corpus.cme is None else copy.deepcopy(corpus.cme)
    x, n = [at_home(s)[0] for s in x], min(WINDOW, *map(len, x))
    cme.count_blinks(vae, x)

    def loss(g: torch.Generator):
        cuts = list(_windows(x, n, MOVES, g))
        windows = torch.stack([x[i][s : s + n] for i, s in cuts])
        sounds = None if f_a is None else torch.stack([f_a[i][s : s + n] for i, s in cuts])
        return cme.loss(vae, windows, sounds, BOP, g)

    start = [*vae.state_dict().values(), *cme.state_dict().values()]
    history = train(
        cme, loss, path=path, steps=steps, lr=2e-3, seed=seed,
        inputs=digest(*x, *(f_a or []), *start), label="cross-modal encoder",
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
    corrected: bool = False,
    kind: str = "fast",
    context: int = CONTEXT,
    watch: Callable[[Field], None] | None = None,
) -> tuple[Field, list[dict]]:
    """F_θ on one subject's frames (T, S, S, 3) uint8, tracked points (T, 68, 2) and conditions.

    corrected: learn small corrections of the tracked poses along with the field.
    kind: the field, "fast" or the "paper"'s. context: of `conditions`.
    watch: is shown the field as each step begins.
    """
    torch.manual_seed(seed)
    where = pick_device(device)
    field = FIELDS[kind](cond, frames.shape[1], context).to(where)
    corrections = PoseCorrections(field, len(cond)).to(where) if corrected else None
    pictures = torch.from_numpy(frames).permute(0, 3, 1, 2)
    landmarks = torch.from_numpy(points).float()

    def loss(g: torch.Generator):
        if watch is not None:
            watch(field)
        i = share(torch.randint(len(cond), (field.frames_per_step,), generator=g))
        told = cond[i].to(where)
        if corrections is not None:
            told = torch.cat([told[:, :6] + corrections(i.to(where)), told[:, 6:]], 1)
        weight = region_weights(landmarks[i], frames.shape[1])
        return field.loss(told, pictures[i].float().div(255).to(where), weight.to(where), g)

    groups = field.parameter_groups()
    if corrections is not None:
        groups.append({"params": [corrections.knots], "lr": 1e-3})
    history = train(
        corrections or field, loss, path=path, steps=steps, lr=groups, seed=seed, clip=None,
        warmup=field.warmup,
        inputs=digest(frames, points, cond), label="radiance field",
    )  # fmt: skip
    return field, history


def sample_personal(
    corpus: Corpus, cme: CrossModalEncoder, x: Tensor, f_a: Tensor | int, seed: int
) -> Tensor:
    """Sampled [h ; f_e] (T, 14) for f_a (T, 64), or for T frames without sound, of the person whose
    own (>= 25, 14) are `x`. The beginning of pose is theirs, and so is the noise of a seed."""
    g = torch.Generator().manual_seed(seed + int(digest(x)[:8], 16))
    x, home = at_home(x)
    sound, n = (None, f_a) if isinstance(f_a, int) else (f_a, len(f_a))
    made = generate(corpus.vae, cme, x[:BOP], sound, n, g)
    made[:, :6] = within_reach(made[:, :6], x[:, :6])
    return made + home


def within_reach(h: Tensor, own: Tensor) -> Tensor:
    """Poses h (T, 6) less far out where they leave the 1st to 99th percentile of a person's `own`:
    a Gaussian has no bounds, a neck has, and a field knows only poses that it has seen."""
    low, high = torch.quantile(own, torch.tensor([0.01, 0.99], device=own.device), 0)
    margin = (0.2 * (high - low)).clamp_min(1e-6)
    beyond = h - h.clamp(low, high)
    return h - beyond + margin * torch.tanh(beyond / margin)


def among_pauses(audio: np.ndarray) -> tuple[np.ndarray, int]:
    """A sound (n,) that hardly pauses, with silence around it, and the frames of it that stand
    before; any other sound as it is, and 0.

    MFCC are normalised over the utterance, and the captures pause for a fifth of their time. Where
    nobody pauses, speech itself would be the mean, and the lips would hardly open.
    """
    T = max(1, len(audio) // SAMPLES_PER_FRAME)
    whole = np.pad(audio, (0, SAMPLES_PER_FRAME))[: T * SAMPLES_PER_FRAME]
    level = np.square(whole.reshape(T, -1)).mean(1)
    pauses = float((level < 1e-3 * np.percentile(level, 95)).mean())  # 30 dB below speech
    if pauses >= 0.1:
        return audio, 0
    lead = math.ceil((0.2 - pauses) / 0.8 * T / 2)
    return np.pad(audio, lead * SAMPLES_PER_FRAME), lead


@dataclass
class Subject:
    """A fitted subject: can speak any sound."""

    corpus: Corpus
    cme: CrossModalEncoder
    field: Field
    x: Tensor  # (T, 14) the subject's own [h ; f_e]
    size: int

    @classmethod
    def load(cls, folder: str | Path, corpus: Corpus, size: int) -> Subject:
        """Read personal.safetensors, field.safetensors and attributes.npz from a folder."""
        folder = Path(folder)
        attributes = Attributes.load(folder / "attributes.npz")
        cme, field = CrossModalEncoder(corpus.vae), load_field(folder / "field.safetensors")
        load(cme, folder / "personal.safetensors")
        return cls(corpus, cme, field, corpus.personal(attributes), size)

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
        n = frame_count(audio)
        sound, lead = among_pauses(audio)
        f_a = self.corpus.f_a(sound, n + 2 * lead)[lead : lead + n]
        if personal is None:
            personal = sample_personal(self.corpus, self.cme, self.x, f_a, seed)
        elif len(personal) < n:
            there_and_back = torch.cat([personal, personal.flip(0)])
            personal = there_and_back.repeat(n // len(there_and_back) + 1, 1)
        personal = personal[:n]
        yield from render(
            self.field, conditions(personal[:, :6], f_a, personal[:, 6:]), size or self.size
        )
