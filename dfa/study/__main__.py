"""`python -m dfa.study [PROFILE]`: the page of notebook 11, and nothing else of it, by Voilà."""

from __future__ import annotations

import json
import os
import sys

from ..machine import root
from ..media import InputError, atomic


def page(profile: str) -> str:
    """Writes a notebook of the cells that are tagged `page`, and returns its path."""
    source = root() / "notebooks" / "11_user_study.ipynb"
    folder = root() / "runs" / profile / "study"
    if not (root() / "runs" / profile / "results").is_dir():
        raise InputError(f"there are no videos of profile {profile} yet: `make figures` makes them")
    notebook = json.loads(source.read_text("utf-8"))
    cells = [c for c in notebook["cells"] if "page" in c["metadata"].get("tags", [])]
    for cell in cells:
        if "parameters" in cell["metadata"]["tags"]:
            cell["source"] = ["".join(cell["source"]), f'\nprofile = "{profile}"']
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "page.ipynb"
    with atomic(path) as part:
        part.write_text(json.dumps(notebook | {"cells": cells}), "utf-8")
    return str(path)


def main() -> None:
    profile, *options = sys.argv[1:] or ["quick"]
    try:
        path = page(profile)
    except InputError as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from None
    # Voilà's page would load an icon font and MathJax from elsewhere, and tell who rates.
    policy = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob: ws: wss:"
    headers = {"headers": {"Content-Security-Policy": policy}}
    command = ["-m", "voila", path, "--show_tracebacks=False", "--theme=light"]
    command += [f"--Voila.tornado_settings={headers}", *options]
    os.execv(sys.executable, [sys.executable, *command])


if __name__ == "__main__":
    main()
