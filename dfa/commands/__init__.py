"""The commands of `dfa`, a file each: `TEXT`, `arguments` and `run`.

An error that the user can correct is an InputError: one line that says how.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..media import InputError, write_text
from ..profiles import SIDES

DEVICES = ("auto", "cpu", "cuda")


def side(text: str) -> int:
    """A frame side in pixels, from the command line."""
    if not text.isdigit() or int(text) not in SIDES:
        raise argparse.ArgumentTypeError(f"{text} is not an even number from 32 to 4096")
    return int(text)


def seed(text: str) -> int:
    """A seed of random numbers, from the command line."""
    if not text.isdigit() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 0 to {2**32 - 1}")
    return int(text)


@contextmanager
def images_of(folder: str) -> Iterator[Path]:
    """A temporary video of the images in a dataset folder. Errors name the folder."""
    from ..datasets.adnerf import as_video

    with tempfile.TemporaryDirectory() as scratch:
        video = as_video(folder, Path(scratch) / "images.mkv")
        try:
            yield video
        except InputError as error:
            raise InputError(str(error).replace(str(video), folder)) from error


def write_json(path: Path, value: dict) -> None:
    """Write a JSON file. Raises InputError if it cannot be written."""
    write_text(path, json.dumps(value, indent=1) + "\n")
