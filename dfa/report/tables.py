"""Print long-form tables in the paper's layout."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from ..captures import SAMPLES
from ..evaluation.metrics import METRICS, Metric
from ..evaluation.paper import KEYS
from ..media import InputError

COLUMNS = [*KEYS, "paper", "value", "ci_low", "ci_high", "n"]  # columns of a long-form table


def long_form(table: pd.DataFrame) -> pd.DataFrame:
    """`table` with all columns of `COLUMNS`, in order; `protocol`, if given, follows testset.

    Raises ValueError if keys or `value` are missing, a column is unknown or a row occurs twice.
    """
    optional = {"protocol", *COLUMNS}
    missing = {*KEYS, "value"} - set(table.columns)
    unknown = set(table.columns) - optional
    if missing or unknown:
        raise ValueError(
            f"a long-form table lacks {sorted(missing)} and has unknown {sorted(unknown)}"
        )
    keys = ["testset", "protocol", "method", "metric"] if "protocol" in table else KEYS
    table = table.reindex(columns=[*keys, *COLUMNS[len(KEYS) :]])
    twice = table[table.duplicated(keys)]
    if len(twice):
        raise ValueError(f"a long-form table has a row twice: {twice[keys].iloc[0].to_dict()}")
    return table.assign(n=table["n"].astype("Int64")).reset_index(drop=True)


def wide(table: pd.DataFrame) -> pd.DataFrame:
    """A long-form table in the paper's layout: strings, one row for each method, order kept.

    Columns are (metric, "ours"), such as "31.20 [30.81, 31.60]", and (metric, "paper") if the paper
    has a value. The index is testset, protocol (if there is one) and method. Raises ValueError as
    `long_form` does.
    """
    table = long_form(table)
    index = [key for key in ("testset", "protocol", "method") if key in table]
    table = table.assign(testset=table["testset"].fillna(""))
    rows = list(dict.fromkeys(map(tuple, table[index].to_numpy())))
    rows = sorted(rows, key=lambda row: [r[:-1] for r in rows].index(row[:-1]))
    cells: dict[tuple, dict] = {}
    for metric, part in table.groupby("metric", sort=False):
        row_of = METRICS.get(metric, Metric(metric))
        name, digits = row_of.label, row_of.digits
        for _, row in part.iterrows():
            key = tuple(row[k] for k in index)
            if part["paper"].notna().any():
                cells.setdefault((name, "paper"), {})[key] = _number(row["paper"], digits)
            ours = _number(row["value"], digits)
            if pd.notna(row["value"]) and pd.notna(row["ci_low"]):
                low, high = _number(row["ci_low"], digits), _number(row["ci_high"], digits)
                ours += f" [{low}, {high}]"
            cells.setdefault((name, "ours"), {})[key] = ours
    return pd.DataFrame(
        [[column.get(row, "–") for column in cells.values()] for row in rows],
        index=pd.MultiIndex.from_tuples(rows, names=index),
        columns=pd.MultiIndex.from_tuples(list(cells)),
    )


def _number(value: float, digits: int | None) -> str:
    if pd.isna(value):
        return "–"
    return f"{value:.3g}" if digits is None else f"{value:.{digits}f}"


def summary(folder: str | Path) -> str:
    """Table 2 and a list of all results of figures/<profile>, as text for a terminal.

    Raises InputError if there is no table 2.
    """
    folder = Path(folder)
    path = folder / "tables" / "table2.csv"
    if not path.exists():
        raise InputError(f"{path} does not exist: run `make figures` first")
    lines = [f"\nTable 2 · profile {folder.name} · {SAMPLES}"]
    table = pd.read_csv(path)
    for testset, part in table.groupby("testset", sort=False):
        # one line for the paper and one for ours, so that it fits into 100 columns
        printed = wide(part).droplevel("testset").stack(level=1, future_stack=True)
        lines += [f"\n{testset}", printed.rename_axis([None, None]).to_string(na_rep="–")]
    lines.append("\nours: mean [95 % interval]; paper: its printed values, on its own videos\n")
    for what, pattern in (
        ("videos", "*.mp4"),
        ("figures", "*.png"),
        ("tables", "tables/*.html"),
        ("executed notebooks", "notebooks/*.ipynb"),
    ):
        found = sorted(p.name for p in folder.glob(pattern))
        if found:
            lines.append(f"{what:19}{(folder / pattern).parent}/  {'  '.join(found)}")
    lines.append(f"{'where from':19}{folder / 'manifest.json'}")
    return "\n".join([*lines, minutes(folder.parents[1] / "runs" / folder.name)])


def minutes(runs: Path) -> str:
    """Minutes of each notebook of a run, and the path that decided: from the last notebook to end
    back to whatever ended just before it could begin. "" where no run has noted its times."""
    files = sorted(runs.glob("*.done"))
    times = {file.stem: json.loads(file.read_text()) for file in files}
    if not times:
        return ""
    began, ended = ({name: t[k] for name, t in times.items()} for k in ("began", "ended"))
    path = [max(ended, key=ended.get)]
    while before := [name for name in times if ended[name] <= began[path[0]]]:
        path.insert(0, max(before, key=ended.get))
    spent = {name: (ended[name] - began[name]) / 60 for name in times}
    lines = [f"  {name:22}{m:6.1f}" + " *" * (name in path) for name, m in spent.items()]
    whole = (max(ended.values()) - min(began.values())) / 60
    return "\n".join(["", "minutes of each notebook; * is on the path that decided", *lines,
                      f"  {'from first to last':22}{whole:6.1f}"])  # fmt: skip
