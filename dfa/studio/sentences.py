"""Random sentences of plain English, from the grammar and the words of dfa/data/words.yaml.

They are grammatical, but many are nonsense. Their purpose is variety: some thousand words and
all phones of English, in statements, questions and requests.
"""

import re
from functools import cache
from pathlib import Path

import numpy as np
import yaml

from .voices import words_of

WORDS_FILE = Path(__file__).parents[1] / "data" / "words.yaml"
SHORTEST, LONGEST = 4, 16  # words in a sentence
FASTEST = 4  # words a second
SLOT = re.compile(r"\{(\w+?)(?:\+(\w+))?\}")  # {name} or {name+form}
FORMS = {"ed": 1, "s": 1, "ing": 2}  # place of a form that is written out: word/past/-ing


@cache
def grammar() -> dict[str, list[str]]:
    """The rules and the words of words.yaml, by name."""
    read = yaml.safe_load(WORDS_FILE.read_text("utf-8"))
    rules = {k: v if isinstance(v, list) else v.split(" | ") for k, v in read["rules"].items()}
    return rules | {name: words.split() for name, words in read["words"].items()}


def inflected(word: str, form: str | None) -> str:
    """A word of words.yaml in a form: None, or s, es, ed or ing; by spelling, if not written out.

    `carry`, ed: carried. `run/ran/running`, ing: running.
    """
    base, *irregular = word.split("/")
    place = FORMS.get(form, 0)
    if form is None or 0 < place <= len(irregular):
        return irregular[place - 1] if form else base
    if form == "ing":
        return (base[:-1] if re.search("[^eoy]e$", base) else base) + "ing"
    if re.search("[^aeiou]y$", base):
        base, e = base[:-1] + "i", "e"
    elif form == "ed":
        base, e = base.removesuffix("e"), "e"
    else:
        e = "e" * bool(re.search(r"(s|x|z|ch|sh|\bgo)$", base))
    return base + e + ("d" if form == "ed" else "s")


def expanded(rng: np.random.Generator, rule: str) -> str:
    """A rule's text with a random rule or word, again expanded, in each of its slots."""

    def fill(slot: re.Match) -> str:
        options = grammar()[slot[1]]
        return expanded(rng, inflected(options[rng.integers(len(options))], slot[2]))

    return SLOT.sub(fill, rule)


def sentence(rng: np.random.Generator) -> str:
    """A random sentence of 4 to 16 words, with its punctuation."""
    while True:
        text = expanded(rng, "{sentence}").replace("_", " ")
        text = re.sub(r"\b([Aa]) (?=[aeio]|un[^i]|um|up|hono|hour)", r"\1n ", text)
        words = words_of(text)
        if SHORTEST <= len(words) <= LONGEST and not any(
            a == b for a, b in zip(words, words[1:], strict=False)
        ):
            return text[0].upper() + text[1:]


def sentences(rng: np.random.Generator, seconds: float, avoid: set[str] = frozenset()) -> list[str]:
    """Different random sentences, none of `avoid`, enough for `seconds` of the fastest speech."""
    found: dict[str, None] = {}
    while sum(len(words_of(text)) for text in found) < FASTEST * seconds + LONGEST:
        found.setdefault(sentence(rng))
    return [text for text in found if text not in avoid]
