"""Readers: speech without faces, made in little time by eSpeak NG, for the recogniser alone.

The talkers say too few different sentences: a recogniser learns them by heart. Half of what a
reader says is words without order, which nobody can guess from the words before.
"""

import numpy as np

from ..media import FPS
from . import check_software, motion, spoken, talkers
from .sentences import FASTEST, sentence
from .speech import speak
from .voices import words_of


def words(rng: np.random.Generator) -> str:
    """4 to 9 words in random order."""
    pool = words_of(" ".join(sentence(rng) for _ in range(3)))
    return " ".join(rng.permutation(pool)[: rng.integers(4, 10)]) + "."


def read(
    index: int, seconds: float = talkers.SECONDS, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Audio (n,), 16 kHz, of reader `index`, with the (k, 2) spans in seconds and texts of what is
    read. Raises InputError if software is missing."""
    check_software("espeakng_loader")
    rng = motion.generator(f"reader_{index:03d}", "reader", seed)
    voice = talkers.voice("espeak", rng)
    texts = [(sentence if rng.random() < 0.5 else words)(rng) for _ in range(round(seconds))]
    avoided = talkers.reserved()
    texts = [text for text in texts if text not in avoided]
    spoken_before = np.cumsum([0, *(len(words_of(text)) for text in texts)])[:-1]
    needed = np.count_nonzero(spoken_before <= FASTEST * seconds)
    said = speak(texts[:needed], seconds, rng, **voice)
    found = spoken(said, round(seconds * FPS))
    return said.audio, found["sentences"], [str(text) for text in found["transcripts"]]
