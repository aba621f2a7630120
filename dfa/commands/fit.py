"""`dfa fit`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..media import FPS, InputError, check_output
from . import DEVICES, images_of, seed, side, write_json

try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None
if TYPE_CHECKING:
    import numpy as np
    import torch

TEXT = "Train a talking head of the person in a video. A stopped run continues."
SHORT = 30.0  # seconds; a shorter video gives a poor model


def arguments(p: argparse.ArgumentParser) -> None:
    """Its options."""
    p.add_argument(
        "video",
        help="a video with one face and its voice, at least 30 s is advised; or a dataset folder"
        " of the AD-NeRF family with its aud.wav",
    )
    p.add_argument("-o", "--output", required=True, help="folder for the model")
    p.add_argument(
        "--profile",
        default="quick",
        help="settings: smoke, quick or full, or one with others, as quick,field_steps=4000",
    )
    p.add_argument(
        "--steps", type=int, help="training steps of the field, by default the profile's"
    )
    p.add_argument("--size", type=side, help="frame side in pixels, even; by default the profile's")
    p.add_argument("--seed", type=seed, default=0, help="seed of all random numbers")
    p.add_argument("--device", default="auto", choices=DEVICES, help="device of the training")


def run(args: argparse.Namespace) -> None:
    """`dfa fit`: train a talking head on a video or a dataset folder."""
    from ..datasets.adnerf import is_adnerf, read_sound
    from ..media import read_voice
    from ..profiles import profile
    from ..training import pick_device

    pick_device(args.device)  # says at once if there is none
    profile(args.profile)
    out = Path(args.output)
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file: give -o a folder for the model")
    check_output(out / "model.json" if out.is_dir() else out)
    if not Path(args.video).is_dir():
        audio = read_voice(args.video)
        with alone_in(out):
            return fit_video(args, args.video, audio)
    if not is_adnerf(args.video):
        raise InputError(
            f"{args.video} is a folder, but not a dataset of the AD-NeRF family: give one video"
            " of one person"
        )
    audio = read_sound(args.video)
    with alone_in(out), images_of(args.video) as video:
        fit_video(args, video, audio)


@contextmanager
def alone_in(out: Path) -> Iterator[None]:
    """Make the folder, and hold a lock on it. Raises InputError if another process holds it."""
    from ..processes import rank_and_world

    out.mkdir(parents=True, exist_ok=True)
    if fcntl is None or rank_and_world()[0]:  # the first of several processes holds it for all
        yield
        return
    lock = os.open(out, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise InputError(
            f"another `dfa fit` writes to {out}: wait for it, or choose another folder"
        ) from error
    finally:
        os.close(lock)


@contextmanager
def rank_zero_first(device: torch.device) -> Iterator[None]:
    """Run the block in the first process, then in the others, which find its files."""
    from ..processes import connected, rank_and_world

    if rank_and_world()[1] == 1:
        yield
        return
    with connected(device).rank_zero_first():
        yield


def check_memory(needed: int, size: int) -> None:
    """Raise InputError if this machine has less memory than the `needed` bytes of a training."""
    has = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 0
    if 0 < has < needed:
        raise InputError(
            f"training at {size}x{size} pixels needs about {needed / 1e9:.1f} GB of memory, this"
            f" machine has {has / 1e9:.1f} GB: choose a smaller size"
        )


def fit_video(args: argparse.Namespace, video: str | Path, audio: np.ndarray) -> None:
    """Train a talking head on a video with the audio (n,), 16 kHz, and write its model.json."""
    import torch

    from .. import __version__
    from ..datasets.tracks import tracked
    from ..media import duration
    from ..method.fast_field import FastField
    from ..method.talking_head import fit
    from ..processes import rank_and_world, say
    from ..profiles import profile
    from ..recording import Recording, check_room
    from ..training import metadata, pick_device

    out, p = Path(args.output), profile(args.profile)
    if args.size is not None:
        p = replace(p, field_size=args.size)
    if args.steps is not None:
        p = replace(p, field_steps=args.steps)
    if p.field_steps < 1:
        raise InputError("--steps must be 1 or more")
    device = pick_device(args.device)
    if device.type == "cpu":
        check_memory(FastField.training_memory(p.field_size), p.field_size)
    check_room(round(duration(video) * FPS), p.field_size)
    say("tracking")
    with rank_zero_first(device):
        attributes = tracked(video, out / "attributes.npz")
    if rank_and_world()[0] == 0:
        (out / "model.json").unlink(missing_ok=True)  # until all files are of this person
    T = len(attributes)
    warnings = [f"made from {T / FPS:.1f} s of video"]
    if T / FPS < SHORT:
        warnings[0] += (
            f" (at least {SHORT:.0f} s is advised): few sounds, poses and blinks. Expect lips that"
            " barely move with new audio, blur and wrong colours at new poses, and eyes that may"
            " not close"
        )
        say(f"warning: {warnings[0]}", file=sys.stderr)
    recording = Recording.load(Path(video).stem, video, attributes, p.field_size, audio)
    fit(recording, p, out, seed=args.seed, device=args.device)
    psnr = metadata(out / "field.safetensors")["history"][-1]["psnr"]
    model = dict(
        dfa=__version__, torch=torch.__version__, size=p.field_size, seed=args.seed, frames=T,
        steps=p.field_steps, warnings=warnings, training_psnr=psnr, video=Path(args.video).name,
    )  # fmt: skip
    if rank_and_world()[0] == 0:
        write_json(out / "model.json", model)
    say(f"{out}: {p.field_size}x{p.field_size}, training PSNR {psnr:.1f} dB. To render speech:")
    say(f"  dfa speak {out} --audio SPEECH.wav -o talk.mp4")
