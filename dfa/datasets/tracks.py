"""Attributes of a video, kept in a file: a video is tracked once."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np

from ..media import sha256
from ..method import face, tracking
from ..recipe import code_of, digest
from ..recording import Attributes


@cache
def tracker() -> str:
    """SHA-256 of the tracking code and the face model: changes if `track` may change."""
    return digest(code_of(tracking.track), sha256(face.FILE))


def tracked(
    video: str | Path, path: Path, seconds: float | None = None, identity: np.ndarray | None = None
) -> Attributes:
    """Attributes of a video. Loads `path` if it comes from the same video and tracker, else tracks.

    seconds, identity: as of `tracking.track`. Writes `path` (.npz) and its key, which is also that
    of the file. Raises InputError as `track`.
    """
    source = sha256(video), seconds, identity, tracker()
    key = lambda: digest(*source, sha256(path))  # noqa: E731
    marker = path.with_suffix(".key")
    if not (path.exists() and marker.exists() and marker.read_text() == key()):
        path.parent.mkdir(parents=True, exist_ok=True)
        tracking.track(video, seconds=seconds, identity=identity).save(path)
        marker.write_text(key())
    return Attributes.load(path)
