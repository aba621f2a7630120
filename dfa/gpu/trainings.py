"""Every training of the package in miniature: on made-up data, in seconds, on any device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from .. import training
from ..evaluation.expert import ExpertRecipe, train_expert
from ..method.audio import mfcc
from ..method.crossmodal import CrossModalRecipe, train_cme
from ..method.disentangle import DIM_E, DIM_M, DisentanglementRecipe, train_disentangler
from ..method.face import FaceModel, in_image
from ..method.field import Field, conditions
from ..method.field_training import FIELDS, FieldRecipe, train_field
from ..method.gpvae import VARIANTS, AttributeVAE, VAERecipe, train_vae
from ..method.sync import DIM_A, SyncRecipe, train_sync
from ..recording import Attributes, Recording
from ..rivals import Method, methods
from ..rivals.parts import draw_landmarks
from ..rivals.recogniser import RecogniserRecipe, SpeechRecogniser, train_recogniser

Training = Callable[[Path, int, str], object]  # (folder for the weights, steps, device)


def speaker(T: int = 30, size: int = 32, seed: int = 0) -> Recording:
    """A made-up recording: the mean face before a grey wall, its mouth and pose moving."""
    rng = np.random.default_rng(seed)
    face = FaceModel.load()
    moves = np.sin(np.arange(T) / 3)[:, None]
    F_exp = 0.3 * moves * rng.standard_normal(face.B_exp.shape[2])
    landmarks = face.landmarks(np.zeros(face.B_id.shape[2]), F_exp).astype(np.float32)
    h = np.tile(np.float32([0, 0, 0, 0, 0, 1.2]), (T, 1))
    h[:, :3] += 0.03 * rng.standard_normal(3) * moves
    points = in_image(h, landmarks)
    frames = np.full((T, size, size, 3), 120, np.uint8)
    frames = np.maximum(frames, draw_landmarks(points, size).transpose(0, 2, 3, 1))
    attributes = Attributes(
        h=h, F_exp=F_exp, F_id=np.zeros(face.B_id.shape[2]), landmarks=landmarks, points=points,
        ear=np.full(T, 0.3), lost=np.zeros(T, bool), crop=np.array([0, 0, size]), h_raw=h,
    )  # fmt: skip
    audio = (0.1 * rng.standard_normal(640 * T)).astype(np.float32)
    recording = Recording("somebody", frames, audio, attributes)
    recording.masks = np.full((T, size, size), 255, np.uint8)  # no mediapipe on a bare machine
    return recording


@contextmanager
def without_dropout() -> Iterator[None]:
    """Train without dropout: devices draw other random numbers, else the same from the CPU."""

    def begin_step(model: nn.Module, *args) -> None:
        begin(model, *args)
        for part in model.modules():
            if isinstance(part, nn.Dropout):
                part.eval()
            if isinstance(part, nn.RNNBase):
                part.dropout = 0.0

    begin, training.begin_step = training.begin_step, begin_step
    try:
        yield
    finally:
        training.begin_step = begin


def _codes(n: int, *sizes: int) -> list[torch.Tensor]:
    """Smooth made-up sequences, (n, size) each."""
    rng = np.random.default_rng(0)
    walks = [np.cumsum(rng.standard_normal((n, size)), 0) / n**0.5 for size in sizes]
    return [torch.from_numpy(walk).float() for walk in walks]


def _disentangler(folder: Path, steps: int, device: str, swapped: bool) -> None:
    landmarks = torch.from_numpy(speaker(60).attributes.landmarks)
    recipe = DisentanglementRecipe(steps, batch=32, swapped=swapped)
    train_disentangler(landmarks, recipe, folder / "disentangle.safetensors", 0, device)


def _sync(folder: Path, steps: int, device: str, loss: str) -> None:
    codes, sounds = [*_codes(60, DIM_M)], [torch.from_numpy(mfcc(speaker(60).audio, 60))]
    recipe = SyncRecipe(steps, batch=4, window=25, loss=loss)
    train_sync(codes, sounds, recipe, folder / "sync.safetensors", 0, device)


def _expert(folder: Path, steps: int, device: str) -> None:
    mouths = [m.view(60, 48, 64).sigmoid() for m in _codes(60, 48 * 64)]
    sounds = [torch.from_numpy(mfcc(speaker(60).audio, 60))]
    recipe = ExpertRecipe(steps, batch=2)
    train_expert(mouths, sounds, recipe, folder / "expert.safetensors", 0, device)


def _vae(folder: Path, steps: int, device: str, variant: str) -> None:
    recipe = VAERecipe(steps, batch=4, variant=variant)
    train_vae(_codes(300, 6 + DIM_E), recipe, folder / "vae.safetensors", 0, device)


def _cme(folder: Path, steps: int, device: str, variant: str) -> None:
    torch.manual_seed(0)
    vae = AttributeVAE(*VARIANTS[variant])
    x, f_a = _codes(300, 6 + DIM_E, DIM_A)
    recipe = CrossModalRecipe(steps, batch=4)
    train_cme(vae, [x], [f_a], recipe, folder / "cme.safetensors", 0, device=device)


def _field(folder: Path, steps: int, device: str, kind: str, corrected: bool = False) -> Field:
    person = speaker(30, 16 if kind == "paper" else 64)  # 256 rays a step, not 2,048
    h, f_a = torch.from_numpy(person.attributes.h), _codes(30, DIM_A)[0]
    cond = conditions(h, f_a, torch.zeros(30, DIM_E))
    recipe = FieldRecipe(steps, kind=kind, corrected=corrected)
    path, points = folder / "field.safetensors", person.attributes.points
    return train_field(person.frames, points, cond, recipe, path, 0, device)[0]


def _recogniser(folder: Path, steps: int, device: str) -> None:
    sounds = [torch.from_numpy(mfcc(speaker(T).audio, T)) for T in (30, 45)]
    recipe = RecogniserRecipe(steps, batch=4)
    path = folder / "recogniser.safetensors"
    train_recogniser(sounds, ["one word", "and another"], recipe, path, 0, device)


def _rival(folder: Path, steps: int, device: str, name: str) -> Method:
    torch.manual_seed(0)
    needs = {"recogniser": SpeechRecogniser()} if name == "AD-NeRF" else {}
    method = methods()[name](folder, steps / 1000, device=device, **needs)
    method.fit([speaker(60, 64, 1)], speaker(90, 64))
    return method


def trainings() -> dict[str, Training]:
    """Every training of the package in miniature, by name: on made-up data, in seconds."""
    found: dict[str, Training] = {
        "F_d": partial(_disentangler, swapped=True),
        "F_d without swaps": partial(_disentangler, swapped=False),
    }
    found |= {f"E_a, {k}": partial(_sync, loss=k) for k in ("paper", "hard", "sigmoid", "infonce")}
    found |= {"Sync expert": _expert}
    found |= {name: partial(_vae, variant=name) for name in VARIANTS}
    found |= {f"cross-modal encoder, {v}": partial(_cme, variant=v) for v in VARIANTS}
    found |= {f"{kind} field": partial(_field, kind=kind) for kind in FIELDS}
    found |= {f"{k} field, corrected": partial(_field, kind=k, corrected=True) for k in FIELDS}
    found |= {"recogniser": _recogniser}
    return found | {name: partial(_rival, name=name) for name in methods() if name != "DFA-NeRF"}
