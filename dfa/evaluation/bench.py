"""How fast the fields of eq. 10 learn and render: all on one machine, in one run, on the same data.

Held-out PSNR is that of the mean squared error over all held-out pixels looked at, not a mean of
frames' dB: every second frame for the fast field; for the paper's, whose frames take long, 4,096
pixels drawn once over 16 of them, which is the same in expectation.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from . import captures
from .fields import FIELDS, PaperField, decibels
from .media import InputError, frames_of, read_audio
from .nerf import Field, conditions, render
from .profiles import Profile
from .provenance import device_name
from .talk import Corpus, train_field, training_part
from .tracking import track
from .training import pick_device

THRESHOLDS = (25, 28, 30, 32)  # dB
WORSE = dict.fromkeys(("step_s", "train_s", "peak_memory_mb", "peak_gpu_memory_mb"), max)
WORSE |= dict.fromkeys(("psnr", "fps_128", "fps_256", "peak_share"), min)
PILOT = 3  # steps before the measured ones: two to warm up, one to plan with


def clock() -> float:
    """Seconds, once a GPU has done all that it was asked."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter()


class Watch:
    """Times a training and follows its held-out PSNR; `train_field` calls it as a step begins.

    Args:
        evaluate: field -> dB, while the clock stands: after 0.1 s of training, and whenever that
            has doubled, but at least every `every` seconds.
    """

    def __init__(self, evaluate: Callable[[Field], float] | None = None, every: float = 10.0):
        self.evaluate, self.every = evaluate, every
        self.seconds, self.due, self.began = 0.0, 0.1, None
        self.steps: list[float] = []  # seconds of each
        self.curve: list[list[float]] = []  # [seconds of training, dB]

    def stop(self) -> None:
        """The step that was running, if any, has ended."""
        if self.began is not None:
            self.steps.append(clock() - self.began)
            self.seconds += self.steps[-1]
            self.began = None

    def look(self, field: Field) -> None:
        self.curve.append([self.seconds, self.evaluate(field)])
        self.due = self.seconds + min(max(self.seconds, 0.1), self.every)
        print(f"{self.seconds:.1f} s: held-out PSNR {self.curve[-1][1]:.2f} dB", file=sys.stderr)

    def __call__(self, field: Field) -> None:
        self.stop()
        if self.evaluate and self.seconds >= self.due:
            self.look(field)
        self.began = clock()


@torch.no_grad()
def held_out(field: Field, cond: Tensor, frames: np.ndarray) -> float:
    """PSNR in dB on conditions (T, DIM_C) and their frames (T, S, S, 3) uint8, as defined above."""
    device, T, S = field.h_mean.device, len(frames), frames.shape[1]
    few, training, g = isinstance(field, PaperField), field.training, torch.Generator()
    g.manual_seed(0)
    field.eval()  # nothing here draws from the global generator: training goes on undisturbed
    errors = []
    for t in np.linspace(0, T - 1, 16).astype(int) if few else range(0, T, 2):
        told, true = cond[t : t + 1].to(device), torch.from_numpy(frames[t]).view(S * S, 3)
        with torch.autocast(device.type, enabled=False):  # a step is mixed, `render` is not
            if few:
                index = torch.randperm(S * S, generator=g)[:256]
                made, true = field.pixels(told, index.to(device))[0], true[index]
            else:
                made = field.image(told, S)[0].flatten(1).T
        errors.append((made.clamp(0, 1) - true.to(device) / 255).square().mean())
    field.train(training)
    return decibels(torch.stack(errors))


def flat(frames: np.ndarray, n: int) -> float:
    """PSNR in dB on frames (T, S, S, 3) uint8 from the n-th on of the mean colour before."""
    error = (frames[n:] / 255 - frames[:n].mean((0, 1, 2)) / 255) ** 2
    return decibels(torch.tensor(error.mean()))


