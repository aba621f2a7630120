"""The training loop. All networks of the method are trained by `train`.

The random numbers of a step depend only on the seed and the number of the step, and a checkpoint
holds the state of the optimiser. So a stopped run that continues ends with the same bits.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from .media import InputError, atomic, packaged
from .processes import connected, copy_from_first, mean_over_processes, rank_and_world, say
from .recipe import Recipe, key

WEIGHTS = Path(__file__).parent / "data" / "weights"  # of the package: by `dfa weights`
PRECISIONS = ("32-true", "bf16-mixed")  # not float16, which needs a loss scale


def pick_device(device: str = "auto") -> torch.device:
    """Device by name. "auto": CUDA if available, else CPU. "cuda": the GPU of this process.

    If there are more processes than GPUs, they share them. Raises InputError if there is no such
    device.
    """
    n = torch.cuda.device_count() if torch.cuda.is_available() else 0
    try:
        found = torch.device(("cuda" if n else "cpu") if device == "auto" else device)
    except RuntimeError as error:
        raise InputError(f"there is no device {device!r}: choose auto, cpu or cuda") from error
    if found.type != "cuda":
        try:
            torch.zeros(1, device=found).item()
        except (RuntimeError, AssertionError) as error:
            raise InputError(f"no use of {device!r} here: choose auto, cpu or cuda") from error
        return found
    if not n:
        raise InputError("there is no CUDA device: choose --device cpu")
    index = int(os.environ.get("LOCAL_RANK", 0)) % n if found.index is None else found.index
    if index >= n:
        raise InputError(f"there is no {device}: this machine has {n} CUDA devices, from cuda:0")
    return torch.device("cuda", index)


def _autocast(device: torch.device, precision: str | None) -> torch.autocast:
    """The context of a forward pass; `precision` as of `train`."""
    default = "bf16-mixed" if device.type == "cuda" else "32-true"
    precision = precision or os.environ.get("LT_PRECISION", default)
    if precision not in PRECISIONS:
        raise InputError(f"precision {precision!r}: choose one of {', '.join(PRECISIONS)}")
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16-mixed")


def save(model: nn.Module, path: str | Path, **metadata: object) -> None:
    """Write weights and JSON metadata to a safetensors file. InputError if it cannot be written."""
    _write({k: v for k, v in model.state_dict().items()}, path, metadata)


def load(model: nn.Module, path: str | Path) -> dict:
    """Load weights of `save` into `model`, set it to eval mode, and return the metadata.

    Raises InputError if the file is missing, damaged, or of another version of the model.
    """
    if own := Path(path).parent == WEIGHTS:
        packaged(Path(path))
    try:
        tensors, metadata = _read(path)
        if not all(t.isfinite().all() for t in tensors.values()):
            raise ValueError("weights that are not numbers")
        model.load_state_dict(tensors)
    except (OSError, SafetensorError, RuntimeError, KeyError, TypeError, ValueError) as error:
        how = "`make weights`" if own else "`dfa fit`, or `make figures`"
        what = f"{path} holds no {type(model).__name__} of this version"
        raise InputError(f"{what}: make it again with {how}") from error
    model.eval()
    return metadata


def metadata(path: str | Path) -> dict:
    """Metadata of a finished training: recipe, history, seed, seconds and more."""
    with safe_open(path, framework="pt") as f:
        return json.loads(f.metadata()["dfa"])


def _write(tensors: dict[str, Tensor], path: str | Path, metadata: dict) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    tensors = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    with atomic(path) as tmp:
        save_file(tensors, tmp, metadata={"dfa": json.dumps(metadata, default=str)})


def _read(path: str | Path) -> tuple[dict[str, Tensor], dict]:
    with safe_open(path, framework="pt") as f:
        return {k: f.get_tensor(k) for k in f.keys()}, metadata(path)


def _found(path: Path) -> tuple[dict[str, Tensor], dict]:
    """`_read`, or nothing if the file is missing or damaged."""
    try:
        return _read(path)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        return {}, {}


def scheduled(rate: float, recipe: Recipe, step: int) -> float:
    """Learning rate of a step: cosine from `rate` to 2 % of it, linear rise in the warm-up."""
    cosine = 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (step / recipe.steps)))
    return rate * cosine * min(1.0, (step + 1) / max(recipe.warmup, 1))


def make_optimiser(groups: list[dict], recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW (Loshchilov & Hutter 2019) for parameter groups, each with its own `lr`."""
    return torch.optim.AdamW(groups, weight_decay=recipe.weight_decay, eps=1e-10, fused=True)


