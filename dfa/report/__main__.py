"""`python -m dfa.report figures/PROFILE`: what a run left there, and how long it took."""

from __future__ import annotations

import sys

from ..media import InputError
from .tables import summary


def main() -> int:
    """Print it; the exit code: 0, or 2 for an error that the user can mend."""
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
