"""The command line: arguments, help texts and exit codes. The commands are in `commands.py`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable

from . import commands
from .media import InputError

SETTINGS = ("smoke", "quick", "full")


class Help(argparse.ArgumentDefaultsHelpFormatter):
    """Adds the default value to the help text of each option."""


def track_arguments(add: Callable[..., argparse.ArgumentParser]) -> None:
    """Options of `dfa track`."""
    p = add(
        "track",
        commands.track_command,
        "Track a face: pose, expression and landmarks of every frame.",
    )
    p.add_argument(
        "video",
        help="a video with one face, any size and frame rate, at least 2 s long; or a folder: GRID,"
        " LRS2, HDTF, your own videos, or a dataset of the AD-NeRF family",
    )
    p.add_argument(
        "-o",
        "--output",
        required=True,
        help="attributes file to write (.npz); for a folder of videos, a folder for one such file"
        " per video and manifest.jsonl. A stopped run continues",
    )
    p.add_argument("--jobs", type=int, help="processes for a folder; by default one per core")
    p.add_argument("--json", action="store_true", help="print the results as JSON")


def fit_arguments(add: Callable[..., argparse.ArgumentParser]) -> None:
    """Options of `dfa fit`."""
    p = add(
        "fit",
        commands.fit_command,
        "Train a talking head of the person in a video. A stopped run continues.",
    )
    p.add_argument(
        "video",
        help="a video with one face and its voice, at least 30 s is advised; or a dataset folder"
        " of the AD-NeRF family with its aud.wav",
    )
    p.add_argument("-o", "--output", required=True, help="folder for the model")
    p.add_argument("--profile", default="quick", choices=SETTINGS, help="settings")
    p.add_argument(
        "--steps", type=int, help="training steps of the field, by default the profile's"
    )
    p.add_argument("--size", type=int, help="frame side in pixels, even; by default the profile's")
    p.add_argument("--seed", type=int, default=0, help="seed of all random numbers")
    p.add_argument("--device", default="auto", help="auto, cpu or cuda, to train the field")


def speak_arguments(add: Callable[..., argparse.ArgumentParser]) -> None:
    """Options of `dfa speak`."""
    p = add("speak", commands.speak_command, "Render a fitted person who says the audio.")
    p.add_argument("model", help="folder made by `dfa fit`")
    p.add_argument(
        "--audio", required=True, help="any audio or video file with at least 0.5 s of speech"
    )
    p.add_argument(
        "-o", "--output", required=True, help="video to write (.mp4, 25 fps, H.264 and AAC)"
    )
    p.add_argument(
        "--seed", type=int, default=0, help="other seeds give other head motion and blinks"
    )
    p.add_argument("--pose-from", metavar="VIDEO", help="copy head motion and eyes from this video")
    p.add_argument("--size", type=int, help="frame side in pixels, even; by default the model's")


def score_arguments(add: Callable[..., argparse.ArgumentParser]) -> None:
    """Options of `dfa score`."""
    p = add(
        "score",
        commands.score_command,
        "PSNR, SSIM, LMD, Sync confidence and blinks/s of a generated video.",
    )
    p.add_argument(
        "generated", help="a square video, e.g. of `dfa speak`; with --table a folder of results"
    )
    p.add_argument(
        "reference",
        nargs="?",
        help="the real video of the same speech; with --table the folder of the real videos, by"
        " default GENERATED/Ground Truth",
    )
    p.add_argument(
        "--table",
        action="store_true",
        help="make table 2 for any methods: the folder of results has one folder per method, with"
        " videos that have the names of the real ones. Optional: NAME.own.mp4 with head motion and"
        " eyes of the method; blinks are then counted in it",
    )
    p.add_argument("-o", "--output", help="with --table: .csv file for the table")
    p.add_argument(
        "--syncnet-weights",
        metavar="FILE",
        help="compute Sync with the official SyncNet instead of ours: syncnet_v2.model of"
        " joonson/syncnet_python, or its state dict as .safetensors. Adds sync_video, the"
        " confidence of the whole video, as in papers. Slow: about 15 frames/s on one CPU core",
    )
    p.add_argument("--json", action="store_true", help="print JSON")


def export_arguments(add: Callable[..., argparse.ArgumentParser]) -> None:
    """Options of `dfa export`."""
    p = add(
        "export",
        commands.export_command,
        "Make a dataset folder for AD-NeRF, RAD-NeRF, ER-NeRF or SyncTalk, without BFM.",
    )
    p.add_argument("video", help="a video with one face and its voice")
    p.add_argument("-o", "--output", required=True, help="folder to write")
    p.add_argument("--size", type=int, default=512, help="side of the images in pixels, even")
    p.add_argument(
        "--aud",
        metavar="FILE",
        help="audio features of that method (.npy), copied to aud.npy; dfa computes none",
    )
    p.add_argument(
        "--attributes", metavar="FILE", help="output of `dfa track` for this video, to save time"
    )


def bench_arguments(add: Callable[..., argparse.ArgumentParser]) -> None:
    """Options of `dfa bench`."""
    p = add(
        "bench",
        commands.bench_command,
        "Measure how fast the fast field and the paper's field train and render, on the sample"
        " captures of synthetic actors. About half an hour on two CPU cores.",
    )
    p.add_argument("--profile", default="quick", choices=("smoke", "quick"), help="settings")
    p.add_argument("--subject", help="use only this test subject")
    p.add_argument(
        "--paper-seconds",
        metavar="S",
        type=float,
        default=300.0,
        help="training time of the paper's field in seconds, at least 3 steps; the fast field"
        " trains for the steps of the profile",
    )
    p.add_argument("--threads", type=int, help="CPU threads; by default one per core")
    p.add_argument(
        "--device", default="auto", choices=("auto", "cpu", "cuda"), help="device of the benchmark"
    )
    p.add_argument("-o", "--output", help="also write the JSON to this file")
    p.add_argument("--json", action="store_true", help="print JSON")


def origin_arguments(add: Callable[..., argparse.ArgumentParser]) -> None:
    """Options of `dfa origin`."""
    p = add(
        "origin",
        commands.origin_command,
        "Show the origin of a figure, table or video in figures/: notebook, cell, parameters,"
        " seeds, commit, hashes; and what has changed since. Run it inside the repository.",
    )
    p.add_argument("what", help="an id such as table2, or a file under figures/")
    p.add_argument("value", nargs="?", help="a number or word in its table: print the rows with it")
    p.add_argument("--profile", default="quick", choices=SETTINGS)


def captures_arguments(add: Callable[..., argparse.ArgumentParser]) -> None:
    """Options of `dfa captures`."""
    p = add(
        "captures", commands.captures_command, "Make the sample captures of synthetic actors again."
    )
    p.add_argument("names", nargs="*", help="for example subject_a corpus_03; by default all")
    p.add_argument("-o", "--output", default="captures", help="folder to write to")
    p.add_argument("--seconds", type=float, help="make only this much of the beginning")


def parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    top = argparse.ArgumentParser(
        "dfa", description="DFA-NeRF: talking heads from a video with a voice."
    )
    sub = top.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, run: Callable, text: str) -> argparse.ArgumentParser:
        p = sub.add_parser(name, help=text, description=text, formatter_class=Help)
        p.set_defaults(run=run)
        return p

    for arguments in (
        track_arguments, fit_arguments, speak_arguments, score_arguments,
        export_arguments, bench_arguments, origin_arguments, captures_arguments,
    ):  # fmt: skip
        arguments(add)
    return top


def main(argv: list[str] | None = None) -> int:
    """Run a command and return the exit code: 0; 2 for an error that the user can correct; 130 if
    stopped."""
    os.environ.setdefault("GLOG_minloglevel", "2")
    args = parser().parse_args(argv)
    try:
        args.run(args)
    except InputError as e:
        print(f"dfa: {' '.join(str(e).split())}", file=sys.stderr)
        return 2
    except OSError as e:
        if e.errno in (28, 122):  # no space, quota
            print(f"dfa: the disk is full ({e.filename}): free space, run again", file=sys.stderr)
            return 2
        raise
    except KeyboardInterrupt:
        print("dfa: stopped; run the same command to continue", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
