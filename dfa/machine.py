"""Where a run happens: the repo, its commit, the machine, and whether somebody is looking."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

from .media import InputError


def attended() -> bool:
    """Whether somebody looks at this notebook, or the workflow runs it alone."""
    return "DFA_WORKFLOW" not in os.environ


def root() -> Path:
    """The repo: the nearest folder from the current one upward that holds the Snakefile.

    A notebook runs with the root as its folder under papermill, with notebooks/ in JupyterLab.
    """
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "Snakefile").is_file() and (folder / "pyproject.toml").is_file():
            return folder
    raise InputError(f"{here} is not inside the dfa repo: run this from its top folder")


def commit_of(folder: Path) -> tuple[str | None, bool | None]:
    """The commit's hash, and whether anything but the artifacts differs from it."""

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=60
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    status = git("status", "--porcelain", "--", ".", ":!figures")
    return git("rev-parse", "--verify", "HEAD"), None if status is None else bool(status)


def device_name(device: str) -> str:
    """A torch device in words: the model of the GPU, or of the CPU and its cores."""
    if str(device).startswith("cuda"):
        import torch

        return torch.cuda.get_device_name(device)
    model = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    except OSError:
        pass  # not Linux
    return f"{model}, {os.cpu_count()} cores"
