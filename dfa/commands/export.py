"""`dfa export`."""

from __future__ import annotations

import argparse

TEXT = "Make a dataset folder for AD-NeRF, RAD-NeRF, ER-NeRF or SyncTalk, without BFM."


def arguments(p: argparse.ArgumentParser) -> None:
    """Its options."""
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


def run(args: argparse.Namespace) -> None:
    """`dfa export`: write a dataset folder for methods of the AD-NeRF family."""
    from ..datasets.export import write_adnerf
    from ..recording import Attributes

    attributes = Attributes.load(args.attributes) if args.attributes else None
    n = write_adnerf(args.video, args.output, size=args.size, attributes=attributes, aud=args.aud)
    print(f"{args.output}: {n} frames of {args.size}x{args.size}; see its README.txt")
