"""How fast the fields of eq. 10 train and render: on one machine, in one run, on the same data.

Held-out PSNR is computed from the mean squared error over all evaluated pixels. It is not a mean of
dB over frames. For the fast field, every second held-out frame is evaluated. The paper's field
renders slowly, so 4,096 pixels of 16 held-out frames are evaluated, drawn once; the expected error
is the same.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from .. import captures
from ..media import InputError, resized
from ..method.field import Field, decibels, render, render_all
from ..method.field_training import FieldRecipe, train_field
from ..method.mlp_field import PaperField
from ..method.person import Person
from ..method.talking_head import Corpus
from ..method.tracking import track
from ..profiles import Profile
from ..recording import Recording
from ..training import pick_device

BENCHED = ("fast", "paper")  # kinds of fields
THRESHOLDS = (25, 28, 30, 32)  # dB of held-out PSNR: `seconds_to_db` has the time to reach each
# which of two values is the worse one, by the name of the number
WORSE = dict.fromkeys(("step_s", "train_s", "peak_memory_mb", "peak_gpu_memory_mb"), max)
WORSE |= dict.fromkeys(
    ("psnr", "psnr_large", "psnr_enlarged", "fps_128", "fps_256", "peak_share"), min
)
PILOT = 3  # steps of a first short training, which decides how many fit; on a GPU 30


def clock() -> float:
    """Seconds of a monotonic clock, read after the GPU has finished its queued work."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter()


class Watch:
    """Measures the time of each training step and evaluates the held-out PSNR in between.

    `train_field` calls the object at the beginning of each step.

    Args:
        evaluate: field -> dB; its time is not counted. It is called after 0.1 s of training, then
            each time the training time has doubled, but at least every `every` seconds.
        every: seconds of training.
        told: called with each point of the curve.
    """

    def __init__(
        self, evaluate: Callable[[Field], float] | None = None, every: float = 10.0,
        told: Callable[[list[float]], None] = lambda point: None,
    ) -> None:  # fmt: skip
        self.evaluate, self.every, self.told = evaluate, every, told
        # seconds trained, seconds at which to evaluate next, clock when the current step began
        self.seconds, self.due, self.began = 0.0, 0.1, None
        self.steps: list[float] = []  # seconds of each step
        self.curve: list[list[float]] = []  # [seconds of training, dB]
        self.looks: list[int] = []  # steps trained at each point of the curve

    def stop(self) -> None:
        """Record the time of the current step, if one is running."""
        if self.began is not None:
            self.steps.append(clock() - self.began)
            self.seconds += self.steps[-1]
            self.began = None

    def look(self, field: Field) -> None:
        """Evaluate the field, append the PSNR to the curve and print it to stderr."""
        self.curve.append([self.seconds, self.evaluate(field)])
        self.looks.append(len(self.steps))
        self.told([*self.curve[-1], self.looks[-1]])
        self.due = self.seconds + min(max(self.seconds, 0.1), self.every)
        print(f"{self.seconds:.1f} s: held-out PSNR {self.curve[-1][1]:.2f} dB", file=sys.stderr)

    def __call__(self, field: Field) -> None:
        self.stop()
        if self.evaluate and self.seconds >= self.due:
            self.look(field)
        self.began = clock()


@torch.no_grad()
def held_out(field: Field, cond: Tensor, frames: np.ndarray) -> float:
    """Held-out PSNR in dB, as the module's docstring defines it.

    Args:
        cond: (T, DIM_C) conditions. frames: (T, S, S, 3) uint8, the real frames.
    """
    device, T, S = field.h_mean.device, len(frames), frames.shape[1]
    few, training, g = isinstance(field, PaperField), field.training, torch.Generator()
    g.manual_seed(0)  # an own generator: the training's random numbers stay the same
    field.eval()
    errors = []
    for t in np.linspace(0, T - 1, 16).astype(int) if few else range(0, T, 2):
        condition, true = cond[t : t + 1].to(device), torch.from_numpy(frames[t]).view(S * S, 3)
        with torch.autocast(device.type, enabled=False):  # full precision, as in `render`
            if few:
                index = torch.randperm(S * S, generator=g)[:256]
                made, true = field.pixels(condition, index.to(device))[0], true[index]  # (256, 3)
            else:
                made = field.image(condition, S)[0].flatten(1).T  # (S * S, 3)
        errors.append((made.clamp(0, 1) - true.to(device) / 255).square().mean())
    field.train(training)
    return decibels(torch.stack(errors))


def flat(frames: np.ndarray, test: np.ndarray) -> float:
    """PSNR in dB of one flat colour, the mean of `frames`, on `test`: the zero of learning.

    Both (T, S, S, 3) uint8.
    """
    error = (test / 255 - frames.mean((0, 1, 2)) / 255) ** 2
    return decibels(torch.tensor(error.mean()))


