"""A method of table 2 at work: it is fitted, it speaks, and its videos are written."""

from __future__ import annotations

import json
import traceback
from pathlib import Path

import numpy as np

from ..evaluation.comparison import facts_of
from ..media import atomic, write_video
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
    """Fit a method, let it speak, and write what `table2` reads.

    One video says the test part's sound, with its head motion and eyes as far as the method takes
    them; the others say `speech`, each (640 T,) by its name, and are the method's own (of those
    without own eyes: one frame of the training part speaks). What the method is, its curves and
    seconds go to `facts.json`. A method that fails leaves its reason there, which is returned: the
    others go on.
    """
    folder = Path(results) / method.name
    folder.mkdir(parents=True, exist_ok=True)
    still = subject.part(0, 1) if method.no_eyes else None
    facts, reason = facts_of(folder), None
    said = {test.name: (test.audio, test)}
    said |= {f"{test.name}.{key}": (audio, still) for key, audio in speech.items()}
    try:
        method.fit(corpus, subject)
        for name, (audio, shown) in said.items():
            frames = method.render(audio, shown, shown)
            write_video(folder / f"{name}.mp4", frames, audio, lossless=True)
        facts |= dict(aspects=method.aspects(), takes=list(method.takes),
                      no_eyes=method.no_eyes, any_size=method.any_size())  # fmt: skip
    except Exception as error:  # whatever it was, the comparison goes on without this method
        traceback.print_exc()
        reason = f"{type(error).__name__}: {error}"
        for name in said:
            (folder / f"{name}.mp4").unlink(missing_ok=True)
    for what, value in dict(failed=reason, seconds=method.seconds, curves=method.curves).items():
        facts.setdefault(what, {})[test.name] = value
    with atomic(folder / "facts.json") as part:
        part.write_text(json.dumps(facts, indent=1))
    return reason
