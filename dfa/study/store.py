"""Store the answers in SQLite: anonymous raters, complete clips only, many raters at once."""

from __future__ import annotations

import random
import secrets
import sqlite3
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from ..media import InputError
from .clips import Clip

QUESTIONS = {  # by the metric's name in table 3
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
    """The study's clips and all answers to them, in one file.

    It stores random codes, scores and the order of the clips: no names, addresses or times.

    Raises InputError if the file is no SQLite database or cannot be written.
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
                f"{path} cannot store ratings ({error}): name another file, or free space"
            ) from None

    def join(self) -> str:
        """Add a new rater; returns the code."""
        code = secrets.token_hex(4)
        with self.db:
            self.db.execute("INSERT INTO raters VALUES (?)", (code,))
        return code

    def knows(self, code: str) -> bool:
        """Whether a rater with this code exists."""
        found = self.db.execute("SELECT 1 FROM raters WHERE code = ?", (code,))
        return found.fetchone() is not None

    def order(self, code: str) -> list[Clip]:
        """All clips in this rater's random order; it is the same in each call."""
        clips = sorted(self.clips, key=lambda c: c.id)
        random.Random(code).shuffle(clips)
        return clips

    def remaining(self, code: str) -> list[Clip]:
        """The clips that this rater has not rated yet, in the rater's order."""
        done = {c for (c,) in self.db.execute("SELECT clip FROM answers WHERE rater = ?", (code,))}
        return [clip for clip in self.order(code) if clip.id not in done]

    def rate(self, code: str, clip: Clip, scores: dict[str, int]) -> None:
        """Store a rater's scores of one clip, {question: 1 to 5}, all of them or none.

        Raises ValueError if a score is missing or not 1 to 5, sqlite3.Error if the disk is full.
        """
        if set(scores) != set(QUESTIONS) or not set(scores.values()) <= {1, 2, 3, 4, 5}:
            raise ValueError(f"give scores from 1 to 5 for {', '.join(QUESTIONS)}, not {scores}")
        position = self.order(code).index(clip)
        with self.db:
            self.db.executemany(
                "INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?, ?)",
                [(code, clip.id, position, question, score) for question, score in scores.items()],
            )

    def ratings(self, code: str | None = None) -> pd.DataFrame:
        """All answers, or those of one rater, one row for each.

        Columns: rater, position, clip, method, testset, language, wanted, question, score.
        """
        query = (
            "SELECT rater, position, clip, method, testset, language, wanted, question, score"
            " FROM answers JOIN clips ON clip = id WHERE ? IN (rater, '')"
            " ORDER BY rater, position, question"
        )
        return pd.read_sql_query(query, self.db, params=(code or "",))

    def close(self) -> None:
        """Close the database."""
        self.db.close()
