"""Random sentences: from one seed always the same, in the aligner's dictionary, new."""

import re

import numpy as np
import pytest

from dfa.media import SAMPLE_RATE
from dfa.studio import sentences
from dfa.studio.voices import words_of


def drawn(seed: int, n: int) -> list[str]:
    rng = np.random.default_rng(seed)
    return [sentences.sentence(rng) for _ in range(n)]


def all_words() -> set[str]:
    """Every word that a sentence can contain: of the rules, and of the words in each form used."""
    texts = [option for options in sentences.grammar().values() for option in options]
    slots = {slot for text in texts for slot in sentences.SLOT.findall(text)}
    found = {"an"}
    for name, form in slots:
        for option in sentences.grammar()[name]:
            if "{" not in option:
                found.update(words_of(sentences.inflected(option, form or None).replace("_", " ")))
            else:
                assert not form, f"a form of the rule {name}"
                found.update(words_of(sentences.SLOT.sub(" ", option)))
    return found


def test_every_word_can_be_aligned():
    pocketsphinx = pytest.importorskip("pocketsphinx")
    decoder = pocketsphinx.Decoder(samprate=SAMPLE_RATE, lm=None, loglevel="FATAL")
    words = all_words()
    assert not [word for word in sorted(words) if decoder.lookup_word(word) is None]
    assert len(words) > 2000
    phones = {p for word in words for p in decoder.lookup_word(word).split()}
    assert len(phones) == 39  # all of CMU's


def test_a_seed_gives_the_same_sentences_and_they_differ():
    texts = drawn(3, 1000)
    assert texts == drawn(3, 1000)
    assert len({*texts}) > 980
    assert len({*texts} & {*drawn(4, 1000)}) < 20
    assert all(4 <= len(words_of(text)) <= 16 for text in texts)
    assert all(re.fullmatch(r"[A-Z][A-Za-z' ,]*[.?!]", text) for text in texts)
    assert 0.05 < np.mean([text.endswith("?") for text in texts]) < 0.3
    assert not any(re.search(r"\b[Aa] [aeio]", text) for text in texts)


def test_sentences_to_be_avoided_are_left_out():
    rng = lambda: np.random.default_rng(0)  # noqa: E731
    whole = sentences.sentences(rng(), 30)
    kept = sentences.sentences(rng(), 30, {whole[2]})
    assert kept == whole[:2] + whole[3:]
    assert sum(len(words_of(text)) for text in whole) >= 4 * 30


@pytest.mark.parametrize(
    "word, form, expected",
    [
        ("carry", "ed", "carried"), ("play", "ed", "played"), ("bake", "ed", "baked"),
        ("run/ran/running", "ing", "running"), ("run/ran/running", "ed", "ran"),
        ("run/ran/running", "es", "runs"), ("write/wrote", "ing", "writing"),
        ("see/saw", "ing", "seeing"),
        ("wish", "es", "wishes"), ("go/went", "es", "goes"), ("box", "s", "boxes"),
        ("mouse/mice", "s", "mice"), ("mouse/mice", None, "mouse"), ("piano", "s", "pianos"),
    ],
)  # fmt: skip
def test_forms(word, form, expected):
    assert sentences.inflected(word, form) == expected
