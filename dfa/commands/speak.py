"""`dfa speak`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from ..media import FPS, InputError, check_output
from . import DEVICES, seed, side

TEXT = "Render a fitted person who says the audio."


def arguments(p: argparse.ArgumentParser) -> None:
    """Its options."""
    p.add_argument("model", help="folder made by `dfa fit`")
    p.add_argument(
        "--audio", required=True, help="any audio or video file with at least 0.5 s of speech"
    )
    p.add_argument(
        "-o", "--output", required=True, help="video to write (.mp4, 25 fps, H.264 and AAC)"
    )
    p.add_argument(
        "--seed", type=seed, default=0, help="other seeds give other head motion and blinks"
    )
    p.add_argument("--pose-from", metavar="VIDEO", help="copy head motion and eyes from this video")
    p.add_argument("--size", type=side, help="frame side in pixels, even; by default the model's")
    p.add_argument("--device", default="auto", choices=DEVICES, help="device that renders")


def run(args: argparse.Namespace) -> None:
    """`dfa speak`: render a fitted person who says the audio, to an mp4 file."""
    import torch
    from tqdm import tqdm

    from ..media import SAMPLE_RATE, frame_count, read_voice, write_video
    from ..method.talking_head import Subject
    from ..method.tracking import track
    from ..training import pick_device

    device, folder = pick_device(args.device), Path(args.model)
    if not (folder / "model.json").exists():
        raise InputError(
            f"{folder} has no finished model: make one with `dfa fit VIDEO -o {folder}`"
        )
    check_output(args.output, args.audio, args.pose_from)
    audio = read_voice(args.audio)
    if len(audio) < SAMPLE_RATE // 2:
        raise InputError(
            f"{args.audio} lasts {len(audio) / SAMPLE_RATE:.2f} s: give at least 0.5 s of speech"
        )
    try:
        warnings = json.loads((folder / "model.json").read_text())["warnings"]
        warnings = [*map(str, warnings)]
    except (OSError, ValueError, KeyError, TypeError) as error:
        what = f"{folder / 'model.json'} cannot be read"
        raise InputError(f"{what}: make the model again with `dfa fit`") from error
    for warning in warnings:
        print(f"note: the model was {warning}", file=sys.stderr, flush=True)
    subject = Subject.load(folder)
    personal = None
    if args.pose_from:
        personal = subject.corpus.personal(track(args.pose_from))
        # keep the motion, but around the mean pose of this subject
        personal[:, :6] += subject.field.h_mean - personal[:, :6].mean(0)
    subject.field.to(device)
    frames = subject.speak(audio, seed=args.seed, personal=personal, size=args.size)
    n = frame_count(audio)
    with torch.inference_mode():
        write_video(args.output, tqdm(frames, total=n, unit="frame", desc="rendering"), audio)
    print(f"{args.output}: {n} frames, {n / FPS:.1f} s")
