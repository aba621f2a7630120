"""`dfa track`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from ..media import InputError, check_output
from . import images_of

TEXT = "Track a face: pose, expression and landmarks of every frame."
SHOWN = 10  # largest number of printed reasons for omitted clips


def arguments(p: argparse.ArgumentParser) -> None:
    """Its options."""
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


def run(args: argparse.Namespace) -> None:
    """`dfa track`: track a video, a folder of videos, or a dataset folder."""
    import time

    from ..datasets.adnerf import is_adnerf
    from ..method.tracking import track

    if Path(args.video).is_dir():
        if not is_adnerf(args.video):
            return track_folder(args)
        check_output(args.output, args.video)
        with images_of(args.video) as args.video:
            return run(args)
    check_output(args.output, args.video)
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


def track_folder(args: argparse.Namespace) -> None:
    """`dfa track FOLDER`: track each video of a folder."""
    import time

    from ..datasets.corpus import track_corpus

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
