"""`dfa weights`."""

from __future__ import annotations

import argparse

from ..media import InputError

TEXT = (
    "Train the package's own networks, in the repo, after a quick run: it makes hours of speech"
    " and learns from them for hours. A stopped run continues."
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
        help="of talkers; by default 72, and readers in the same proportion",
    )


def run(args: argparse.Namespace) -> None:
    """`dfa weights`: train the package's networks."""
    if args.minutes is not None and not 0 < args.minutes < 1e4:
        raise InputError(f"--minutes {args.minutes:g}: give more than 0")
    from ..shipped import ship

    ship(args.profile, args.minutes)
