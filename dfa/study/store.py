"""Answers in SQLite: who is only a code, whole clips or nothing, many raters at once."""

from __future__ import annotations

import random
import secrets
import sqlite3
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from ..media import InputError
from .clips import Clip

QUESTIONS = {  # by the names that table 3's columns have
    "sync": "How well do lips and speech go together?",
    "head_movement": "How natural is the movement of the head?",
    "eye_blink": "How natural is the blinking of the eyes?",
    "realness": "How real does the picture look?",
}
SCALE = ("bad", "poor", "fair", "good", "excellent")  # 1 to 5, as in ITU-T P.800
SCHEMA = """
CREATE TABLE IF NOT EXISTS clips (
    id TEXT PRIMARY KEY, method TEXT, testset TEXT, language TEXT, wanted INTEGER);
CREATE TABLE IF NOT EXISTS raters (code TEXT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS answers (
    rater TEXT REFERENCES raters, clip TEXT REFERENCES clips, position INTEGER, question TEXT,
    score INTEGER CHECK (score BETWEEN 1 AND 5), PRIMARY KEY (rater, clip, question));
"""


class Store:
    """The study's clips and everybody's answers to them, in one file.

    It keeps a random code, scores, and the order of the clips: no name, address or time.
    InputError where the file is no SQLite database or cannot be written.
    """

    def __init__(self, path: str | Path, clips: Iterable[Clip]) -> None:
        self.path, self.clips = Path(path), list(clips)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self.db = sqlite3.connect(self.path, timeout=30)
            self.db.executescript(SCHEMA)
            with self.db:
                rows = [(c.id, c.method, c.testset, c.language, c.wanted) for c in self.clips]
                self.db.executemany("INSERT OR IGNORE INTO clips VALUES (?, ?, ?, ?, ?)", rows)
        except sqlite3.Error as error:
            raise InputError(
                f"{path} cannot keep ratings ({error}): name another file, or free space"
            ) from None

    def join(self) -> str:
        """A new rater's code."""
        code = secrets.token_hex(4)
        with self.db:
            self.db.execute("INSERT INTO raters VALUES (?)", (code,))
        return code

    def knows(self, code: str) -> bool:
        """Whether somebody has been given this code."""
        found = self.db.execute("SELECT 1 FROM raters WHERE code = ?", (code,))
        return found.fetchone() is not None

    def order(self, code: str) -> list[Clip]:
        """All clips in this rater's own random order, the same whenever it is asked for."""
        clips = sorted(self.clips, key=lambda c: c.id)
        random.Random(code).shuffle(clips)
        return clips

    def remaining(self, code: str) -> list[Clip]:
        """What this rater has not rated yet, in order."""
        done = {c for (c,) in self.db.execute("SELECT clip FROM answers WHERE rater = ?", (code,))}
        return [clip for clip in self.order(code) if clip.id not in done]

    def rate(self, code: str, clip: Clip, scores: dict[str, int]) -> None:
        """Keep a rater's scores of one clip, one for each question, all or none of them.

        Raises ValueError where one is missing or not 1 to 5, sqlite3.Error where the disk is full.
        """
        if set(scores) != set(QUESTIONS) or not set(scores.values()) <= {1, 2, 3, 4, 5}:
            raise ValueError(f"scores from 1 to 5 for {', '.join(QUESTIONS)}: not {scores}")
        position = self.order(code).index(clip)
        with self.db:
            self.db.executemany(
                "INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?, ?)",
                [(code, clip.id, position, question, score) for question, score in scores.items()],
            )

    def ratings(self, code: str | None = None) -> pd.DataFrame:
        """Everybody's answers, or one rater's, a row each: rater, position, clip, method, testset,
        language, wanted, question, score."""
        query = (
            "SELECT rater, position, clip, method, testset, language, wanted, question, score"
            " FROM answers JOIN clips ON clip = id WHERE ? IN (rater, '')"
            " ORDER BY rater, position, question"
        )
        return pd.read_sql_query(query, self.db, params=(code or "",))

    def close(self) -> None:
        self.db.close()
