"""Run a method of table 2: fit it, render its videos and write them."""

from __future__ import annotations

import json
import traceback
from pathlib import Path

import numpy as np

from ..evaluation.comparison import facts_of
from ..media import write_text, write_video
from ..recording import Recording
from .method import Method


def perform(
    method: Method,
    corpus: list[Recording],
    subject: Recording,
    test: Recording,
    speech: dict[str, np.ndarray],
    results: Path,
) -> str | None:
    """Fit a method, render its videos and write them where `comparison.table2` reads them.

    Args:
        method: to be fitted on `corpus` or on `subject`, the training recording.
        test: the test recording. One video speaks its audio and follows its head motion and eyes,
            if the method takes them. The videos have the size of its frames; only a method that
            renders any size may be fitted at another one.
        speech: {name: audio (640 T,)}. One more video for each, with the method's own head motion
            and eyes. A method without eyes animates the first training frame.
        results: the results folder.

    Each video has its own seed: with one seed, all would have the same blinks and head motion. The
    method's properties, training curves and seconds are written to `facts.json`. If the method
    fails, its videos are removed, the reason is written there too and returned; else None. Nothing
    is raised, so that the comparison continues with the other methods.
    """
    folder = Path(results) / method.name
    folder.mkdir(parents=True, exist_ok=True)
    still = subject.part(0, 1) if method.no_eyes else None
    facts, reason, seed = facts_of(folder), None, method.seed
    videos = {test.name: (test.audio, test)}
    videos |= {f"{test.name}.{key}": (audio, still) for key, audio in speech.items()}
    size = dict(size=test.frames.shape[1]) if method.any_size() else {}
    try:
        method.fit(corpus, subject)
        for k, (name, (audio, source)) in enumerate(videos.items()):
            method.seed = seed + k
            frames = method.render(audio, source, source, **size)
            write_video(folder / f"{name}.mp4", frames, audio, lossless=True)
        facts |= dict(aspects=method.aspects(), takes=list(method.takes),
                      no_eyes=method.no_eyes, any_size=method.any_size())  # fmt: skip
    except Exception as error:  # any error: the comparison continues without this method
        traceback.print_exc()
        reason = f"{type(error).__name__}: {error}"
        for name in videos:
            (folder / f"{name}.mp4").unlink(missing_ok=True)
    method.seed = seed
    for what, value in dict(failed=reason, seconds=method.seconds, curves=method.curves).items():
        facts.setdefault(what, {})[test.name] = value
    write_text(folder / "facts.json", json.dumps(facts, indent=1))
    return reason
