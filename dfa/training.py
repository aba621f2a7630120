"""The one training loop. Every learned part of the method goes through `train`.

All randomness of step s comes from seeds made of (seed, s), and the optimiser's state is in the
checkpoint, so a run that was killed goes on and ends with the same bits as an unbroken one.

Processes that `torchrun` or `fabric run` started train together, each on its own device.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import logging
import math
import os
import time
import warnings
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from .media import InputError, atomic

if TYPE_CHECKING:
    from lightning_fabric import Fabric

PRECISIONS = ("32-true", "bf16-mixed")  # float16 would need its loss scale in the checkpoint


def pick_device(device: str = "auto") -> torch.device:
    """`auto` is CUDA where there is one, else the CPU; `cuda` is this process's own GPU."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and "LOCAL_RANK" in os.environ:
        device = f"cuda:{os.environ['LOCAL_RANK']}"
    return torch.device(device)


def share(i: Tensor) -> Tensor:
    """This process's part (n / world, ...) of a batch (n, ...) that all processes drew alike.

    The whole when alone. As the parts are equally large, the mean of the processes' gradients is
    the gradient of a loss that is a mean over the whole batch:

        i = share(torch.randint(len(data), (n,), generator=g))

    What is drawn from `g` after it is the same in each process, not one process's draw cut up.
    Raises InputError where the batch does not divide.
    """
    rank, world = rank_and_world()
    if len(i) % world:
        raise InputError(
            f"a batch of {len(i)} cannot be shared by {world} processes: start a number that"
            f" divides {len(i)}"
        )
    return i[rank::world]


def rank_and_world() -> tuple[int, int]:
    """Which process this is, and of how many; (0, 1) when alone."""
    if "LOCAL_RANK" not in os.environ:
        return 0, 1
    return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])


def say(*words: object, file: TextIO | None = None) -> None:
    """`print`, at once, where this process is the first or alone: what all do is said once."""
    if rank_and_world()[0] == 0:
        print(*words, file=file, flush=True)


