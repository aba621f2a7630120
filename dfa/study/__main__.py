"""`python -m dfa.study [PROFILE]`: serve the rating page of notebook 11 with Voilà."""

from __future__ import annotations

import json
import os
import sys

from ..media import InputError, write_text
from ..report.machine import root


def page(profile: str) -> str:
    """Write a notebook with the cells tagged `page` of notebook 11; returns its path.

    Raises InputError if the profile has no videos yet.
    """
    source = root() / "notebooks" / "11_user_study.ipynb"
    folder = root() / "runs" / profile / "study"
    if not (root() / "runs" / profile / "results").is_dir():
        raise InputError(f"profile {profile} has no videos yet: run `make figures` first")
    notebook = json.loads(source.read_text("utf-8"))
    cells = [c for c in notebook["cells"] if "page" in c["metadata"].get("tags", [])]
    for cell in cells:
        if "parameters" in cell["metadata"]["tags"]:
            cell["source"] = ["".join(cell["source"]), f'\nprofile = "{profile}"']
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "page.ipynb"
    write_text(path, json.dumps(notebook | {"cells": cells}))
    return str(path)


def main() -> None:
    """Serve the page. Exits with 2 if there are no videos."""
    profile, *options = sys.argv[1:] or ["quick"]
    try:
        path = page(profile)
    except InputError as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from None
    # Without this policy, Voilà's page loads an icon font and MathJax from other servers, which
    # would then know the rater's address.
    policy = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob: ws: wss:"
    headers = {"headers": {"Content-Security-Policy": policy}}
    command = ["-m", "voila", path, "--show_tracebacks=False", "--theme=light"]
    command += [f"--Voila.tornado_settings={headers}", *options]
    os.execv(sys.executable, [sys.executable, *command])


if __name__ == "__main__":
    main()
