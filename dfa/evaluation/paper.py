"""The numbers that the paper prints in its tables, and the names of its methods."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

import pandas as pd
import yaml

KEYS = ["testset", "method", "metric"]  # columns of each long-form table
TRUTH, OURS = "Ground Truth", "DFA-NeRF"  # names and order as in the tables of the paper
RIVALS = ("ATVG", "MakeItTalk", "Wav2Lip", "LSP", "AD-NeRF")
METHODS = (*RIVALS, OURS)


def reported(table: str) -> pd.DataFrame:
    """Values of a table of the paper ("table2", ...) in columns testset, method, metric, paper.

    Testsets A and B of the paper (May, Obama2) are called subject_a and subject_b, although our
    subjects are other people. `testset` is "" if the table has none.
    """
    rows = [
        (testset, method, metric, value)
        for testset, methods in _reported()[table].items()
        for method, values in methods.items()
        for metric, value in values.items()
    ]
    frame = pd.DataFrame(rows, columns=[*KEYS, "paper"])
    names = {"testset_a": "subject_a", "testset_b": "subject_b", "all": ""}
    return frame.assign(testset=frame["testset"].map(names))


def reported_aspects() -> dict[str, dict[str, str | None]]:
    """Table 1 of the paper: {method: {aspect: entry}}, None for N/A."""
    table = _reported()["table1"]
    return {m: dict(zip(table["columns"], row, strict=True)) for m, row in table["rows"].items()}


@cache
def _reported() -> dict:
    return yaml.safe_load(files("dfa").joinpath("data/reported.yaml").read_text("utf-8"))
