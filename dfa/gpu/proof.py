"""The proof on a GPU: `dfa bench --gpu`.

Five steps in eight minutes, so that a short loan of a GPU is enough. What a step found is written
as it ends, and a second run continues with what the first did not reach.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from .. import __version__, captures
from ..evaluation import bench
from ..media import InputError, atomic, check_output, frames_of, write_text
from ..method.field import conditions
from ..method.talking_head import Corpus
from ..profiles import profile
from ..report.machine import device_name
from ..training import PRECISIONS, metadata, pick_device
from .trainings import Training, trainings, without_dropout

DATA = Path(__file__).parents[1] / "data" / "bench_subject.npz"  # subject_a, tracked and encoded
AGREE = 0.02  # largest difference of a loss, CPU and GPU, within 20 steps of float32, relative
MIXED = ("field", "AD-NeRF")  # in the names of trainings with mixed precision; others use float32
PRETEND = "DFA_BENCH_PRETEND"  # environment: "cpu" runs all steps there, in miniature, as a test


@dataclass(frozen=True)
class Plan:
    """Where, and how long each step takes."""

    device: str
    steps: tuple[int, int] = (20, 60)  # of each training in `agreement`, in `precision`
    seconds: tuple[float, float] = (180.0, 40.0)  # of training the paper's field, ours
    sizes: tuple[int, int] = (128, 512)  # of their frames
    renders: tuple[int, ...] = (128, 256, 512)  # sizes at which ours renders
    frames: int | None = None  # of the capture; None: all
    names: tuple[str, ...] | None = None  # of the trainings; None: all


MINIATURE = Plan(
    "cpu", (2, 2), (0.5, 0.5), (16, 64), (32,), 120,
    ("F_d", "E_a, infonce", "Trans GP-VAE", "fast field", "ATVG"),
)  # fmt: skip


def ship(runs: str | Path, corpus: Corpus) -> None:
    """Write what the fields of the proof learn from: tracked by a quick run, encoded by `corpus`.

    So a machine without the tracker has it too. Points and f_a are in half precision.
    """
    whole = captures.recording("subject_a", runs, 128).training  # the first of two recordings
    codes, half = corpus.codes(whole), np.float16
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
    asked = mock.patch.dict(os.environ, LT_PRECISION=precision)
    with tempfile.TemporaryDirectory() as folder, without_dropout(), asked:
        training(Path(folder), steps, device)
        files = sorted(Path(folder).glob("*.safetensors"))
        return {f.stem: [e["loss"] for e in metadata(f)["history"]] for f in files}


def _each(plan: Plan, measure: Callable[[Training], float], *within: str) -> dict[str, Any]:
    """`measure` of the trainings whose name has one of `within`; of one that fails, its error."""
    torch.backends.cudnn.allow_tf32 = False  # float32, not ten bits of it
    found: dict[str, Any] = {}
    for name, learn in trainings().items():
        if name in (plan.names or [name]) and any(word in name for word in within or [""]):
            try:
                found[name] = measure(learn)
            except Exception as error:  # any: the other trainings are still worth their time
                traceback.print_exc()
                found[name] = f"{type(error).__name__}: {error}"[:200]
    return found


def _unmeasured(found: dict[str, Any]) -> dict[str, str]:
    """`failed`, if a training of `_each` has no finite number."""
    names = [k for k, v in found.items() if not (isinstance(v, float) and math.isfinite(v))]
    return dict(failed=f"no number of {', '.join(names)}") if names or not found else {}


def agreement(plan: Plan, folder: Path) -> dict[str, Any]:
    """Do CPU and GPU learn the same? Each training in float32, from the same numbers."""

    def difference(learn: Training) -> float:
        here, there = (
            _losses(learn, plan.steps[0], device, "32-true") for device in ("cpu", plan.device)
        )
        pairs = [(np.array(here[k]), np.array(there[k])) for k in here]
        return max(float(np.abs(a - b).max() / np.abs(a).max()) for a, b in pairs)

    found = _each(plan, difference)
    agrees = all(isinstance(d, float) and d <= AGREE for d in found.values())
    return dict(tolerance=AGREE, difference=found, agrees=agrees) | _unmeasured(found)


def precision(plan: Plan, folder: Path) -> dict[str, Any]:
    """Does mixed precision reach the loss of float32? The ratio of the means of the last tenth."""

    def ratio(learn: Training) -> float:
        full, mixed = (_losses(learn, plan.steps[1], plan.device, kind) for kind in PRECISIONS)
        last = max(1, plan.steps[1] // 10)
        ends = [np.mean(mixed[k][-last:]) / np.mean(full[k][-last:]) for k in full]
        return float(max(ends, key=lambda r: abs(r - 1)))

    found = _each(plan, ratio, *MIXED)
    return dict(mixed_to_full=found) | _unmeasured(found)


def field(plan: Plan, folder: Path, kind: str) -> dict[str, Any]:
    """Train a field for its seconds: PSNR against steps and seconds, frames/s, memory."""
    which = ["paper", "fast"].index(kind)
    size, curve = plan.sizes[which], folder / f"{kind}.jsonl"
    curve.unlink(missing_ok=True)

    def told(point: list[float]) -> None:  # what a run that is cut off leaves
        with open(curve, "a", encoding="utf-8") as file:
            print(json.dumps(point), file=file)

    with tempfile.TemporaryDirectory() as scratch:
        data, threads = Path(scratch) / "data.npz", torch.get_num_threads()
        # In their own processes: peak memory is that of the training alone.
        bench.in_own_process(threads, prepare, size, plan.frames, data)
        peak = bench.in_own_process(threads, bench.peak_flops, plan.device)
        renders = plan.renders if kind == "fast" else plan.renders[:1]
        keep = folder / "paper_field.safetensors" if kind == "paper" else None
        arguments = kind, data, profile("quick"), plan.seconds[which], plan.device, peak
        found = bench.measure(*arguments, renders, keep, told)
    return dict(size=size, peak_gflops=peak / 1e9) | found


def together(plan: Plan, folder: Path) -> dict[str, Any]:
    """Two processes train one field, on one GPU if there is no second.

    Raises RuntimeError if they fail.
    """
    torchrun = ["torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    alone = _losses(trainings()["fast field"], plan.steps[0], plan.device, "32-true")["field"][-1]
    with tempfile.TemporaryDirectory() as to:
        command = [sys.executable, "-m", *torchrun, "-m", "dfa.gpu.proof"]
        with subprocess.Popen(
            [*command, plan.device.partition(":")[0], to, str(plan.steps[0])],
            stderr=subprocess.PIPE, text=True, start_new_session=True,  # Ctrl-C is ours to pass on
        ) as process:  # fmt: skip
            try:
                errors = process.communicate(timeout=120)[1]
            except BaseException:  # also of Ctrl-C: torchrun ends its workers, which take the GPU
                process.terminate()
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()
                raise
        if process.returncode:
            lines = [line.strip() for line in errors.splitlines() if "Error" in line]
            raise RuntimeError((lines or ["no reason is given"])[0])
        joint = metadata(Path(to) / "field.safetensors")["history"][-1]["loss"]
    return dict(loss=joint, loss_alone=alone, gpus=torch.cuda.device_count())


STEPS: dict[str, tuple[float, Callable[[Plan, Path], dict[str, Any]]]] = {  # seconds, what
    "paper_field": (230.0, partial(field, kind="paper")),
    "our_field": (100.0, partial(field, kind="fast")),
    "agreement": (60.0, agreement),
    "precision": (30.0, precision),
    "two_processes": (40.0, together),
}


def prove(out: Path, minutes: float = 8.0) -> dict[str, Any]:
    """Run the steps that `out`, a .json, does not have yet, and write each into it.

    Weights and curves are in the folder of its name. Raises InputError if there is no GPU, or
    `out` holds something else or the results of another machine or version.
    """
    miniature = os.environ.get(PRETEND) == "cpu"
    try:
        plan = MINIATURE if miniature else Plan(str(pick_device("cuda")))
    except InputError as error:
        raise InputError("there is no CUDA device: `dfa bench` measures the CPU") from error
    if out.suffix != ".json":
        raise InputError(f"{out} is no name of a .json file: give another -o")
    check_output(out)
    about = dict(device=device_name(plan.device), dfa=__version__, torch=torch.__version__,
                 data=captures.SAMPLES, miniature=miniature)  # fmt: skip
    try:
        found = json.loads(out.read_text("utf-8")) if out.exists() else about | dict(steps={})
        if {**found, "steps": {}} != {**about, "steps": {}}:
            raise ValueError("of another machine or version")
        steps: dict[str, Any] = found["steps"]
        if not all(isinstance(step, dict) for step in steps.values()):
            raise ValueError("damaged")
        folder = out.with_suffix("")
        folder.mkdir(exist_ok=True)
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise InputError(f"{out} holds other results ({error}): give another -o") from error
    began = time.monotonic()
    for name, (seconds, step) in STEPS.items():
        if "seconds" in steps.get(name, {}):
            print(f"{name}: measured already", file=sys.stderr)
            continue
        start = time.monotonic()
        if not miniature and start - began + seconds > 60 * minutes:
            steps[name] = dict(skipped="no time was left: run the command again")
        else:
            print(f"{name}, about {seconds:.0f} s", file=sys.stderr, flush=True)
            try:
                result = bench.in_own_process(torch.get_num_threads(), step, plan, folder)
                took = {} if "failed" in result else dict(seconds=time.monotonic() - start)
                steps[name] = result | took  # what has no seconds is done again
            except Exception as error:  # any: the other steps are still worth their time
                traceback.print_exc()
                steps[name] = dict(failed=f"{type(error).__name__}: {error}"[:300])
        write_text(out, json.dumps(found, indent=1) + "\n")
    return found


if __name__ == "__main__":  # a process of `together`
    where, to, steps_of_each = sys.argv[1:]
    os.environ["LT_PRECISION"] = "32-true"
    with without_dropout():
        trainings()["fast field"](Path(to), int(steps_of_each), where)
