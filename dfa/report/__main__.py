"""`python -m dfa.report figures/PROFILE`: print table 2 and list the results of a run."""

from __future__ import annotations

import sys

from ..media import InputError
from .tables import summary


def main() -> int:
    """Print the summary. Returns the exit code: 0, or 2 for an error that the user can correct."""
    if len(sys.argv) != 2:
        print("usage: python -m dfa.report figures/PROFILE", file=sys.stderr)
        return 2
    try:
        print(summary(sys.argv[1]))
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
