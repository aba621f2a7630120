"""What ratings say: mean opinion scores, how far raters agree, and whether two methods differ."""

from __future__ import annotations

import krippendorff
import numpy as np
import pandas as pd
from scipy.stats import false_discovery_control, wilcoxon

from ..evaluation.statistics import interval
from ..paper import METHODS, OURS, reported
from .store import QUESTIONS


def attentive(ratings: pd.DataFrame) -> pd.DataFrame:
    """The ratings, without the checks, of those who rated all clips, as many as anybody did, and
    did in every check what it asked for."""
    checks = ratings[ratings.wanted > 0]
    failed = set(checks.rater[checks.score != checks.wanted])
    done = ratings.groupby("rater")["clip"].nunique()
    whole = set(done.index[done == done.max()])
    kept = ratings.rater.isin(whole - failed) & (ratings.wanted == 0)
    return ratings[kept].reset_index(drop=True)


def by_rater(ratings: pd.DataFrame, question: str, method: str | None = None) -> pd.DataFrame:
    """Scores of a question, (raters, clips): of one method's clips, named by testset and language
    and so comparable between methods, or of all."""
    rows = ratings[ratings.question == question]
    if method is None:
        return rows.pivot(index="rater", columns="clip", values="score")
    rows = rows[rows.method == method]
    return rows.pivot(index="rater", columns=["testset", "language"], values="score")


def table3(ratings: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Table 3: mean opinion scores beside the paper's, long-form, with 95 % bootstrap intervals
    over raters and over clips. Nobody's ratings give empty values."""
    rows = []
    for method in METHODS:
        for question in QUESTIONS:
            scores, row = by_rater(ratings, question, method), {}
            if scores.size:
                value, low, high = interval(scores.to_numpy(float), seed)
                row = dict(value=value, ci_low=low, ci_high=high, n=int(scores.count().sum()))
            rows.append(dict(testset="", method=method, metric=question) | row)
    columns = ["testset", "method", "metric", "value", "ci_low", "ci_high", "n"]
    table = pd.DataFrame(rows).reindex(columns=columns)
    return table.merge(reported("table3"), how="left", on=["testset", "method", "metric"])


def agreement(ratings: pd.DataFrame) -> dict[str, float]:
    """Krippendorff's alpha for ordinal scores, by question: 1 is full agreement, 0 what chance
    gives; nan where a single rater or a single score leaves nothing to agree on."""
    alphas = {}
    for question in QUESTIONS:
        scores = by_rater(ratings, question).to_numpy(float)
        many = len(scores) > 1 and len(np.unique(scores[np.isfinite(scores)])) > 1
        alphas[question] = (
            float(krippendorff.alpha(scores, level_of_measurement="ordinal")) if many else np.nan
        )
    return alphas


def paired(ratings: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """DFA-NeRF against each other method, question by question.

    A rater's difference is the mean over the sentences that both methods say. Wilcoxon's signed
    ranks over raters; q is p corrected for all comparisons at once (Benjamini and Hochberg 1995).
    Columns: question, method, difference, ci_low, ci_high, p, q, n.
    """
    rows = []
    for question in QUESTIONS:
        ours = by_rater(ratings, question, OURS)
        for method in [m for m in METHODS if m != OURS]:
            apart = (ours - by_rater(ratings, question, method)).mean(axis=1).dropna().to_numpy()
            apart = apart.round(9)  # equal ranks stay equal
            if len(apart):
                value, low, high = interval(apart, seed)
                p = wilcoxon(apart).pvalue if apart.any() else 1.0
                rows.append((question, method, value, low, high, p, len(apart)))
    columns = ["question", "method", "difference", "ci_low", "ci_high", "p", "n"]
    table = pd.DataFrame(rows, columns=columns)
    q = false_discovery_control(table.p) if len(table) else []
    table.insert(6, "q", q)
    return table
