"""The proof on a GPU: `dfa bench --gpu`.

A machine with a GPU is at hand seldom and for minutes. So the whole takes eight, what each step
found is written at once, and a second run continues with what the first did not reach.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .. import __version__, captures
from ..evaluation import bench
from ..media import atomic, frames_of, write_text
from ..method.field import conditions
from ..method.field_training import FIELDS
from ..method.talking_head import Corpus
from ..profiles import profile
from ..report.machine import device_name
from ..training import PRECISIONS, metadata, pick_device
from .trainings import Training, trainings, without_dropout

DATA = Path(__file__).parents[1] / "data" / "bench_subject.npz"  # subject_a, tracked and encoded
AGREE = 0.02  # largest relative difference of a loss, CPU and GPU, within 20 steps of float32
PRETEND = "DFA_BENCH_PRETEND"  # environment: "cpu" runs all steps there, in miniature, as a test


@dataclass(frozen=True)
class Plan:
    """How long each step takes: `steps` of a training, `seconds` of the fields', frame `sizes`."""

    device: str
    steps: tuple[int, int] = (20, 60)  # of `agreement`, of `precision`
    seconds: tuple[float, float] = (180.0, 60.0)  # of the paper's field, of ours
    sizes: tuple[int, int] = (128, 512)  # of their frames
    frames: int | None = None  # of the capture; None: all
    names: tuple[str, ...] | None = None  # of the trainings; None: all


MINIATURE = Plan("cpu", (2, 2), (0.5, 0.5), (16, 64), 120, ("F_d", "E_a, paper"))


def ship(runs: str | Path) -> None:
    """Write what the fields of the proof learn from, as a quick run tracked and encoded it.

    A bare machine with a GPU may lack the tracker. Points and f_a are in half precision.
    """
    whole = captures.recording("subject_a", runs, 128)
    codes, half = Corpus.load(runs).codes(whole), np.float16
    with atomic(DATA) as part:
        np.savez_compressed(
            part, x=codes.x.numpy(), f_a=codes.f_a.numpy().astype(half),
            points=whole.attributes.points.astype(half), crop=whole.attributes.crop,
            n=len(whole.training),
        )  # fmt: skip


def prepare(size: int, frames: int | None, path: Path) -> None:
    """Write the .npz of `evaluation.bench.measure` from the shipped data; frames of `size`."""
    with np.load(DATA) as data:
        x, f_a, points, crop, n = (data[name] for name in ("x", "f_a", "points", "crop", "n"))
    T = len(x) if frames is None else frames
    x, f_a = torch.from_numpy(x[:T]), torch.from_numpy(f_a[:T].astype(np.float32))
    cond = conditions(x[:, :6], f_a, x[:, 6:])
    pictures = frames_of(captures.path("subject_a"), crop, size, T)
    points, n = points[:T].astype(np.float32), min(int(n), T - 10)
    np.savez(path, frames=pictures, points=points, cond=cond.numpy(), n=n)


def _losses(training: Training, steps: int, device: str, precision: str) -> dict[str, list[float]]:
    """The history of the loss of each network of a training, by the name of its file."""
    with tempfile.TemporaryDirectory() as folder, without_dropout():
        os.environ["LT_PRECISION"] = precision
        training(Path(folder), steps, device)
        files = sorted(Path(folder).glob("*.safetensors"))
        return {f.stem: [e["loss"] for e in metadata(f)["history"]] for f in files}


def agreement(plan: Plan, folder: Path) -> dict[str, Any]:
    """Do CPU and GPU learn the same? Each training in float32, from the same numbers."""
    torch.backends.cudnn.allow_tf32 = False
    found = {}
    for name, learn in trainings().items():
        if plan.names is None or name in plan.names:
            both = [_losses(learn, plan.steps[0], d, "32-true") for d in ("cpu", plan.device)]
            pairs = [np.array([both[0][k], both[1][k]]) for k in both[0]]
            found[name] = max(float((np.ptp(p, 0) / np.abs(p).max(0)).max()) for p in pairs)
    return dict(tolerance=AGREE, difference=found, agrees=max(found.values()) <= AGREE)


