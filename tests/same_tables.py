"""python tests/same_tables.py FOLDER OTHER: exit code 1 if two runs do not have the same tables."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd


def difference(one: Path, other: Path) -> str | None:
    """What differs between two tables; None if nothing does."""
    if not (one.exists() and other.exists()):
        return "is in one run only"
    a, b = pd.read_csv(one), pd.read_csv(other)
    if list(a) != list(b) or len(a) != len(b):
        return "has other columns or rows"
    for name in a:
        if a[name].dtype.kind == "f":
            same = np.isclose(a[name], b[name], rtol=1e-6, atol=1e-9, equal_nan=True).all()
        else:
            same = a[name].equals(b[name])
        if not same:
            return f"differs in {name}"
    return None


def main(folder: str, other: str) -> int:
    """Print a line for each table that differs."""
    names = sorted({t.name for f in (folder, other) for t in Path(f).glob("*.csv")})
    found = {name: difference(Path(folder) / name, Path(other) / name) for name in names}
    for name, what in found.items():
        if what:
            print(f"{name} {what}")
    bad = sum(what is not None for what in found.values())
    print(f"{len(found) - bad} of {len(found)} tables are the same")
    return int(bad > 0 or not found)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