def begin_step(model: nn.Module, g: torch.Generator, seed: int, step: int, rank: int) -> None:
    """Training mode, and the random numbers of a step."""
    model.train()
    g.manual_seed(seed * 1_000_003 + step)
    # Dropout uses the global generator, with another seed in each process.
    torch.manual_seed(seed * 1_000_003 + step + (rank << 40))


def update(
    model: nn.Module, optimiser: torch.optim.Optimizer, rates: list[float], recipe: Recipe,
    step: int, loss: Tensor, average: Callable[[], None] = lambda: None,
) -> None:  # fmt: skip
    """One step of the optimiser. `average` is called after the gradients are computed."""
    for group, rate in zip(optimiser.param_groups, rates, strict=True):
        group["lr"] = scheduled(rate, recipe, step)
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    average()
    if recipe.clip:
        nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
    optimiser.step()


def check_finite(loss: float, label: str, step: int) -> None:
    """Raise FloatingPointError if a loss is not a finite number."""
    if not math.isfinite(loss):
        raise FloatingPointError(f"{label}: the loss is not finite at step {step}")


def random_windows(
    sequences: Sequence[Tensor], length: int, n: int, g: torch.Generator
) -> Iterator[tuple[int, int]]:
    """Yield n random windows of `length` frames: number of the sequence (T, ...), first frame."""
    for _ in range(n):
        i = int(torch.randint(len(sequences), (), generator=g))
        first = int(torch.randint(max(len(sequences[i]) - length, 0) + 1, (), generator=g))
        yield i, first