def at_full_size(
    field: Field, cond: Tensor, frames: np.ndarray, size: int, every: int = 5
) -> dict[str, float]:
    """`psnr_large` and `psnr_enlarged`, as of `measure`, of each `every`-th held-out frame."""
    true, S = frames[::every], frames.shape[1]
    made = {
        "psnr_large": render_all(field, cond[::every], S),
        "psnr_enlarged": resized(render_all(field, cond[::every], size), S),
    }
    return {
        k: decibels(torch.tensor(((x / 255 - true / 255) ** 2).mean())) for k, x in made.items()
    }


def fps(field: Field, cond: Tensor, size: int, seconds: float = 3.0) -> float:
    """Frames/s of `render` at size x size pixels, by the median time of repeated calls.

    The conditions (T, DIM_C) are one batch. It is rendered repeatedly for `seconds`, at least once.
    """
    durations, until = [], clock() + seconds
    while not durations or clock() < until:
        began = clock()
        n = sum(1 for _ in render(field, cond, size, batch=len(cond)))
        durations.append(clock() - began)
    return n / median(durations)


def measure(
    kind: str, data: Path, p: Profile, seconds: float | None, device: str, peak: float,
    sizes: Sequence[int] = (128, 256), keep: Path | None = None,
    told: Callable[[list[float]], None] = lambda point: None, judged: int | None = None,
) -> dict[str, Any]:  # fmt: skip
    """The cost of training and rendering a field on one subject, as a dict for JSON.

    Args:
        kind: "fast" or "paper". data: the .npz that `prepare` wrote. p: the profile.
        seconds: how long it trains; None: for the profile's steps. device: a torch device or
            "auto". peak: FLOP/s of the machine, from `peak_flops`.
        sizes: frame sides at which to render. keep: a file for the weights.
        told: as of `Watch`.
        judged: frame side for the held-out PSNR, on which the paper's field also trains; by default
            that of the frames. If it is smaller, `psnr_large` is the PSNR at the frames' side, and
            `psnr_enlarged` that of the field's pictures of `judged`, enlarged (bicubic).

    Peak memory is that of the whole process until training ends, so call this in a fresh process.
    FLOPs count matrix products and convolutions.
    """
    with np.load(data) as file:
        frames, points, cond, n = (file[name] for name in ("frames", "points", "cond", "n"))
        known = "masks" in file  # the proof on a GPU has none
        person = Person(*(file[name] for name in Person._fields)) if known else None
    cond, n, fast = torch.from_numpy(cond), int(n), kind == "fast"
    large, judged = frames[n:], judged or frames.shape[1]
    small = resized(large, judged)
    frames = frames[:n] if fast else resized(frames[:n], judged)

    def train(steps: int, watch: Watch, keep: Path | None = None) -> Field:
        examples, recipe = (frames, points[:n], cond[:n]), FieldRecipe(steps, kind=kind)
        with tempfile.TemporaryDirectory() as folder:  # empty: no earlier checkpoint is resumed
            path = Path(folder) / "field.safetensors"
            field, _ = train_field(*examples, recipe, path, 0, device, watch, person)
            if keep:
                shutil.copy(path, keep)
        watch.stop()
        return field

    pilot, on_gpu = Watch(), pick_device(device).type == "cuda"
    every = 10.0 if fast else 20.0
    watch = Watch(lambda field: held_out(field, cond[n:], small), every, told)
    with FlopCounterMode(display=False) as counter:  # counting takes time: other steps are timed
        train(1, Watch())
    train(PILOT * (10 if on_gpu else 1), pilot)
    fitting = p.field_steps if seconds is None else int(seconds / median(pilot.steps[2:]))
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    field = train(max(3, fitting), watch, keep)
    gpu_memory = torch.cuda.max_memory_allocated() if on_gpu else 0
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    watch.look(field)
    batch = cond[n :: (len(cond) - n) // 8][:8] if fast else cond[n : n + 1]
    step_s, flops_step = median(watch.steps), counter.get_total_flops()
    found = dict(
        step_s=step_s,
        seconds_to_db={str(db): seconds_to(watch.curve, db) for db in THRESHOLDS},
        psnr=watch.curve[-1][1],
        flat_psnr=flat(frames, small),
        train_s=watch.seconds,
        **{f"fps_{size}": fps(field, batch, size) for size in sizes},
        peak_memory_mb=memory * (1 if sys.platform == "darwin" else 1024) / 1e6,
        peak_share=flops_step / step_s / peak,
        flops_step=flops_step,
        curve=watch.curve,
        curve_steps=watch.looks,
    )
    if fast and judged < large.shape[1]:
        found |= at_full_size(field, cond[n:], large, judged)
    if on_gpu:
        found["peak_gpu_memory_mb"] = gpu_memory / 1e6
    return found


def prepare(name: str, p: Profile, path: Path) -> None:
    """Write what `measure` needs of a sample capture to the .npz `path`.

    The capture is tracked anew; eyes and audio are encoded with the package's weights. The file has
    frames (T, S, S, 3) uint8, points (T, 68, 2), cond (T, DIM_C), n, the training frames, and the
    arrays of `Person`.
    """
    video = captures.path(name)
    whole = Recording.load(name, video, track(video, seconds=p.seconds), p.field_size)
    cond = Corpus.load().codes(whole).cond.numpy()
    points, n = whole.attributes.points, len(whole.training)
    person = Person.of(whole.training)._asdict()
    np.savez(path, frames=whole.frames, points=points, cond=cond, n=n, **person)


def peak_flops(device: str) -> float:
    """FLOP/s of a large square matrix product, the fastest of ten.

    The type is that of `train`: float32 on a CPU, bfloat16 on CUDA.
    """
    where = pick_device(device)
    n, kind = (8192, torch.bfloat16) if where.type == "cuda" else (2048, torch.float32)
    a, durations = torch.ones(n, n, dtype=kind, device=where), []
    for _ in range(10):
        began = clock()
        a @ a
        durations.append(clock() - began)
    return 2 * n**3 / min(durations)


def seconds_to(curve: list[list[float]], db: float) -> float | None:
    """Seconds until a curve of [seconds, dB] first reaches `db`; None if it never does.

    Interpolates linearly between evaluations. If the first evaluation is high enough, its time
    counts.
    """
    for before, (s, value) in zip([None, *curve], curve, strict=False):
        if value >= db:
            return s if before is None else float(np.interp(db, [before[1], value], [before[0], s]))
    return None


def worse(results: list[dict[str, Any]]) -> dict[str, Any]:
    """The worst value over several subjects, number by number.

    The time to a PSNR is None if one subject never reached it.
    """
    merged = {k: WORSE[k](r[k] for r in results) for k in results[0] if k in WORSE}
    seconds = {db: [r["seconds_to_db"][db] for r in results] for db in map(str, THRESHOLDS)}
    return merged | {
        "seconds_to_db": {k: None if None in s else max(s) for k, s in seconds.items()}
    }


def speedup(subjects: dict[str, dict[str, dict]]) -> dict[str, float | None]:
    """Speed of the fast field divided by that of the paper's, on the subject where it is smallest.

    `fps_128`: ratio of frames/s. `to_paper_best`: ratio of the training seconds until the paper
    field's best PSNR, which is `at_db`; None if the fast field never reaches it. `to_any`: the
    smallest such ratio over all whole dB that both fields reach, above the PSNR of one flat colour
    (below it nothing is learnt yet); None if there is no such dB.
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
    os.dup2(2, 1)  # print to stderr: stdout is for the JSON result
    torch.set_num_threads(threads)


def in_own_process(threads: int, work: Callable, *args: Any) -> Any:
    """`work(*args)`, run in a new process with `threads` threads; its stdout goes to stderr."""
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
    """Measure each field on each of `subjects`; returns the dict that `dfa bench --json` prints.

    The fast field trains for the profile's steps, the paper's for as many as fit in
    `paper_seconds`. Each measurement runs in a new process, one after another. A new process starts
    with the peak memory of its parent, so the parent does no work itself.

    Raises InputError for an unknown subject, `paper_seconds` or `threads` that are not positive,
    and a CUDA device that does not exist.
    """
    threads = torch.get_num_threads() if threads is None else threads
    for name in subjects:
        if name not in p.test:
            raise InputError(f"no test subject called {name}: choose from {', '.join(p.test)}")
    if not 0 < paper_seconds < math.inf:
        raise InputError("--paper-seconds must be more than 0")
    if threads < 1:
        raise InputError("--threads must be 1 or more")
    pick_device(device)  # here, not first in another process
    found: dict[str, dict[str, dict]] = {name: {} for name in subjects}
    peak = in_own_process(threads, peak_flops, device)
    with tempfile.TemporaryDirectory() as folder:
        for name in found:
            data = Path(folder) / f"{name}.npz"
            in_own_process(threads, prepare, name, p, data)
            for kind in BENCHED:
                print(f"{name}, {kind} field", file=sys.stderr)
                seconds = paper_seconds if kind == "paper" else None
                arguments = kind, data, p, seconds, device, peak
                measured = partial(measure, *arguments, judged=p.size)
                found[name][kind] = in_own_process(threads, measured)
    return {
        "peak_gflops": peak / 1e9,
        "threads": threads,
        "data": captures.SAMPLES,
        "profile": p.name,
        "fields": {kind: worse([s[kind] for s in found.values()]) for kind in BENCHED},
        "subjects": found,
        "speedup": speedup(found),
    }
