"""The one training loop. Every learned part of the method goes through `train`.

All randomness of step s comes from seeds made of (seed, s), and the optimiser's state is in the
checkpoint, so a run that was killed goes on and ends with the same bits as an unbroken one.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import math
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from .media import InputError, atomic


def pick_device(device: str = "auto") -> torch.device:
    """`auto` is CUDA where there is one, else the CPU."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(device)


def digest(*things: object) -> str:
    """SHA-256 over arrays, tensors and JSON-able settings: the identity of a training's inputs."""
    sha = hashlib.sha256()
    for thing in things:
        if isinstance(thing, Tensor):
            thing = thing.detach().cpu().numpy()
        if isinstance(thing, np.ndarray):
            sha.update(f"{thing.shape}{thing.dtype}".encode())
            sha.update(np.ascontiguousarray(thing).tobytes())
        else:
            sha.update(json.dumps(thing, sort_keys=True, default=str).encode())
    return sha.hexdigest()


def save(model: nn.Module, path: str | Path, **metadata: object) -> None:
    """Write a model's weights and JSON metadata as one safetensors file, whole or not at all."""
    _write({k: v for k, v in model.state_dict().items()}, path, metadata)


def load(model: nn.Module, path: str | Path) -> dict:
    """Load weights saved by `save` into `model`, set it to eval, and return the metadata.

    Raises InputError where the file is missing, damaged, or of another version's model.
    """
    try:
        tensors, metadata = _read(path)
        model.load_state_dict(tensors)
    except (OSError, SafetensorError, RuntimeError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} holds no {type(model).__name__} of this version: make it again with"
            " `dfa fit`, or `make figures`"
        ) from error
    model.eval()
    return metadata


def _write(tensors: dict[str, Tensor], path: str | Path, metadata: dict) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    tensors = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    with atomic(path) as tmp:
        save_file(tensors, tmp, metadata={"dfa": json.dumps(metadata, default=str)})


def _read(path: str | Path) -> tuple[dict[str, Tensor], dict]:
    with safe_open(path, framework="pt") as f:
        return {k: f.get_tensor(k) for k in f.keys()}, json.loads(f.metadata()["dfa"])


def train(
    model: nn.Module,
    loss_fn: Callable[[torch.Generator], tuple[Tensor, dict[str, float]]],
    *,
    path: str | Path,
    steps: int,
    lr: float | Iterable[dict],
    seed: int,
    inputs: str,
    label: str = "",
    weight_decay: float = 0.0,
    warmup: int = 50,
    clip: float | None = 1.0,
    save_every: float = 20.0,
) -> list[dict[str, float]]:
    """Train `model` in place for `steps` steps of Adam with a cosine schedule; resumable.

    Args:
        loss_fn: called with a seeded generator, returns the loss and its parts to be logged.
        path: the finished weights (`.safetensors`); `path.partial` is the checkpoint on the way.
        lr: a learning rate, or parameter groups `{"params": ..., "lr": ...}`.
        inputs: `digest` of the data and settings. Weights at `path` with the same inputs, the same
            step count and the same source of the model are loaded instead of trained again.
        save_every: seconds between checkpoints; it has no influence on the result.

    Returns the history: one dict of logged parts for every 1 % of the steps.
    """
    path, partial = Path(path), Path(f"{path}.partial")
    source = Path(inspect.getsourcefile(type(model))).read_text()
    key = digest(inputs, steps, seed, source, [type(model).__name__, weight_decay, warmup])
    if path.exists():
        tensors, meta = _read(path)
        if meta.get("key") == key:
            model.load_state_dict(tensors)
            model.eval()
            print(f"{label}: {steps} steps already trained, loaded", flush=True)
            return meta["history"]
    groups = [{"params": list(model.parameters()), "lr": lr}] if isinstance(lr, float) else list(lr)
    rates = [g["lr"] for g in groups]
    optimiser = torch.optim.AdamW(groups, weight_decay=weight_decay, eps=1e-10, fused=True)
    start, history = 0, []
    if partial.exists():
        tensors, meta = _read(partial)
        if meta["key"] == key:
            start, history = meta["step"], meta["history"]
            model.load_state_dict({k[2:]: v for k, v in tensors.items() if k.startswith("m.")})
            state = optimiser.state_dict()
            for name, value in tensors.items():
                if name.startswith("o."):
                    _, index, slot = name.split(".")
                    state["state"].setdefault(int(index), {})[slot] = value
            optimiser.load_state_dict(state)
            print(f"{label}: going on from step {start}", flush=True)
    model.train()
    generator = torch.Generator()
    every = max(1, steps // 100)
    began = saved = shown = time.monotonic()
    for step in range(start, steps):
        generator.manual_seed(seed * 1_000_003 + step)
        torch.manual_seed(seed * 1_000_003 + step)  # dropout draws from the global generator
        fraction = step / steps
        for group, rate in zip(optimiser.param_groups, rates, strict=True):
            cosine = 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * fraction))
            group["lr"] = rate * cosine * min(1.0, (step + 1) / max(warmup, 1))
        loss, parts = loss_fn(generator)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        if clip:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimiser.step()
        if not torch.isfinite(loss):
            raise FloatingPointError(f"{label}: the loss is not finite at step {step}")
        if (step + 1) % every == 0 or step + 1 == steps:
            history.append({"step": step + 1, "loss": loss.item(), **parts})
        now = time.monotonic()
        if now - shown > 5 or step + 1 == steps:
            shown = now
            left = (now - began) / (step + 1 - start) * (steps - step - 1)
            logged = (
                " ".join(f"{k} {v:.4g}" for k, v in history[-1].items() if k != "step")
                if history
                else ""
            )
            print(f"{label}: step {step + 1}/{steps}, {left:.0f} s left, {logged}", flush=True)
        if now - saved > save_every and step + 1 < steps:
            saved = now
            slots = optimiser.state_dict()["state"]
            tensors = {f"m.{k}": v for k, v in model.state_dict().items()}
            tensors |= {
                f"o.{i}.{k}": torch.as_tensor(v) for i, s in slots.items() for k, v in s.items()
            }
            _write(tensors, partial, {"key": key, "step": step + 1, "history": history})
    model.eval()
    save(model, path, key=key, history=history, steps=steps, seed=seed)
    partial.unlink(missing_ok=True)
    return history
