"""Readers: much speech for the recogniser, by eSpeak NG."""

import numpy as np
import pytest

pytest.importorskip("espeakng_loader")
pytest.importorskip("pypinyin")

from dfa.rivals.recogniser import ALPHABET
from dfa.studio import readers, speech, talkers


def test_a_reader_says_its_texts_at_their_times():
    audio, spans, texts = readers.read(3, 12.0)
    again = readers.read(3, 12.0)
    assert np.array_equal(audio, again[0]) and texts == again[2]
    assert not np.array_equal(audio, readers.read(4, 12.0)[0])
    assert len(audio) == 12 * 16_000 and len(spans) == len(texts) >= 2
    assert set("".join(texts)) <= set(ALPHABET)
    loud = np.abs(audio).reshape(-1, 160).max(1) > 1e-3  # of 10 ms
    inside = np.zeros(len(loud), bool)
    for start, end in np.round(spans * 100).astype(int):
        inside[start:end] = True
    last = int(spans[-1, 1] * 100)  # a sentence that was cut has no span
    assert loud[inside].mean() > 0.7 and loud[:last][~inside[:last]].mean() < 0.1


def test_a_reader_says_nothing_that_tests_use(monkeypatch):
    """A sentence that it would say is left out if a test subject says it."""
    asked, speak = [], readers.speak

    def heard(texts, *rest, **voice):
        asked.append(list(texts))
        return speak(texts, *rest, **voice)

    monkeypatch.setattr(readers, "speak", heard)
    readers.read(3, 12.0)
    monkeypatch.setattr(talkers, "reserved", lambda: {asked[0][1]})
    texts = readers.read(3, 12.0)[2]
    assert asked[0][1] not in asked[1] and asked[0][0] in asked[1]
    assert speech.letters(asked[0][1]) not in texts


def test_words_have_no_order_but_are_words():
    rng = np.random.default_rng(0)
    spoken = [readers.words(rng).rstrip(".").split() for _ in range(50)]
    assert all(4 <= len(words) <= 9 for words in spoken)
    firsts = {words[0] for words in spoken}
    assert len(firsts) > 30  # in sentences few words begin
