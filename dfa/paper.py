"""What the paper prints: its tables, its claims, the names in them."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

import pandas as pd
import yaml

KEYS = ["testset", "method", "metric"]  # of every long-form table
TRUTH, OURS = "Ground Truth", "DFA-NeRF"  # as the paper's tables have them, in its order
RIVALS = ("ATVG", "MakeItTalk", "Wav2Lip", "LSP", "AD-NeRF")
METHODS = (*RIVALS, OURS)


def reported(table: str) -> pd.DataFrame:
    """What the paper prints in `table` ("table2", ...), long-form: testset, method, metric, paper.

    The paper's testsets A and B (May, Obama2) stand beside our subject_a and subject_b: alike in
    role, not in data. Where a table names no testset, `testset` is "".
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
    """The paper's table 1: {method: {aspect: what it says}}, None where it prints N/A."""
    table = _reported()["table1"]
    return {m: dict(zip(table["columns"], row, strict=True)) for m, row in table["rows"].items()}


@cache
def _reported() -> dict:
    return yaml.safe_load(files("dfa").joinpath("data/reported.yaml").read_text("utf-8"))
