"""`dfa weights`."""

from __future__ import annotations

import argparse

from ..media import InputError

TEXT = (
    "Train the package's own networks, in the repo, after a quick run: it makes hours of speech"
    " and learns from them for hours, four on two cores. A stopped run continues. It writes over"
    " dfa/data/weights, except with --profile smoke. It needs the extra `studio`, and flite."
)


def arguments(p: argparse.ArgumentParser) -> None:
    """Its options."""
    p.add_argument(
        "--profile",
        default="quick",
        help="whose tracks are used; smoke is a miniature, written beside its run",
    )
    p.add_argument(
        "--minutes",
        type=float,
        help="of talkers to make, 72 by default, and readers in proportion; the number of training"
        " steps does not change",
    )


def run(args: argparse.Namespace) -> None:
    """`dfa weights`: train the package's networks."""
    if args.minutes is not None and not 0 < args.minutes < 1e4:
        raise InputError(f"--minutes {args.minutes:g}: give more than 0 and less than 10000")
    from ..shipped import ship

    ship(args.profile, args.minutes)
