"""The command line: arguments, help, exit codes. What the commands do is in `commands.py`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable

from . import commands
from .media import InputError

SETTINGS = ("smoke", "quick", "full")


class Help(argparse.ArgumentDefaultsHelpFormatter):
    """Every option says its default."""


def track_arguments(add: Callable[..., argparse.ArgumentParser]) -> None:
    p = add(
        "track",
        commands.track_command,
        "Track a face: pose, expression and landmarks of every frame.",
    )
    p.add_argument(
        "video",
        help="a video with one face, any size and frame rate, 2 s at least; or a folder: GRID,"
        " LRS2, HDTF, videos of one's own, or a dataset of the AD-NeRF family",
    )
    p.add_argument(
        "-o",
        "--output",
        required=True,
        help="attributes file to write (.npz); of a folder of videos, the folder to write one to"
        " for each, and manifest.jsonl. A killed run goes on where it was",
    )
    p.add_argument(
        "--jobs", type=int, default=None, help="processes for a folder; one a core if not given"
    )
    p.add_argument("--json", action="store_true", help="print what was tracked as JSON")


def fit_arguments(add: Callable[..., argparse.ArgumentParser]) -> None:
    p = add(
        "fit",
        commands.fit_command,
        "Learn to be the person in a video. A killed run goes on where it was.",
    )
    p.add_argument(
        "video",
        help="a video with one face and its voice, 30 s or more is advised; or a dataset folder"
        " of the AD-NeRF family with its aud.wav",
    )
    p.add_argument("-o", "--output", required=True, help="folder for the model")
    p.add_argument("--profile", default="quick", choices=SETTINGS, help="settings")
    p.add_argument(
        "--steps", type=int, default=None, help="field training steps instead of the profile's"
    )
    p.add_argument(
        "--size", type=int, default=None, help="frame side in pixels instead of the profile's"
    )
    p.add_argument("--seed", type=int, default=0, help="seed of everything random")
    p.add_argument("--device", default="auto", help="auto, cpu or cuda: where the field is trained")


def speak_arguments(add: Callable[..., argparse.ArgumentParser]) -> None:
    p = add("speak", commands.speak_command, "Render a fitted person saying a recording.")
    p.add_argument("model", help="folder made by `dfa fit`")
    p.add_argument("--audio", required=True, help="speech, any sound or video file; 0.5 s at least")
    p.add_argument(
        "-o", "--output", required=True, help="video to write (.mp4, 25 fps, H.264 and AAC)"
    )
    p.add_argument("--seed", type=int, default=0, help="another seed, other head motion and blinks")
    p.add_argument(
        "--pose-from", metavar="VIDEO", help="take head motion and eyes from this video instead"
    )
    p.add_argument(
        "--size",
        type=int,
        default=None,
        help="frame side in pixels, even; the model's if not given",
    )


def score_arguments(add: Callable[..., argparse.ArgumentParser]) -> None:
    p = add(
        "score",
        commands.score_command,
        "PSNR, SSIM, LMD, Sync confidence and blinks/s of a generated video.",
    )
    p.add_argument(
        "generated",
        help="a square video, such as `dfa speak` makes; with --table a folder of results",
    )
    p.add_argument(
        "reference",
        nargs="?",
        help="the real video of the same speech; with --table the folder of the real videos, by"
        " default RESULTS/Ground Truth",
    )
    p.add_argument(
        "--table",
        action="store_true",
        help="table 2 of any methods: the folder of results has a folder a method, in it videos"
        " named as the real ones, and maybe NAME.own.mp4 with head motion and eyes of the method's"
        " own, from which blinks are then counted",
    )
    p.add_argument("-o", "--output", default=None, help="with --table: a .csv to write it to")
    p.add_argument(
        "--syncnet-weights",
        metavar="FILE",
        help="judge Sync with the official SyncNet instead of ours: syncnet_v2.model of"
        " joonson/syncnet_python, or its state dict as .safetensors. Adds sync_video, the"
        " confidence of the whole video, which papers give. Slow: some 15 frames/s on one CPU core",
    )
    p.add_argument("--json", action="store_true", help="print JSON")


def export_arguments(add: Callable[..., argparse.ArgumentParser]) -> None:
    p = add(
        "export",
        commands.export_command,
        "Make a dataset folder for AD-NeRF, RAD-NeRF, ER-NeRF or SyncTalk, without BFM.",
    )
    p.add_argument("video", help="a video with one face and its voice")
    p.add_argument("-o", "--output", required=True, help="folder to make")
    p.add_argument("--size", type=int, default=512, help="side of the images in pixels, even")
    p.add_argument(
        "--aud",
        metavar="FILE",
        help="their sound features (.npy), copied to aud.npy; none are made",
    )
    p.add_argument(
        "--attributes", metavar="FILE", help="what `dfa track` wrote of this video, to save time"
    )


def bench_arguments(add: Callable[..., argparse.ArgumentParser]) -> None:
    p = add(
        "bench",
        commands.bench_command,
        "How fast the fast field and the paper's learn and render, on the sample captures of"
        " synthetic actors. Some half an hour on two CPU cores.",
    )
    p.add_argument("--profile", default="quick", choices=("smoke", "quick"), help="settings")
    p.add_argument("--subject", default=None, help="only this test subject instead of both")
    p.add_argument(
        "--paper-seconds",
        metavar="S",
        type=float,
        default=300.0,
        help="about how long the paper's field trains, s, 3 steps at least; the fast one trains"
        " the profile's steps",
    )
    p.add_argument("--threads", type=int, default=None, help="CPU threads; all cores if not given")
    p.add_argument(
        "--device", default="auto", choices=("auto", "cpu", "cuda"), help="where all of it runs"
    )
    p.add_argument("-o", "--output", default=None, help="file for the JSON, too")
    p.add_argument("--json", action="store_true", help="print JSON")


def origin_arguments(add: Callable[..., argparse.ArgumentParser]) -> None:
    p = add(
        "origin",
        commands.origin_command,
        "Where a figure, table or video of figures/ came from: notebook, cell, parameters, seeds,"
        " commit, hashes; and what has changed since. Run it inside the repo.",
    )
    p.add_argument("what", help="an id such as table2, or a file under figures/")
    p.add_argument("value", nargs="?", help="a number or word in its table: the rows it stands in")
    p.add_argument("--profile", default="quick", choices=SETTINGS)


def captures_arguments(add: Callable[..., argparse.ArgumentParser]) -> None:
    p = add(
        "captures", commands.captures_command, "Make the sample captures of synthetic actors again."
    )
    p.add_argument("names", nargs="*", help="which, e.g. subject_a corpus_03; all if none is named")
    p.add_argument("-o", "--output", default="captures", help="folder to write to")
    p.add_argument("--seconds", type=float, default=None, help="make only the beginning")


def parser() -> argparse.ArgumentParser:
    """Of all commands."""
    top = argparse.ArgumentParser(
        "dfa", description="DFA-NeRF: talking heads from a video with a voice."
    )
    sub = top.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, run: Callable, text: str) -> argparse.ArgumentParser:
        p = sub.add_parser(name, help=text, description=text, formatter_class=Help)
        p.set_defaults(run=run)
        return p

    for arguments in (
        track_arguments,
        fit_arguments,
        speak_arguments,
        score_arguments,
        export_arguments,
        bench_arguments,
        origin_arguments,
        captures_arguments,
    ):
        arguments(add)
    return top


def main(argv: list[str] | None = None) -> int:
    """Run one command; the exit code: 0, or 2 for an error that the user can mend."""
    os.environ.setdefault("GLOG_minloglevel", "2")
    args = parser().parse_args(argv)
    try:
        args.run(args)
    except InputError as e:
        print(f"dfa: {' '.join(str(e).split())}", file=sys.stderr)
        return 2
    except OSError as e:
        if e.errno in (28, 122):  # no space, quota
            print(
                f"dfa: the disk is full ({e.filename}): make room and run again",
                file=sys.stderr,
            )
            return 2
        raise
    except KeyboardInterrupt:
        print("dfa: stopped; run the same command to go on", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
