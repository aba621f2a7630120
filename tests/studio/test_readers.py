"""Readers: much speech for the recogniser, by eSpeak NG."""

import numpy as np
import pytest

pytest.importorskip("espeakng_loader")
pytest.importorskip("pypinyin")

from dfa.rivals.recogniser import ALPHABET
from dfa.studio import readers, talkers


def test_a_reader_says_its_texts_at_their_times():
    audio, spans, texts = readers.read(3, 12.0)
    again = readers.read(3, 12.0)
    assert np.array_equal(audio, again[0]) and texts == again[2]
    assert not np.array_equal(audio, readers.read(4, 12.0)[0])
    assert len(audio) == 12 * 16_000 and len(spans) == len(texts) >= 2
    assert set("".join(texts)) <= set(ALPHABET) and not set(texts) & talkers.reserved()
    loud = np.abs(audio).reshape(-1, 160).max(1) > 1e-3  # of 10 ms
    inside = np.zeros(len(loud), bool)
    for start, end in np.round(spans * 100).astype(int):
        inside[start:end] = True
    last = int(spans[-1, 1] * 100)  # a sentence that was cut has no span
    assert loud[inside].mean() > 0.7 and loud[:last][~inside[:last]].mean() < 0.1


def test_words_have_no_order_but_are_words():
    rng = np.random.default_rng(0)
    spoken = [readers.words(rng).rstrip(".").split() for _ in range(50)]
    assert all(4 <= len(words) <= 9 for words in spoken)
    firsts = {words[0] for words in spoken}
    assert len(firsts) > 30  # in sentences few words begin