@dataclass
class Progress:
    """Progress of a training, stored in a checkpoint with the weights and the optimiser."""

    step: int = 0  # finished steps
    history: list[dict[str, float]] = field(default_factory=list)
    sums: dict[str, float] = field(default_factory=dict)  # of logged values since the last entry
    seconds: float = 0.0  # wall clock, before this process

    def log(self, logged: dict[str, float], steps: int) -> None:
        """Add the values of a step. After each 1 % of all steps, add their mean to the history."""
        every = max(1, steps // 100)
        self.sums = {k: self.sums.get(k, 0.0) + v for k, v in logged.items()}
        n, self.step = self.step % every + 1, self.step + 1
        if n == every or self.step == steps:
            self.history.append({"step": self.step, **{k: v / n for k, v in self.sums.items()}})
            self.sums = {}

    def say(self, label: str, steps: int, began: float, start: int) -> None:
        """Print the step, the remaining time, and the last entry of the history."""
        remaining = (time.monotonic() - began) / (self.step - start) * (steps - self.step)
        last = self.history[-1] if self.history else {}
        numbers = " ".join(f"{k} {v:.4g}" for k, v in last.items() if k != "step")
        say(f"{label}: step {self.step}/{steps}, {remaining:.0f} s left, {numbers}")


def _save_checkpoint(
    path: Path, key: str, model: nn.Module, optimiser: torch.optim.Optimizer, progress: Progress
) -> None:
    slots = optimiser.state_dict()["state"]
    tensors = {f"m.{k}": v for k, v in model.state_dict().items()}
    tensors |= {f"o.{i}.{k}": torch.as_tensor(v) for i, s in slots.items() for k, v in s.items()}
    _write(tensors, path, {"key": key, **asdict(progress)})


def _load_checkpoint(
    path: Path, key: str, model: nn.Module, optimiser: torch.optim.Optimizer
) -> Progress:
    """Load a checkpoint with the same key into model and optimiser; without one, begin."""
    tensors, meta = _found(path)
    if meta.pop("key", None) != key:
        return Progress()
    model.load_state_dict({k[2:]: v for k, v in tensors.items() if k.startswith("m.")})
    state = optimiser.state_dict()
    for name, value in tensors.items():
        if name.startswith("o."):
            _, index, slot = name.split(".")
            state["state"].setdefault(int(index), {})[slot] = value
    optimiser.load_state_dict(state)
    return Progress(**meta)


def train(
    model: nn.Module, loss_fn: Callable[[torch.Generator], tuple[Tensor, dict[str, float]]],
    recipe: Recipe, *, path: str | Path, seed: int, data: str, groups: Iterable[dict] | None = None,
    uses: Sequence[nn.Module] = (), code: Sequence[object] = (), label: str = "",
    save_every: float = 20.0, precision: str | None = "32-true",
) -> list[dict[str, float]]:  # fmt: skip
    """Train `model` in place, on its device, for `recipe.steps` steps of AdamW. Resumable.

    With several processes, gradients are averaged, all end with the same weights, and the first one
    writes and prints. `processes.own_part` gives each process its part of a batch.

    Args:
        model: has all trained parameters, with their initial values.
        loss_fn: called with a seeded generator, returns the loss and a dict of values to log.
        recipe: settings of the training.
        path: of the finished weights (`.safetensors`). If this file has the same `recipe.key`, it
            is loaded instead of training. The checkpoint is `path.partial`.
        seed: of all random numbers.
        data: `digest` of the training data.
        groups: parameter groups `{"params": ..., "lr": ...}`; by default all at `recipe.lr`.
        uses, code: other networks and code that the weights depend on, see `recipe.key`.
        label: name of the training in messages.
        save_every: seconds between checkpoints; does not change the result.
        precision: one of `PRECISIONS`, for `loss_fn`; weights stay float32. None, for networks
            that bear it: that of `fabric run --precision`, or bf16-mixed on CUDA, else 32-true.
            Precision, device and number of processes are not part of the key: a CPU loads what a
            GPU trained.

    Returns the history: a list of dicts, one for each 1 % of the steps, with the mean of the logged
    values. Raises FloatingPointError if the loss is not finite, InputError if `path` cannot be
    written.
    """
    path, partial, steps = Path(path), Path(f"{path}.partial"), recipe.steps
    rank, world = rank_and_world()
    groups = list(groups or [{"params": model.parameters(), "lr": recipe.lr}])
    groups = [{**group, "params": list(group["params"])} for group in groups]
    functions = (make_optimiser, begin_step, update, *code)
    identity = key(model, loss_fn, recipe, seed, data, groups, tuple(uses), functions)
    tensors, meta = _found(path)
    if meta.get("key") == identity:
        model.load_state_dict(tensors)
        model.eval()
        torch.set_rng_state(torch.frombuffer(bytearray.fromhex(meta["rng"]), dtype=torch.uint8))
        say(f"{label}: {steps} steps already trained, loaded")
        return meta["history"]
    parameters = [p for p in model.parameters() if p.requires_grad]
    device = parameters[0].device
    fabric = connected(device) if world > 1 else None
    autocast = _autocast(device, precision)
    rates = [group["lr"] for group in groups]
    optimiser = make_optimiser(groups, recipe)
    progress = _load_checkpoint(partial, identity, model, optimiser)
    if start := progress.step:
        say(f"{label}: continuing from step {start}")
    if fabric:
        copy_from_first(model)
    generator = torch.Generator()
    began = saved = shown = time.monotonic()
    for step in range(start, steps):
        begin_step(model, generator, seed, step, rank)
        with autocast:
            loss, parts = loss_fn(generator)
        logged = {"loss": loss.item(), **parts}
        if not fabric:  # several processes stop together, by their mean
            check_finite(logged["loss"], label, step)

        def average(logged: dict[str, float] = logged) -> None:
            if fabric:
                logged.update(mean_over_processes(fabric, logged, parameters))

        update(model, optimiser, rates, recipe, step, loss, average)
        check_finite(logged["loss"], label, step)
        progress.log(logged, steps)
        now = time.monotonic()
        if now - shown > 5 or step + 1 == steps:
            shown = now
            progress.say(label, steps, began, start)
        if rank == 0 and now - saved > save_every and step + 1 < steps:
            saved = now
            current = replace(progress, seconds=progress.seconds + now - began)
            _save_checkpoint(partial, identity, model, optimiser, current)
    model.eval()
    if fabric:
        copy_from_first(model)  # batch normalisation has other statistics in each process
    if rank == 0:
        seconds = round(progress.seconds + time.monotonic() - began, 1)
        # Random numbers after a training are the same if it is loaded.
        rng = torch.get_rng_state().numpy().tobytes().hex()
        about = dict(history=progress.history, steps=steps, seed=seed, seconds=seconds, rng=rng)
        save(model, path, key=identity, recipe=asdict(recipe), **about)
        partial.unlink(missing_ok=True)
    if fabric:
        fabric.barrier()  # all wait for the file
    return progress.history
