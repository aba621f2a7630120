"""The one training loop. Every learned part of the method goes through `train`.

All randomness of step s comes from seeds made of (seed, s), and the optimiser's state is in the
checkpoint, so a run that was killed goes on and ends with the same bits as an unbroken one.

Processes that `torchrun` or `fabric run` started train together, each on its own device.
"""

from __future__ import annotations

import json
import logging
import math
import os
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from .media import InputError, atomic
from .recipe import Recipe, key

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


def metadata(path: str | Path) -> dict:
    """What `train` noted of a finished training: recipe, history, seed, seconds."""
    return _read(path)[1]


def seconds_spent(path: str | Path) -> float:
    """Wall-clock seconds that a finished training took; nan where it was not noted."""
    return float(metadata(path).get("seconds", "nan"))


def _write(tensors: dict[str, Tensor], path: str | Path, metadata: dict) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    tensors = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    with atomic(path) as tmp:
        save_file(tensors, tmp, metadata={"dfa": json.dumps(metadata, default=str)})


def _read(path: str | Path) -> tuple[dict[str, Tensor], dict]:
    with safe_open(path, framework="pt") as f:
        return {k: f.get_tensor(k) for k in f.keys()}, json.loads(f.metadata()["dfa"])


# --- one step -----------------------------------------------------------------------------------


def scheduled(rate: float, recipe: Recipe, step: int) -> float:
    """The learning rate of a step: a cosine from `rate` to 2 % of it, after a rise over
    `recipe.warmup` steps."""
    cosine = 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (step / recipe.steps)))
    return rate * cosine * min(1.0, (step + 1) / max(recipe.warmup, 1))


def make_optimiser(groups: list[dict], recipe: Recipe) -> torch.optim.Optimizer:
    """Adam over parameter groups, each with its own `lr`."""
    return torch.optim.AdamW(groups, weight_decay=recipe.weight_decay, eps=1e-10, fused=True)


def update(
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    rates: list[float],
    recipe: Recipe,
    step: int,
    loss: Tensor,
    average: Callable[[], None] = lambda: None,
) -> None:
    """Take one step down the gradient of `loss`. `average` is called once there are gradients."""
    for group, rate in zip(optimiser.param_groups, rates, strict=True):
        group["lr"] = scheduled(rate, recipe, step)
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    average()
    if recipe.clip:
        nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
    optimiser.step()


def random_windows(
    sequences: Sequence[Tensor], length: int, n: int, g: torch.Generator
) -> Iterator[tuple[int, int]]:
    """n random windows of `length` frames: which of the sequences (T, ...), and its first frame."""
    for _ in range(n):
        i = int(torch.randint(len(sequences), (), generator=g))
        first = int(torch.randint(max(len(sequences[i]) - length, 0) + 1, (), generator=g))
        yield i, first


# --- the loop -----------------------------------------------------------------------------------


