"""The commands of the command line. Each one takes the parsed arguments and prints its results.

All raise InputError for an error that the user can correct: one line that says how.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from .media import FPS, InputError, check_output

if TYPE_CHECKING:
    import numpy as np

SHORT = 30.0  # seconds; a shorter video gives a poor model
SHOWN = 10  # largest number of printed reasons for omitted clips


def track_command(args: argparse.Namespace) -> None:
    """`dfa track`: track a video, a folder of videos, or a dataset folder."""
    import time

    from .datasets.adnerf import is_adnerf
    from .method.tracking import track

    if Path(args.video).is_dir():
        if not is_adnerf(args.video):
            return track_corpus_command(args)
        check_output(args.output)
        with images_of(args.video) as args.video:
            return track_command(args)
    check_output(args.output)
    began = time.monotonic()
    attributes = track(args.video)
    seconds = time.monotonic() - began
    attributes.save(args.output)
    T = len(attributes.h)
    facts = dict(
        frames=T, seconds=round(seconds, 2), tracked=round(1 - float(attributes.lost.mean()), 4)
    )
    if args.json:
        print(json.dumps(facts))
    else:
        print(
            f"{args.output}: {T} frames in {seconds:.1f} s ({T / seconds:.0f}/s),"
            f" {facts['tracked']:.1%} tracked"
        )


@contextmanager
def images_of(folder: str) -> Iterator[Path]:
    """A temporary video of the images in a dataset folder. Errors name the folder."""
    from .datasets.adnerf import as_video

    with tempfile.TemporaryDirectory() as scratch:
        video = as_video(folder, Path(scratch) / "images.mkv")
        try:
            yield video
        except InputError as error:
            raise InputError(str(error).replace(str(video), folder)) from error


def track_corpus_command(args: argparse.Namespace) -> None:
    """`dfa track FOLDER`: track each video of a folder."""
    import time

    from .datasets.corpus import track_corpus

    if args.jobs is not None and args.jobs < 1:
        raise InputError("--jobs must be 1 or more")
    began = time.monotonic()
    facts = track_corpus(args.video, args.output, args.jobs)
    facts["seconds"] = round(time.monotonic() - began, 2)
    reasons, manifest = facts.pop("reasons"), Path(args.output) / "manifest.jsonl"
    if not facts["tracked"]:
        first = next(iter(reasons.values()))
        raise InputError(f"no clip of {args.video} can be used (see {manifest}), e.g. {first}")
    for reason in list(reasons.values())[:SHOWN]:
        print(f"left out: {reason}", file=sys.stderr)
    if len(reasons) > SHOWN:
        print(f"and {len(reasons) - SHOWN} more, all in {manifest}", file=sys.stderr)
    if args.json:
        print(json.dumps(facts))
    else:
        print(
            f"{args.output}: {facts['layout']}, {facts['tracked']} of {facts['clips']} clips"
            f" tracked ({facts['frames']} frames, {facts['new']} clips in"
            f" {facts['seconds']:.0f} s now), {facts['bad']} left out"
        )


def fit_command(args: argparse.Namespace) -> None:
    """`dfa fit`: train a talking head on a video or a dataset folder."""
    from .datasets.adnerf import is_adnerf, read_sound
    from .media import read_voice

    out = Path(args.output)
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file: give -o a folder for the model")
    check_output(out / "model.json" if out.is_dir() else out)
    if not Path(args.video).is_dir():
        return fit_video(args, args.video, read_voice(args.video))
    if not is_adnerf(args.video):
        raise InputError(
            f"{args.video} is a folder, but not a dataset of the AD-NeRF family: give one video"
            " of one person"
        )
    audio = read_sound(args.video)
    with images_of(args.video) as video:
        fit_video(args, video, audio)


def fit_video(args: argparse.Namespace, video: str | Path, audio: np.ndarray) -> None:
    """Train a talking head on a video with the audio (n,), 16 kHz, and write its model.json."""
    import torch

    from . import __version__
    from .method.talking_head import fit
    from .method.tracking import tracked
    from .profiles import profile
    from .recording import Recording
    from .training import metadata, pick_device, rank_and_world, rank_zero_first, say

    out, p = Path(args.output), profile(args.profile)
    p = replace(p, size=args.size or p.size, field_steps=args.steps or p.field_steps)
    if p.size < 32 or p.size % 2:
        raise InputError("--size must be an even number of pixels, at least 32")
    out.mkdir(parents=True, exist_ok=True)
    say("tracking")
    with rank_zero_first(pick_device(args.device)):
        attributes = tracked(video, out / "attributes.npz")
    T = len(attributes)
    warnings = [f"made from {T / FPS:.1f} s of video"]
    if T / FPS < SHORT:
        warnings[0] += (
            f" (at least {SHORT:.0f} s is advised): few sounds, poses and blinks. Expect lips that"
            " barely move with new audio, blur and wrong colours at new poses, and eyes that may"
            " not close"
        )
        say(f"warning: {warnings[0]}", file=sys.stderr)
    recording = Recording.load(Path(video).stem, video, attributes, p.size, audio)
    fit(recording, p, out, seed=args.seed, device=args.device)
    psnr = metadata(out / "field.safetensors")["history"][-1]["psnr"]
    model = dict(
        dfa=__version__, torch=torch.__version__, size=p.size, seed=args.seed, frames=T,
        steps=p.field_steps, warnings=warnings, training_psnr=psnr, video=Path(args.video).name,
    )  # fmt: skip
    if rank_and_world()[0] == 0:
        write_json(out / "model.json", model)
    say(f"{out}: {p.size}x{p.size}, training PSNR {psnr:.1f} dB. To render speech:")
    say(f"  dfa speak {out} --audio SPEECH.wav -o talk.mp4")


def write_json(path: Path, value: dict) -> None:
    """Write a JSON file. Raises InputError if it cannot be written."""
    from .media import atomic

    with atomic(path) as tmp:
        Path(tmp).write_text(json.dumps(value, indent=1) + "\n")


def speak_command(args: argparse.Namespace) -> None:
    """`dfa speak`: render a fitted person who says the audio, to an mp4 file."""
    import torch
    from tqdm import tqdm

    from .media import SAMPLE_RATE, frame_count, read_voice, write_video
    from .method.talking_head import Subject
    from .method.tracking import track

    folder = Path(args.model)
    if not (folder / "model.json").exists():
        raise InputError(
            f"{folder} has no finished model: make one with `dfa fit VIDEO -o {folder}`"
        )
    if args.size and (args.size < 32 or args.size % 2):
        raise InputError("--size must be an even number of pixels, at least 32")
    check_output(args.output)
    audio = read_voice(args.audio)
    if len(audio) < SAMPLE_RATE // 2:
        raise InputError(
            f"{args.audio} lasts {len(audio) / SAMPLE_RATE:.2f} s: give at least 0.5 s of speech"
        )
    model = json.loads((folder / "model.json").read_text())
    for warning in model["warnings"]:
        print(f"note: the model was {warning}", file=sys.stderr, flush=True)
    subject = Subject.load(folder)
    personal = None
    if args.pose_from:
        personal = subject.corpus.personal(track(args.pose_from))
        # keep the motion, but around the mean pose of this subject
        personal[:, :6] += subject.field.h_mean - personal[:, :6].mean(0)
    frames = subject.speak(audio, seed=args.seed, personal=personal, size=args.size)
    n = frame_count(audio)
    with torch.inference_mode():
        write_video(args.output, tqdm(frames, total=n, unit="frame", desc="rendering"), audio)
    print(f"{args.output}: {n} frames, {n / FPS:.1f} s")


def score_command(args: argparse.Namespace) -> None:
    """`dfa score`: print the metrics of section 4.1 for a video."""
    from .evaluation.expert import load_expert
    from .evaluation.protocol import score
    from .evaluation.syncnet import load_syncnet

    if args.syncnet_weights:
        expert, judge = load_syncnet(args.syncnet_weights), "official SyncNet weights"
    else:
        expert, judge = load_expert(), "expert trained on synthetic actors"
    if args.table:
        return score_table(args, expert, judge)
    if args.output:
        raise InputError("-o works only with --table: use --json and redirect the output")
    if not args.reference:
        raise InputError("give also the real video, or --table and a folder of results")
    rows = score(args.generated, args.reference, expert)
    if args.json:
        scores = json.loads(rows.set_index("metric").to_json(orient="index"))
        for metric in scores.keys() & {"sync", "sync_video"}:
            scores[metric]["expert"] = judge
        print(json.dumps(scores))
        return
    units = dict(
        psnr="dB",
        ssim="",
        lmd="px of 256",
        sync=judge,
        sync_video=f"{judge}, one offset for all: compare with papers",
        blinks_per_s="1/s",
    )
    for r in rows.itertuples():
        print(
            f"{r.metric:13s} {r.value:8.3f}  95 % [{r.ci_low:.3f}, {r.ci_high:.3f}]"
            f"  {r.n} clips  {units[r.metric]}"
        )
    fewest = float(rows.n.min())
    if fewest < 3:
        print(
            f"note: only {fewest:.0f} clip(s) of 1.2 s: the intervals are not reliable",
            file=sys.stderr,
        )


def score_table(args: argparse.Namespace, expert: object, judge: str) -> None:
    """`dfa score --table`: print table 2 of a folder of results, and write it to -o."""
    from .evaluation.comparison import table2
    from .report.provenance import write_csv
    from .report.tables import wide

    if args.output:
        check_output(args.output)
    table, reasons = table2(args.generated, expert, args.reference)
    if args.output:
        write_csv(table, Path(args.output))
    if args.json:
        print(json.dumps(json.loads(table.to_json(orient="records"))))
    else:
        for testset, part in wide(table).droplevel(1, axis=1).groupby("testset", sort=False):
            print(f"{testset}\n{part.droplevel('testset').rename_axis(None).to_string()}\n")
        print(f"mean [95 % interval] over clips of 1.2 s; Sync: {judge}")
    for reason in reasons:
        print(f"empty: {reason}", file=sys.stderr)


def origin_command(args: argparse.Namespace) -> None:
    """`dfa origin`: print the origin of a figure, table or video."""
    from .machine import root
    from .report import origin

    entry = origin.find(args.what, root(), args.profile)
    if args.value:
        print(origin.rows_of(entry, args.value, root()).to_string(index=False, na_rep="–"), "\n")
    print(origin.report(entry, root()))


def export_command(args: argparse.Namespace) -> None:
    """`dfa export`: write a dataset folder for methods of the AD-NeRF family."""
    from .datasets.export import write_adnerf
    from .recording import Attributes

    attributes = Attributes.load(args.attributes) if args.attributes else None
    n = write_adnerf(args.video, args.output, size=args.size, attributes=attributes, aud=args.aud)
    print(f"{args.output}: {n} frames of {args.size}x{args.size}; see its README.txt")


def bench_command(args: argparse.Namespace) -> None:
    """`dfa bench`: print the training and rendering speed of both fields."""
    from .evaluation.bench import bench
    from .profiles import profile

    if args.output:
        check_output(args.output)
    p = profile(args.profile)
    chosen = [args.subject] if args.subject else p.test
    result = bench(p, chosen, args.paper_seconds, args.threads, args.device)
    if args.output:
        write_json(Path(args.output), result)
    print(json.dumps(result) if args.json else bench_table(result))


def bench_table(result: dict) -> str:
    """The result of `evaluation.bench.bench` as text."""
    fields, gain = result["fields"], result["speedup"]
    names = dict(
        step_s="a training step, s", train_s="training in all, s",
        psnr="held-out PSNR then, dB", fps_128="frames/s, 128x128", fps_256="frames/s, 256x256",
        peak_memory_mb="peak memory of training, MB", peak_gpu_memory_mb="the same on the GPU, MB",
        peak_share="share of peak FLOP/s",
    )  # fmt: skip
    rows = {
        what: [f[k] for f in fields.values()] for k, what in names.items() if k in fields["fast"]
    }
    for db in fields["fast"]["seconds_to_db"]:
        rows[f"training to {db} dB, s"] = [f["seconds_to_db"][db] for f in fields.values()]
    cell = lambda v: "never" if v is None else f"{v:.4g}" if v < 1e4 else f"{v:.0f}"  # noqa: E731
    lines = [f"{what:28s}" + "".join(f"{cell(v):>10s}" for v in row) for what, row in rows.items()]
    times = lambda v: "no" if v is None else f"{v:.0f} times"  # noqa: E731
    return "\n".join(
        [
            f"{result['device']}, peak {result['peak_gflops']:.0f} GFLOP/s",
            f"{result['data']}, profile {result['profile']};"
            f" each number the worst of {', '.join(result['subjects'])}",
            " " * 28 + "".join(f"{kind:>10s}" for kind in fields),
            *lines,
            f"fast renders {gain['fps_128']:.0f} times the frames/s of paper, in batches of 8;",
            f"it trains {times(gain['to_paper_best'])} faster to {gain['at_db']:.1f} dB, the best"
            f" of paper, and {times(gain['to_any'])} at least to any PSNR on the way",
        ]
    )


def captures_command(args: argparse.Namespace) -> None:
    """`dfa captures`: make the sample captures again."""
    from .captures import NAMES

    unknown = set(args.names) - set(NAMES)
    if unknown:
        raise InputError(
            f"no capture called {', '.join(sorted(unknown))}; there are: {', '.join(NAMES)}"
        )
    try:
        from .studio import make
    except ImportError as e:
        raise InputError(
            f"making captures needs more packages ({e.name}): pip install 'dfa[studio]'"
        ) from e
    Path(args.output).mkdir(parents=True, exist_ok=True)
    make(args.names or NAMES, Path(args.output), seconds=args.seconds)
