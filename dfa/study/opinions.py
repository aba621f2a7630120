"""Analysis of the ratings: mean opinion scores, agreement of raters, differences of methods."""

from __future__ import annotations

import krippendorff
import numpy as np
import pandas as pd
from scipy.stats import false_discovery_control, wilcoxon

from ..evaluation.paper import METHODS, OURS, reported
from ..evaluation.statistics import estimate, interval
from .store import QUESTIONS


def attentive(ratings: pd.DataFrame) -> pd.DataFrame:
    """The ratings of raters who rated all clips and passed every attention check.

    "All" is the largest number of clips that a rater has rated. The ratings of the checks
    themselves are left out. ratings: a table of `Store.ratings`.
    """
    checks = ratings[ratings.wanted > 0]
    failed = set(checks.rater[checks.score != checks.wanted])
    done = ratings.groupby("rater")["clip"].nunique()
    complete = set(done.index[done == done.max()])
    kept = ratings.rater.isin(complete - failed) & (ratings.wanted == 0)
    return ratings[kept].reset_index(drop=True)


def by_rater(ratings: pd.DataFrame, question: str, method: str | None = None) -> pd.DataFrame:
    """The scores of a question as a table (raters, clips).

    With `method`, only its clips; the columns are (testset, language), so the tables of two methods
    can be compared.
    """
    rows = ratings[ratings.question == question]
    if method is None:
        return rows.pivot(index="rater", columns="clip", values="score")
    rows = rows[rows.method == method]
    return rows.pivot(index="rater", columns=["testset", "language"], values="score")


def table3(ratings: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Table 3: mean opinion scores beside the paper's, in long form.

    Intervals are 95 % bootstrap intervals over raters and clips. Without ratings the values are
    empty.
    """
    rows = []
    for method in METHODS:
        for question in QUESTIONS:
            scores, row = by_rater(ratings, question, method), {}
            if scores.size:
                row = estimate(scores.to_numpy(float), seed)
            rows.append(dict(testset="", method=method, metric=question) | row)
    columns = ["testset", "method", "metric", "value", "ci_low", "ci_high", "n"]
    table = pd.DataFrame(rows).reindex(columns=columns)
    return table.merge(reported("table3"), how="left", on=["testset", "method", "metric"])


def agreement(ratings: pd.DataFrame) -> dict[str, float]:
    """Krippendorff's alpha for ordinal scores, by question: 1 is full agreement, 0 is chance.

    nan if there is only one rater, or all scores are the same.
    """
    alphas = {}
    for question in QUESTIONS:
        scores = by_rater(ratings, question).to_numpy(float)
        defined = len(scores) > 1 and len(np.unique(scores[np.isfinite(scores)])) > 1
        alphas[question] = (
            float(krippendorff.alpha(scores, level_of_measurement="ordinal")) if defined else np.nan
        )
    return alphas


def paired(ratings: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """DFA-NeRF compared with each other method, for each question.

    A rater's difference is the mean over the clips of both methods. p is from Wilcoxon's
    signed-rank test over raters; q is p corrected for all comparisons (Benjamini and Hochberg
    1995). Columns: question, method, difference, ci_low, ci_high, p, q, n (raters).
    """
    rows = []
    for question in QUESTIONS:
        ours = by_rater(ratings, question, OURS)
        for method in [m for m in METHODS if m != OURS]:
            difference = (ours - by_rater(ratings, question, method)).mean(axis=1)  # (raters,)
            difference = difference.dropna().to_numpy().round(9)  # rounded: ties stay ties
            if len(difference):
                value, low, high = interval(difference, seed)
                p = wilcoxon(difference).pvalue if difference.any() else 1.0
                rows.append((question, method, value, low, high, p, len(difference)))
    columns = ["question", "method", "difference", "ci_low", "ci_high", "p", "n"]
    table = pd.DataFrame(rows, columns=columns)
    q = false_discovery_control(table.p) if len(table) else []
    table.insert(6, "q", q)
    return table