def fps(field: Field, cond: Tensor, size: int, seconds: float = 3.0) -> float:
    """Frames/s of `render`: the (T, DIM_C) as one batch, over and over for `seconds`, once at
    least; the median time counts."""
    took, until = [], clock() + seconds
    while not took or clock() < until:
        began = clock()
        n = sum(1 for _ in render(field, cond, size, batch=len(cond)))
        took.append(clock() - began)
    return n / median(took)


def measure(
    kind: str, data: Path, p: Profile, paper_seconds: float, device: str, peak: float
) -> dict[str, Any]:
    """What it costs to train and render a field, on what `prepare` made of a subject.

    The peak of memory is the whole process's until training ends: call it in a fresh one. FLOPs are
    those of matmuls and convolutions; `peak` is the machine's FLOP/s.
    """
    with np.load(data) as file:
        frames, points, cond = (file[name] for name in ("frames", "points", "cond"))
    cond, n, fast = torch.from_numpy(cond), training_part(len(frames)), kind == "fast"

    def train(steps: int, watch: Watch) -> Field:
        learnt = frames[:n], points[:n], cond[:n], steps
        with tempfile.TemporaryDirectory() as folder:  # nothing learnt before is found again
            path = Path(folder) / "field.safetensors"
            field, _ = train_field(*learnt, path, 0, device, kind=kind, watch=watch)
        watch.stop()
        return field

    pilot = Watch()
    watch = Watch(lambda field: held_out(field, cond[n:], frames[n:]), 10.0 if fast else 20.0)
    with FlopCounterMode(display=False) as counter:
        train(PILOT, pilot)
    field = train(p.field_steps if fast else max(3, int(paper_seconds / pilot.steps[-1])), watch)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    watch.look(field)
    batch = cond[n :: (len(cond) - n) // 8][:8] if fast else cond[n : n + 1]
    step_s, flops_step = median(watch.steps), counter.get_total_flops() / PILOT
    found = dict(
        step_s=step_s,
        seconds_to_db={str(db): seconds_to(watch.curve, db) for db in THRESHOLDS},
        psnr=watch.curve[-1][1],
        flat_psnr=flat(frames, n),
        train_s=watch.seconds,
        fps_128=fps(field, batch, 128),
        fps_256=fps(field, batch, 256),
        peak_memory_mb=memory * (1 if sys.platform == "darwin" else 1024) / 1e6,
        peak_share=flops_step / step_s / peak,
        flops_step=flops_step,
        curve=watch.curve,
    )
    if field.h_mean.is_cuda:
        found["peak_gpu_memory_mb"] = torch.cuda.max_memory_allocated() / 1e6
    return found


def prepare(name: str, p: Profile, path: Path) -> None:
    """Frames (T, S, S, 3) uint8, points (T, 68, 2) and conditions (T, DIM_C) of a sample capture as
    an .npz: tracked anew, eyes and sound encoded with the weights that the package ships."""
    video, corpus = captures.path(name), Corpus.load()
    seen = track(video, seconds=p.seconds)
    f_a = corpus.f_a(read_audio(video), len(seen))
    cond = conditions(torch.from_numpy(seen.h), f_a, corpus.f_e(seen))
    frames = frames_of(video, seen.crop, p.size, len(seen))
    np.savez(path, frames=frames, points=seen.points, cond=cond.numpy())


def peak_flops(device: str) -> float:
    """FLOP/s of a large square matmul, the best of ten, in what `train` computes in: float32 on a
    CPU, bfloat16 on CUDA."""
    where = pick_device(device)
    n, kind = (8192, torch.bfloat16) if where.type == "cuda" else (2048, torch.float32)
    a, took = torch.ones(n, n, dtype=kind, device=where), []
    for _ in range(10):
        began = clock()
        a @ a
        took.append(clock() - began)
    return 2 * n**3 / min(took)


def seconds_to(curve: list[list[float]], db: float) -> float | None:
    """Seconds until a curve of [seconds, dB] first reaches `db`, on a line between evaluations; the
    first one's where that is there already, None if none is."""
    for before, (s, value) in zip([None, *curve], curve, strict=False):
        if value >= db:
            return s if before is None else float(np.interp(db, [before[1], value], [before[0], s]))
    return None


def worse(results: list[dict[str, Any]]) -> dict[str, Any]:
    """The worse of several subjects' numbers, each for itself; a PSNR that one of them never
    reached is never reached."""
    merged = {k: WORSE[k](r[k] for r in results) for k in results[0] if k in WORSE}
    seconds = {db: [r["seconds_to_db"][db] for r in results] for db in map(str, THRESHOLDS)}
    return merged | {
        "seconds_to_db": {k: None if None in s else max(s) for k, s in seconds.items()}
    }


def speedup(subjects: dict[str, dict[str, dict]]) -> dict[str, float | None]:
    """How many times as fast the fast field is, on the subject where that is least.

    `fps_128` in frames/s; `to_paper_best` in seconds of training to the paper field's best PSNR,
    `at_db`; `to_any` the least over every whole dB that both reach, beyond a picture of one colour:
    below that nothing is learnt yet, and between them the 4,096 pixels decide. None where the fast
    field does not get there, or no dB is left.
    """
    best, every = [], []
    for found in subjects.values():
        fast, paper = found["fast"]["curve"], found["paper"]["curve"]
        seconds, db = max(paper, key=lambda point: point[1])
        own = seconds_to(fast, db)
        best.append((None if own is None else seconds / own, db))
        for whole in range(math.ceil(found["paper"]["flat_psnr"]), math.floor(db) + 1):
            times = seconds_to(fast, whole), seconds_to(paper, whole)
            every += [] if None in times else [times[1] / times[0]]
    ratio, db = min(best, key=lambda r: r[0] or 0)
    frames = [s["fast"]["fps_128"] / s["paper"]["fps_128"] for s in subjects.values()]
    to_any = min(every, default=None)
    return {"fps_128": min(frames), "to_paper_best": ratio, "at_db": db, "to_any": to_any}


def _begin(threads: int) -> None:
    os.dup2(2, 1)  # whatever is printed here: stdout is for the result
    torch.set_num_threads(threads)


def apart(threads: int, work: Callable, *args: Any) -> Any:
    """`work(*args)` in a process of its own, with so many threads and its stdout on stderr."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawn, _begin, (threads,)) as pool:
        return pool.submit(work, *args).result()


def bench(
    p: Profile,
    subjects: Sequence[str] = captures.TEST,
    paper_seconds: float = 300.0,
    threads: int | None = None,
    device: str = "auto",
) -> dict[str, Any]:
    """Measure each field on each of `subjects`, and what `dfa bench --json` prints of it.

    The fast field trains the profile's steps, the paper's as many as fit in `paper_seconds`. All
    happens in other processes, one after another: the peak memory of a process starts at that of
    the one which started it, so this one stays small.
    """
    threads = torch.get_num_threads() if threads is None else threads
    for name in subjects:
        if name not in p.test:
            raise InputError(f"no test subject called {name}; there are: {', '.join(p.test)}")
    if not 0 < paper_seconds < math.inf:
        raise InputError("--paper-seconds wants more than 0")
    if threads < 1:
        raise InputError("--threads wants 1 or more")
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("there is no CUDA device: choose --device cpu")
    found: dict[str, dict[str, dict]] = {name: {} for name in subjects}
    peak = apart(threads, peak_flops, device)
    with tempfile.TemporaryDirectory() as folder:
        for name in found:
            data = Path(folder) / f"{name}.npz"
            apart(threads, prepare, name, p, data)
            for kind in FIELDS:
                print(f"{name}, {kind} field", file=sys.stderr)
                how = kind, data, p, paper_seconds, device, peak
                found[name][kind] = apart(threads, measure, *how)
    return {
        "device": f"{device_name(str(pick_device(device)))}, {threads} thread{'s' * (threads > 1)}",
        "peak_gflops": peak / 1e9,
        "threads": threads,
        "data": "sample captures, synthetic actors",
        "profile": p.name,
        "fields": {kind: worse([s[kind] for s in found.values()]) for kind in FIELDS},
        "subjects": found,
        "speedup": speedup(found),
    }
