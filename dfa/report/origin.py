"""Find what made a figure, table, video or number, and what has changed since then."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pandas as pd

from ..media import InputError, sha256
from .provenance import manifest


def find(what: str, root: Path, profile: str = "quick") -> dict:
    """The manifest's entry of an artifact.

    Args:
        what: its id, or the path or name of a file under figures/.
        root: of the repo. profile: whose manifest; a path decides for itself.

    For an executed notebook, this is its latest entry with the outputs and inputs of all entries.
    Raises InputError if there is none, with similar ids.
    """
    path = Path(what)
    if path.suffix and path.is_file() and path.resolve().is_relative_to(root / "figures"):
        profile = path.resolve().relative_to(root / "figures").parts[0]
    entries = manifest(root / "figures" / profile)
    if not entries:
        raise InputError(f"figures/{profile} has no manifest.json: run `make figures` first")
    for entry in entries:
        if what == entry["id"] or path.name in (Path(output).name for output in entry["outputs"]):
            return entry
    if whole := [entry for entry in entries if path.name == f"{entry['notebook']}.ipynb"]:
        latest = max(whole, key=lambda entry: entry["created"])
        both = {kind: {k: v for entry in whole for k, v in entry[kind].items()}
                for kind in ("outputs", "inputs")}  # fmt: skip
        return latest | both | dict(id=path.name, paper=None, cell=None)
    alike = [e["id"] for e in entries if what.lower()[:4] in e["id"].lower()]
    hint = f"one of {', '.join(alike or [e['id'] for e in entries])}"
    raise InputError(f"figures/{profile}/manifest.json has no {what}: name {hint}")


def out_of_step(entries: list[dict], root: Path) -> list[str]:
    """The outputs in a manifest that are missing or have changed, one line for each."""
    states = {path: state(path, digest, root) for e in entries for path, digest in
              e["outputs"].items()}  # fmt: skip
    return [f"{path}: {found}" for path, found in states.items() if found != "same"]


def rows_of(entry: dict, value: str, root: Path) -> pd.DataFrame:
    """The rows of an entry's .csv that contain a value.

    value: a word, or a number; cells are rounded to as many decimals. Raises InputError if the
    entry has no .csv or no row contains the value.
    """
    path = next((root / p for p in entry["outputs"] if p.endswith(".csv")), None)
    if path is None or not path.exists():
        raise InputError(f"{entry['id']} has no .csv here: a value cannot be looked up in it")
    table = pd.read_csv(path)
    digits = len(value.partition(".")[2])

    def matches(cell: object) -> bool:
        return value == (f"{cell:.{digits}f}" if isinstance(cell, float) else str(cell))

    found = table[table.map(matches).any(axis=1)]
    if found.empty:
        raise InputError(f"nothing in {path.relative_to(root)} reads {value}")
    return found


def state(path: str, digest: str, root: Path) -> str:
    """Compare a file with its recorded SHA-256: "same", "CHANGED" or "not here"."""
    if not (root / path).is_file():
        return "not here"
    return "same" if sha256(root / path) == digest else "CHANGED"


def code_changed(entry: dict, root: Path) -> list[str] | None:
    """The notebook and modules that differ from the entry's commit.

    None if git does not have that commit.
    """
    if not entry["commit"]:
        return None
    command = ["git", "diff", "--name-only", entry["commit"], "--", "dfa/*.py"]
    command.append(f"notebooks/{entry['notebook']}.ipynb")
    try:
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.split() if done.returncode == 0 else None


def report(entry: dict, root: Path) -> str:
    """An entry of the manifest as text for a terminal, with the state of its files."""
    profile, changed = entry["parameters"]["profile"], code_changed(entry, root)
    cell = "all of it" if entry["cell"] is None else f"cell [{entry['cell']}]"
    facts = {
        "what": entry["id"] + (f", the paper's {entry['paper']}" if entry["paper"] else ""),
        "made by": f"notebooks/{entry['notebook']}.ipynb, {cell}",
        "executed": f"figures/{profile}/notebooks/{entry['notebook']}.ipynb",
        "parameters": ", ".join(f"{k} {v}" for k, v in entry["parameters"].items()),
        "seeds": ", ".join(map(str, entry["seeds"])),
        "commit": f"{entry['commit'] or 'none'}{', with changes on top' * bool(entry['dirty'])}",
        "machine": entry["device"],
        "when": f"{entry['created']}, {entry['wall_s']} s after its notebook began",
    }
    lines = [f"{key:11}{text}" for key, text in facts.items()]
    for kind in ("outputs", "inputs"):
        lines.append(kind)
        lines += [f"  {digest[:12]}  {state(path, digest, root):8}  {path}"
                  for path, digest in entry[kind].items()]  # fmt: skip
    if changed is None:
        lines.append("code since  unknown: its commit is not here")
    else:
        lines.append(f"code since  {'CHANGED: ' + ', '.join(changed) if changed else 'same'}")
    return "\n".join(lines)