def precision(plan: Plan, folder: Path) -> dict[str, Any]:
    """Does mixed precision reach the loss of float32? Ratio of the means of the last tenth."""
    found = {}
    for name, learn in trainings().items():
        if plan.names is None or name in plan.names:
            full, mixed = (_losses(learn, plan.steps[1], plan.device, kind) for kind in PRECISIONS)
            last = max(1, plan.steps[1] // 10)
            ends = [(np.mean(mixed[k][-last:]), np.mean(full[k][-last:])) for k in full]
            found[name] = max((float(m / f) for m, f in ends), key=lambda r: abs(r - 1))
    return dict(mixed_to_full=found)


def field(plan: Plan, folder: Path, kind: str) -> dict[str, Any]:
    """Train a field for its seconds: PSNR against steps and seconds, frames/s, memory."""
    which = list(FIELDS)[::-1].index(kind)  # the paper's first
    size, data = plan.sizes[which], folder / f"{kind}.npz"
    prepare(size, plan.frames, data)
    curve = folder / f"{kind}.jsonl"  # what a run that is cut off leaves
    curve.unlink(missing_ok=True)

    def told(point: list[float]) -> None:
        with open(curve, "a", encoding="utf-8") as file:
            print(json.dumps(point), file=file)

    sizes = sorted({128, 256, size}) if kind == "fast" else [128]
    if plan == MINIATURE:
        sizes = [32]
    p, peak = replace(profile("quick"), size=size), bench.peak_flops(plan.device)
    arguments = kind, data, p, plan.seconds[which], plan.device, peak
    weights = folder / f"{kind}_field.safetensors"
    return dict(size=size, peak_gflops=peak / 1e9) | bench.measure(*arguments, sizes, weights, told)


def together(plan: Plan, folder: Path) -> dict[str, Any]:
    """Two processes train one field, on one GPU if there is no second."""
    torchrun = ["torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    arguments = plan.device, str(folder / "together"), str(plan.steps[0])
    done = subprocess.run(
        [sys.executable, "-m", *torchrun, "-m", "dfa.gpu.proof", *arguments],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if "Error" in line]
        return dict(skipped=f"two processes: {(errors or ['failed'])[0].strip()[:200]}")
    alone = _losses(trainings()["fast field"], plan.steps[0], plan.device, PRECISIONS[0])
    joint = metadata(folder / "together" / "field.safetensors")["history"][-1]["loss"]
    return dict(loss=joint, loss_alone=alone["field"][-1], gpus=torch.cuda.device_count())


STEPS: dict[str, tuple[float, Callable[[Plan, Path], dict[str, Any]]]] = {  # seconds, what
    "paper_field": (220.0, partial(field, kind="paper")),
    "our_field": (90.0, partial(field, kind="fast")),
    "agreement": (80.0, agreement),
    "precision": (60.0, precision),
    "two_processes": (30.0, together),
}


def prove(out: Path, minutes: float = 8.0) -> dict[str, Any]:
    """Run the steps that `out`, a .json, does not have yet, and write each into it.

    Weights and curves are in the folder of its name. Raises InputError if there is no GPU.
    """
    miniature = os.environ.get(PRETEND) == "cpu"
    plan = MINIATURE if miniature else Plan(str(pick_device("cuda")))
    began, folder = time.monotonic(), out.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    about = dict(device=device_name(plan.device), dfa=__version__, torch=torch.__version__,
                 data=captures.SAMPLES, miniature=miniature)  # fmt: skip
    before = json.loads(out.read_text("utf-8")) if out.exists() else {}
    same = all(before.get(k) == v for k, v in about.items())
    found = about | dict(steps=before["steps"] if same else {})
    for name, (seconds, step) in STEPS.items():
        if "seconds" in found["steps"].get(name, {}):
            print(f"{name}: measured already", file=sys.stderr)
            continue
        start = time.monotonic()
        if not miniature and start - began + seconds > 60 * minutes:
            found["steps"][name] = dict(skipped="no time was left: run the command again")
        else:
            print(f"{name}, about {seconds:.0f} s", file=sys.stderr, flush=True)
            try:
                result = bench.in_own_process(torch.get_num_threads(), step, plan, folder)
                found["steps"][name] = result | dict(seconds=time.monotonic() - start)
            except Exception as error:  # any: the other steps are still worth their time
                traceback.print_exc()
                found["steps"][name] = dict(failed=f"{type(error).__name__}: {error}"[:300])
        write_text(out, json.dumps(found, indent=1) + "\n")
    return found


if __name__ == "__main__":  # a process of `together`
    where, to, steps = sys.argv[1:]
    Path(to).mkdir(exist_ok=True)
    os.environ["LT_PRECISION"] = PRECISIONS[0]
    with without_dropout():
        trainings()["fast field"](Path(to), int(steps), where.partition(":")[0])