@dataclass
class Progress:
    """How far a training is: what a checkpoint holds beside weights and optimiser."""

    step: int = 0  # steps taken
    history: list[dict[str, float]] = field(default_factory=list)
    sums: dict[str, float] = field(default_factory=dict)  # of what is logged, of this hundredth
    seconds: float = 0.0  # wall clock, before this process

    def log(self, logged: dict[str, float], steps: int) -> None:
        """Add a step's numbers; after each hundredth of all steps, their mean joins the history."""
        every = max(1, steps // 100)
        self.sums = {k: self.sums.get(k, 0.0) + v for k, v in logged.items()}
        n, self.step = self.step % every + 1, self.step + 1
        if n == every or self.step == steps:
            self.history.append({"step": self.step, **{k: v / n for k, v in self.sums.items()}})
            self.sums = {}

    def say(self, label: str, steps: int, began: float, start: int) -> None:
        """Print how far it is, how long it will take, and the numbers of the last hundredth."""
        left = (time.monotonic() - began) / (self.step - start) * (steps - self.step)
        last = self.history[-1] if self.history else {}
        numbers = " ".join(f"{k} {v:.4g}" for k, v in last.items() if k != "step")
        say(f"{label}: step {self.step}/{steps}, {left:.0f} s left, {numbers}")


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
    """Go on from a checkpoint of the same training, or begin where there is none."""
    tensors, meta = _read(path) if path.exists() else ({}, {})
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
    model: nn.Module,
    loss_fn: Callable[[torch.Generator], tuple[Tensor, dict[str, float]]],
    recipe: Recipe,
    *,
    path: str | Path,
    seed: int,
    data: str,
    groups: Iterable[dict] | None = None,
    uses: Sequence[nn.Module] = (),
    code: Sequence[object] = (),
    label: str = "",
    save_every: float = 20.0,
    precision: str | None = None,
) -> list[dict[str, float]]:
    """Train `model` in place for `recipe.steps` steps of Adam; resumable.

    It trains where its parameters lie. Several processes average their gradients, end with the same
    weights, and the first one writes and prints; `share` gives each its part of a batch.

    Args:
        model: holds every parameter that is trained, and the weights that it starts from.
        loss_fn: called with a seeded generator, returns the loss and its parts to be logged.
        recipe: all numbers of the training.
        path: the finished weights (`.safetensors`); `path.partial` is the checkpoint on the way.
            Weights at `path` that were trained under the same `recipe.key` are loaded.
        data: `digest` of what is learnt from.
        groups: parameter groups `{"params": ..., "lr": ...}`; by default all at `recipe.lr`.
        uses, code: what else decides the weights, see `recipe.key`.
        save_every: seconds between checkpoints; it has no influence on the result.
        precision: one of `PRECISIONS`, in which `loss_fn` computes; weights stay float32. None is
            bf16-mixed on CUDA, else 32-true. Like the device and the number of processes it is not
            part of a training's identity: what a GPU learnt is loaded on a CPU.

    Returns the history: one dict of logged parts for every 1 % of the steps, the mean over these
    steps and all processes. Raises FloatingPointError where the loss is not finite.
    """
    path, partial, steps = Path(path), Path(f"{path}.partial"), recipe.steps
    rank, world = rank_and_world()
    groups = list(groups or [{"params": model.parameters(), "lr": recipe.lr}])
    groups = [{**group, "params": list(group["params"])} for group in groups]
    decides = (make_optimiser, update, *code)
    identity = key(model, loss_fn, recipe, seed, data, groups, tuple(uses), decides)
    if path.exists():
        tensors, meta = _read(path)
        if meta.get("key") == identity:
            model.load_state_dict(tensors)
            model.eval()
            torch.set_rng_state(torch.frombuffer(bytearray.fromhex(meta["rng"]), dtype=torch.uint8))
            say(f"{label}: {steps} steps already trained, loaded")
            return meta["history"]
    parameters = [p for p in model.parameters() if p.requires_grad]
    fabric = _fabric(parameters[0].device, precision)
    rates = [group["lr"] for group in groups]
    optimiser = make_optimiser(groups, recipe)
    progress = _load_checkpoint(partial, identity, model, optimiser)
    if start := progress.step:
        say(f"{label}: going on from step {start}")
    if world > 1:
        _as_rank_0(model)
    model.train()
    generator = torch.Generator()
    began = saved = shown = time.monotonic()
    for step in range(start, steps):
        generator.manual_seed(seed * 1_000_003 + step)
        # Dropout draws from the global generator, in each process its own.
        torch.manual_seed(seed * 1_000_003 + step + (rank << 40))
        with fabric.autocast():
            loss, parts = loss_fn(generator)
        logged = {"loss": loss.item(), **parts}

        def average(logged: dict[str, float] = logged) -> None:
            if world > 1:
                logged.update(_average(fabric, logged, parameters))

        update(model, optimiser, rates, recipe, step, loss, average)
        if not math.isfinite(logged["loss"]):
            raise FloatingPointError(f"{label}: the loss is not finite at step {step}")
        progress.log(logged, steps)
        now = time.monotonic()
        if now - shown > 5 or step + 1 == steps:
            shown = now
            progress.say(label, steps, began, start)
        if rank == 0 and now - saved > save_every and step + 1 < steps:
            saved = now
            sofar = replace(progress, seconds=progress.seconds + now - began)
            _save_checkpoint(partial, identity, model, optimiser, sofar)
    model.eval()
    if world > 1:
        _as_rank_0(model)  # statistics of batch normalisation are each process's own
    if rank == 0:
        seconds = round(progress.seconds + time.monotonic() - began, 1)
        # What draws after a training draws the same where it is loaded.
        rng = torch.get_rng_state().numpy().tobytes().hex()
        about = dict(history=progress.history, steps=steps, seed=seed, seconds=seconds, rng=rng)
        save(model, path, key=identity, recipe=asdict(recipe), **about)
        partial.unlink(missing_ok=True)
    fabric.barrier()  # nobody goes on before the file is there
    return progress.history
