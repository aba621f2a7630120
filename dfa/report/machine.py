"""The environment of a run: repository, commit, device, interactive or not."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

from ..media import InputError


def attended() -> bool:
    """True if a person runs this notebook, False if the workflow does."""
    return "DFA_WORKFLOW" not in os.environ


def root() -> Path:
    """The folder of the repository: the current folder or the nearest one above with a Snakefile.

    The current folder of a notebook is the root under papermill, notebooks/ in JupyterLab. Raises
    InputError outside the repository.
    """
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "Snakefile").is_file() and (folder / "pyproject.toml").is_file():
            return folder
    raise InputError(f"{here} is not inside the dfa repo: run this from its top folder")


def commit_of(folder: Path) -> tuple[str | None, bool | None]:
    """Hash of the current commit, and whether files outside figures/ differ; None without git."""

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
    """Name of a torch device: model of the GPU, or model of the CPU and its number of cores."""
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
