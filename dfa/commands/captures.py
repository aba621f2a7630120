"""`dfa captures`."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..media import InputError

TEXT = (
    "Make the sample captures of synthetic actors again: NAME.mp4 and NAME.npz; of a test subject"
    " also NAME.test and NAME_views; of some NAME_unseen.flac. It needs the extra `studio`, and"
    " corpus_01 flite."
)


def arguments(p: argparse.ArgumentParser) -> None:
    """Its options."""
    p.add_argument("names", nargs="*", help="for example subject_a corpus_03; by default all")
    p.add_argument("-o", "--output", default="captures", help="folder to write to")
    p.add_argument("--seconds", type=float, help="only so much of the beginning, and no views")


def run(args: argparse.Namespace) -> None:
    """`dfa captures`: make the sample captures again."""
    from ..captures import NAMES

    unknown = set(args.names) - set(NAMES)
    if unknown:
        raise InputError(
            f"no capture called {', '.join(sorted(unknown))}; there are: {', '.join(NAMES)}"
            " (a second recording and the views are made with the first)"
        )
    from ..studio import make

    try:
        Path(args.output).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        what = f"cannot make the folder {args.output}: {error.strerror}"
        raise InputError(f"{what}; choose another") from error
    make(args.names or NAMES, Path(args.output), seconds=args.seconds)