def _fabric(device: torch.device, precision: str | None) -> Fabric:
    """Lightning Fabric for a model on `device`, connected with the other processes, if any."""
    # What `fabric run` was told has started these processes. Fabric would hold it against a model
    # that lies elsewhere, on the CPU say, so it does not see it; only the precision counts.
    told = {k: os.environ.pop(k) for k in [*os.environ] if k.startswith("LT_")}
    try:
        default = "bf16-mixed" if device.type == "cuda" else "32-true"
        precision = precision or told.get("LT_PRECISION", default)
        if precision not in PRECISIONS:
            raise InputError(f"precision {precision!r}: choose one of {', '.join(PRECISIONS)}")
        with warnings.catch_warnings(action="ignore"):
            from lightning_fabric import Fabric  # half a second that loading a finished one saves
            from lightning_fabric.strategies import DDPStrategy

            logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
            world = rank_and_world()[1]
            if world == 1:
                devices = [device.index or 0] if device.type == "cuda" else 1
                layout = {"devices": devices}
            else:
                here = int(os.environ.get("LOCAL_WORLD_SIZE", world))
                # Both, for one process may train one model on the CPU and the next on its GPU.
                backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
                strategy = DDPStrategy(process_group_backend=backend)
                layout = {"devices": here, "num_nodes": world // here, "strategy": strategy}
            fabric = Fabric(accelerator=device.type, precision=precision, **layout)
            fabric.launch()
    finally:
        os.environ.update(told)
    return fabric


def _average(
    fabric: Fabric, logged: dict[str, float], parameters: list[nn.Parameter]
) -> dict[str, float]:
    """Give every process the mean of all gradients, in one message; returns the means of what is
    logged, which goes along: where the loss is not finite, all processes stop.

    A parameter without a gradient here counts as nought, for it may have one elsewhere.
    """
    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    numbers = grads[0].new_tensor([*logged.values()])
    flat = torch.cat([numbers, *(g.flatten() for g in grads)])
    # Not "mean": where gloo and nccl stand side by side, Fabric asks gloo for one, and it has none.
    mean = fabric.all_reduce(flat, reduce_op="sum") / fabric.world_size
    numbers, *means = mean.split([len(logged), *(p.numel() for p in parameters)])
    for p, grad in zip(parameters, means, strict=True):
        p.grad = grad.view_as(p).to(p.dtype)
    return dict(zip(logged, numbers.tolist(), strict=True))


@contextmanager
def one_first(device: torch.device):
    """What is done inside, one process does first; the others follow, and find its files."""
    if rank_and_world()[1] == 1:
        yield
        return
    with _fabric(device, None).rank_zero_first():
        yield


def _as_rank_0(model: nn.Module) -> None:
    """Overwrite every process's weights and buffers with the first one's."""
    for tensor in model.state_dict().values():
        torch.distributed.broadcast(tensor, 0)


def _source(model: nn.Module) -> str:
    """The files that define a model's class, and of ours its bases and its parts, each once."""
    kinds = [k for m in model.modules() for k in type(m).__mro__]
    ours = [k for k in kinds if k.__module__.partition(".")[0] == __package__]
    files = dict.fromkeys(map(inspect.getsourcefile, [type(model), *ours]))
    return "".join(Path(file).read_text() for file in files)


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


def seconds_spent(path: str | Path) -> float:
    """Wall-clock seconds that the training of a finished file took; nan where it was not noted."""
    return float(_read(path)[1].get("seconds", "nan"))


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
    precision: str | None = None,
) -> list[dict[str, float]]:
    """Train `model` in place for `steps` steps of Adam with a cosine schedule; resumable.

    It trains where its parameters lie. Several processes average their gradients, end with the same
    weights, and the first one writes and prints; `share` gives each its part of a batch.

    Args:
        model: holds every parameter that is trained.
        loss_fn: called with a seeded generator, returns the loss and its parts to be logged.
        path: the finished weights (`.safetensors`); `path.partial` is the checkpoint on the way.
        lr: a learning rate, or parameter groups `{"params": ..., "lr": ...}`.
        inputs: `digest` of the data and settings. Weights at `path` with the same inputs, the same
            step count and the same source of the model are loaded instead of trained again.
        save_every: seconds between checkpoints; it has no influence on the result.
        precision: one of `PRECISIONS`, in which `loss_fn` computes; weights stay float32. None is
            bf16-mixed on CUDA, else 32-true. Like the device and the number of processes it is not
            part of a training's identity: what a GPU learnt is loaded on a CPU.

    Returns the history: one dict of logged parts for every 1 % of the steps, the mean over these
    steps and all processes.
    """
    path, partial = Path(path), Path(f"{path}.partial")
    rank, world = rank_and_world()
    key = digest(inputs, steps, seed, _source(model), [type(model).__name__, weight_decay, warmup])
    if path.exists():
        tensors, meta = _read(path)
        if meta.get("key") == key:
            model.load_state_dict(tensors)
            model.eval()
            say(f"{label}: {steps} steps already trained, loaded")
            return meta["history"]
    parameters = [p for p in model.parameters() if p.requires_grad]
    fabric = _fabric(parameters[0].device, precision)
    groups = [{"params": list(model.parameters()), "lr": lr}] if isinstance(lr, float) else list(lr)
    rates = [g["lr"] for g in groups]
    optimiser = torch.optim.AdamW(groups, weight_decay=weight_decay, eps=1e-10, fused=True)
    start, history, spent, sums = 0, [], 0.0, {}
    if partial.exists():
        tensors, meta = _read(partial)
        if meta["key"] == key:
            start, history, spent = meta["step"], meta["history"], meta["seconds"]
            sums = meta["sums"]
            model.load_state_dict({k[2:]: v for k, v in tensors.items() if k.startswith("m.")})
            state = optimiser.state_dict()
            for name, value in tensors.items():
                if name.startswith("o."):
                    _, index, slot = name.split(".")
                    state["state"].setdefault(int(index), {})[slot] = value
            optimiser.load_state_dict(state)
            say(f"{label}: going on from step {start}")
    if world > 1:
        _as_rank_0(model)
    model.train()
    generator = torch.Generator()
    every = max(1, steps // 100)
    began = saved = shown = time.monotonic()
    for step in range(start, steps):
        generator.manual_seed(seed * 1_000_003 + step)
        # Dropout draws from the global generator, in each process its own.
        torch.manual_seed(seed * 1_000_003 + step + (rank << 40))
        fraction = step / steps
        for group, rate in zip(optimiser.param_groups, rates, strict=True):
            cosine = 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * fraction))
            group["lr"] = rate * cosine * min(1.0, (step + 1) / max(warmup, 1))
        with fabric.autocast():
            loss, parts = loss_fn(generator)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        logged = {"loss": loss.item(), **parts}
        if world > 1:
            logged = _average(fabric, logged, parameters)
        if clip:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimiser.step()
        if not math.isfinite(logged["loss"]):
            raise FloatingPointError(f"{label}: the loss is not finite at step {step}")
        sums = {k: sums.get(k, 0.0) + v for k, v in logged.items()}
        if (step + 1) % every == 0 or step + 1 == steps:
            n = step % every + 1
            history.append({"step": step + 1, **{k: v / n for k, v in sums.items()}})
            sums = {}
        now = time.monotonic()
        if now - shown > 5 or step + 1 == steps:
            shown = now
            left = (now - began) / (step + 1 - start) * (steps - step - 1)
            logged = (
                " ".join(f"{k} {v:.4g}" for k, v in history[-1].items() if k != "step")
                if history
                else ""
            )
            say(f"{label}: step {step + 1}/{steps}, {left:.0f} s left, {logged}")
        if rank == 0 and now - saved > save_every and step + 1 < steps:
            saved = now
            slots = optimiser.state_dict()["state"]
            tensors = {f"m.{k}": v for k, v in model.state_dict().items()}
            tensors |= {
                f"o.{i}.{k}": torch.as_tensor(v) for i, s in slots.items() for k, v in s.items()
            }
            seconds = spent + now - began
            meta = dict(key=key, step=step + 1, history=history, sums=sums, seconds=seconds)
            _write(tensors, partial, meta)
    model.eval()
    if world > 1:
        _as_rank_0(model)  # statistics of batch normalisation are each process's own
    if rank == 0:
        seconds = round(spent + time.monotonic() - began, 1)
        save(model, path, key=key, history=history, steps=steps, seed=seed, seconds=seconds)
        partial.unlink(missing_ok=True)
    fabric.barrier()  # nobody goes on before the file is there
    return history
