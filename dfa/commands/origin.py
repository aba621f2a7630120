"""`dfa origin`."""

from __future__ import annotations

import argparse

TEXT = (
    "Show the origin of a figure, table or video in figures/: notebook, cell, parameters,"
    " seeds, commit, hashes; and what has changed since. Run it inside the repository."
)


def arguments(p: argparse.ArgumentParser) -> None:
    """Its options."""
    p.add_argument("what", help="an id such as table2, or a file under figures/")
    p.add_argument("value", nargs="?", help="a number or word in its table: print the rows with it")
    p.add_argument("--profile", default="quick", help="profile of the run")


def run(args: argparse.Namespace) -> None:
    """`dfa origin`: print the origin of a figure, table or video."""
    from ..report import origin
    from ..report.machine import root

    entry = origin.find(args.what, root(), args.profile)
    if args.value:
        print(origin.rows_of(entry, args.value, root()).to_string(index=False, na_rep="–"), "\n")
    print(origin.report(entry, root()))
