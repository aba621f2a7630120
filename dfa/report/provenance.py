"""From each figure, table and video back to the cell, commit, data and seed that made it.

A notebook opens one `Run` and saves everything through it:

    run = provenance.start("02_disentanglement", profile, seed=seed, inputs=[...])
    run.save_figure(fig, "figure3", paper="Figure 3", data=frame)
    run.save_table(frame, "disentanglement")

`python -m dfa.provenance figures/quick` prints table 2 and where to look.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import yaml

from . import __version__
from .media import InputError, atomic

if TYPE_CHECKING:
    from IPython.display import HTML
    from matplotlib.figure import Figure

SAMPLES = "sample captures, synthetic actors"
TRUTH, OURS = "Ground Truth", "DFA-NeRF"  # as the paper's tables have them, in its order
RIVALS = ("ATVG", "MakeItTalk", "Wav2Lip", "LSP", "AD-NeRF")
METHODS = (*RIVALS, OURS)
KEYS = ["testset", "method", "metric"]
COLUMNS = [*KEYS, "paper", "value", "ci_low", "ci_high", "n"]  # of every long-form table
# How a metric is printed: its name with the better direction, and decimals as in the paper.
METRICS = {
    "psnr": ("PSNR ↑", 2),
    "ssim": ("SSIM ↑", 3),
    "lmd": ("LMD ↓", 2),
    "sync": ("Sync ↑", 2),
    "blinks_per_s": ("Blinks/s", 2),
    "d_rot": ("D-Rot % ↓", 2),
    "d_pos": ("D-Pos % ↓", 2),
    "d_rot_deg": ("D-Rot ° ↓", 2),
    "d_pos_mm": ("D-Pos mm ↓", 2),
    "crps": ("CRPS % ↓", 2),
    "speed_ratio": ("Speed, of real", 2),
    "freeze": ("Frozen %", 1),
}


def attended() -> bool:
    """Whether somebody looks at this notebook, or the workflow runs it alone."""
    return "DFA_WORKFLOW" not in os.environ


def root() -> Path:
    """The repo: the nearest folder from the current one upward that holds the Snakefile.

    A notebook runs with the root as its folder under papermill, with notebooks/ in JupyterLab.
    """
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "Snakefile").is_file() and (folder / "pyproject.toml").is_file():
            return folder
    raise InputError(f"{here} is not inside the dfa repo: run this from its top folder")


def sha256(path: str | Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def start(
    notebook: str,
    profile: str,
    *,
    seed: int | Iterable[int] = 0,
    inputs: Iterable[str | Path] = (),
    device: str = "cpu",
    data: str = SAMPLES,
    **parameters: object,
) -> Run:
    """Open the record of one notebook's run; its clock starts here.

    `inputs` are the files that the results rest on, hashed now; `device` is a torch device;
    `data` says in words what was measured; `parameters` are the notebook's others.
    """
    return Run(notebook, profile, seed, inputs, device, data, parameters)


class Run:
    """Saves artifacts under figures/<profile>/ and enters each in its manifest.json."""

    def __init__(self, notebook, profile, seed, inputs, device, data, parameters):
        self.root = root()
        self.folder = self.root / "figures" / profile
        (self.folder / "tables").mkdir(parents=True, exist_ok=True)
        self.footer = f"profile {profile} · {data} · dfa {__version__}"
        self._began = time.monotonic()
        seeds = [seed] if isinstance(seed, int) else list(seed)
        commit, dirty = _commit(self.root)
        self._entry = {
            "notebook": notebook,
            "parameters": {"profile": profile, "seed": seeds[0], "device": device, **parameters},
            "seeds": seeds,
            "commit": commit,
            "dirty": dirty,
            "inputs": self._hashes(inputs),
            "device": device_name(device),
        }

    def save_figure(
        self, fig: Figure, id: str, *, paper: str | None = None, data: pd.DataFrame | None = None
    ) -> None:
        """Write `fig` as <id>.png and <id>.pdf and the plotted `data` as <id>.csv.

        Both carry the manifest's entry but for its times, as JSON in `Description` and `Subject`:
        the bytes depend on the drawing and on what it was drawn from and by alone. `paper` names
        what it answers to: "Figure 3".
        """
        for old in [text for text in fig.texts if text.get_gid() == "provenance"]:
            old.remove()  # saved twice, said once
        fig.text(
            0.99, -0.01, self.footer, ha="right", va="top", size=6, color="0.4", gid="provenance"
        )
        png, pdf = self.folder / f"{id}.png", self.folder / f"{id}.pdf"
        origin = json.dumps({"id": id, "paper": paper, "cell": _cell(), **self._entry}, default=str)
        undated = {"CreationDate": None, "Creator": None, "Producer": None, "Subject": origin}
        for path, metadata in ((png, {"Software": None, "Description": origin}), (pdf, undated)):
            with atomic(path) as part:
                fig.savefig(part, dpi=150, bbox_inches="tight", metadata=metadata)
                if path == pdf:
                    _photos_as_jpeg(part)
        outputs = [png, pdf]
        if data is not None:
            outputs.append(self.folder / f"{id}.csv")
            write_csv(data, outputs[-1])
        self._record(id, paper, outputs)

    def save_table(
        self,
        table: pd.DataFrame,
        id: str,
        *,
        paper: str | None = None,
        caption: str | None = None,
        notes: Iterable[str] = (),
    ) -> HTML:
        """Write tables/<id>.csv, .tex and .html; returns the table to show as the cell's result.

        A table with a `metric` column is long-form: it needs `KEYS` and `value`, may have
        `protocol` and the rest of `COLUMNS`, and is laid out by `wide`. Any other is kept as is.
        `notes` stand below it.
        """
        from great_tables import GT
        from IPython.display import HTML

        if "metric" in table.columns:
            table = long_form(table)
            shown = wide(table)
            spanners = list(dict.fromkeys(metric for metric, _ in shown.columns))
            names = {f"c{i}": column[1] for i, column in enumerate(shown.columns)}
            spans = [[f"c{i}" for i, c in enumerate(shown.columns) if c[0] == s] for s in spanners]
            shown = shown.set_axis(list(names), axis=1).reset_index()
            groups = [c for c in shown.columns if c not in names and c != "method"]
            shown["group"] = shown[groups].agg(" · ".join, axis=1)
            gt = GT(
                shown.drop(columns=groups), rowname_col="method", groupname_col="group", id=id
            ).cols_label(names)
            for spanner, columns in zip(spanners, spans, strict=True):
                gt = gt.tab_spanner(spanner, columns)
        else:
            gt = GT(table.astype(object).where(table.notna(), ""), id=id)
        title = caption or paper or id
        note = f"{self.footer}. Paper: its own figures, on its own videos."
        gt = gt.tab_header(title).tab_source_note(note if "metric" in table else self.footer)
        for line in notes:
            gt = gt.tab_source_note(line)
        html = gt.as_raw_html()
        latex = gt.as_latex()  # needs booktabs and caption
        for sign, command in {"↑": r"$\uparrow$", "↓": r"$\downarrow$", "·": r"$\cdot$"}.items():
            latex = latex.replace(sign, command)
        base = self.folder / "tables" / id
        outputs = [base.with_name(f"{id}{suffix}") for suffix in (".csv", ".tex", ".html")]
        write_csv(table, outputs[0])
        _write_text(outputs[1], latex.strip() + "\n")
        _write_text(outputs[2], html.strip() + "\n")
        self._record(id, paper, outputs)
        return HTML(html)

    def path(self, name: str) -> Path:
        """Where a file of this run belongs, for writing it before `save_file`."""
        return self.folder / name

    def save_file(self, path: str | Path, id: str, *, paper: str | None = None) -> None:
        """Enter a file that stands under figures/<profile>/ already, a video for instance."""
        path = Path(path).absolute()
        if not path.is_relative_to(self.folder):
            raise ValueError(f"{path} is not under {self.folder}: write it to run.path(name)")
        self._record(id, paper, [path])

    def _record(self, id: str, paper: str | None, outputs: list[Path]) -> None:
        entry = {"id": id, "paper": paper, "cell": _cell(), **self._entry}
        entry["outputs"] = self._hashes(outputs)
        entry["wall_s"] = round(time.monotonic() - self._began, 1)
        entry["created"] = datetime.now(UTC).isoformat(timespec="seconds")
        with _locked(self.folder / ".manifest.lock"):
            others = [old for old in manifest(self.folder) if old["id"] != id]
            entries = sorted([*others, entry], key=lambda e: e["id"])
            text = json.dumps(entries, indent=1, ensure_ascii=False, default=str)
            _write_text(self.folder / "manifest.json", text + "\n")

    def _hashes(self, paths: Iterable[str | Path]) -> dict[str, str]:
        """{path relative to the repo: sha256}; a file from elsewhere goes by its name alone."""
        hashes = {}
        for path in map(Path, paths):
            path = path if path.is_absolute() else self.root / path
            inside = path.is_relative_to(self.root)
            name = path.relative_to(self.root).as_posix() if inside else path.name
            hashes[name] = sha256(path)
        return dict(sorted(hashes.items()))


def manifest(folder: str | Path) -> list[dict]:
    """The entries of a folder's manifest.json; none where there is no such file."""
    path = Path(folder) / "manifest.json"
    return json.loads(path.read_text("utf-8")) if path.exists() else []


# ------------------------------------------------------------------------------------- tables


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


def claims() -> pd.DataFrame:
    """The paper's claims C01 to C22: id, where, says."""
    return pd.DataFrame(_reported()["claims"])


@cache
def _reported() -> dict:
    return yaml.safe_load(files("dfa").joinpath("data/reported.yaml").read_text("utf-8"))


def long_form(table: pd.DataFrame) -> pd.DataFrame:
    """`table` with the columns of `COLUMNS` in order, `protocol` after testset where given."""
    optional = {"protocol", *COLUMNS}
    missing = {*KEYS, "value"} - set(table.columns)
    unknown = set(table.columns) - optional
    if missing or unknown:
        raise ValueError(
            f"a long-form table lacks {sorted(missing)}, has unknown {sorted(unknown)}"
        )
    keys = ["testset", "protocol", "method", "metric"] if "protocol" in table else KEYS
    table = table.reindex(columns=[*keys, *COLUMNS[len(KEYS) :]])
    twice = table[table.duplicated(keys)]
    if len(twice):
        raise ValueError(f"a long-form table has a row twice: {twice[keys].iloc[0].to_dict()}")
    return table.assign(n=table["n"].astype("Int64")).reset_index(drop=True)


def wide(table: pd.DataFrame) -> pd.DataFrame:
    """A long-form table as the paper prints it: strings, a row per method, in the given order.

    Columns are (metric, "paper") where the paper has any value, and (metric, "ours") as
    "31.20 [30.81, 31.60]"; the index is testset, protocol where there is one, and method.
    """
    table = long_form(table)
    index = [key for key in ("testset", "protocol", "method") if key in table]
    table = table.assign(testset=table["testset"].fillna(""))
    rows = list(dict.fromkeys(map(tuple, table[index].to_numpy())))
    rows = sorted(rows, key=lambda row: [r[:-1] for r in rows].index(row[:-1]))
    cells: dict[tuple, dict] = {}
    for metric, part in table.groupby("metric", sort=False):
        name, digits = METRICS.get(metric, (metric, None))
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
    """Table 2 and where to look, as text for a terminal."""
    folder = Path(folder)
    path = folder / "tables" / "table2.csv"
    if not path.exists():
        raise InputError(f"{path} does not exist: run `make figures` first")
    lines = [f"\nTable 2 · profile {folder.name} · {SAMPLES}"]
    table = pd.read_csv(path)
    for testset, part in table.groupby("testset", sort=False):
        # One line for the paper and one for ours, so that it fits 100 columns.
        printed = wide(part).droplevel("testset").stack(level=1, future_stack=True)
        lines += [f"\n{testset}", printed.rename_axis([None, None]).to_string(na_rep="–")]
    lines.append("\nours: mean [95 % interval]; paper: its own figures, on its own videos\n")
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
    return "\n".join(lines)


# --------------------------------------------------------------------------------- the machine


def _cell() -> int | None:
    """The number In[n] of the running notebook cell, None outside notebooks."""
    if "IPython" not in sys.modules:
        return None
    from IPython import get_ipython

    shell = get_ipython()
    # Not execution_count, which some versions of IPython raise before the cell and some after.
    return len(shell.user_ns["In"]) - 1 if shell is not None else None


def _commit(folder: Path) -> tuple[str | None, bool | None]:
    """The commit's hash, and whether anything but the artifacts differs from it."""

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=60
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    status = git("status", "--porcelain", "--", ".", ":!figures")
    return git("rev-parse", "--verify", "HEAD"), None if status is None else bool(status)


def device_name(device: str) -> str:
    """A torch device in words: the model of the GPU, or of the CPU and its cores."""
    if str(device).startswith("cuda"):
        import torch

        return torch.cuda.get_device_name(device)
    model = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    except OSError:
        pass  # not Linux
    return f"{model}, {os.cpu_count()} cores"


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock: two notebooks may save at the same time. It dies with its process."""
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _write_text(path: Path, text: str) -> None:
    with atomic(path) as part:
        part.write_text(text, "utf-8")


def _photos_as_jpeg(pdf: Path) -> None:
    """Re-encode a one-page PDF's colour images as JPEG; matplotlib's are four times as large.

    What is transparent stays so: the mask lies beside the colours. A file whose images have a
    palette, or would save little, keeps its bytes.
    """
    import numpy as np
    from PIL import Image
    from pypdf import PdfWriter
    from pypdf.generic import NameObject

    options = {"quality": 85, "subsampling": 0, "optimize": True}  # full colour: thin lines stay
    writer = PdfWriter(clone_from=pdf, keep_initial_header=True)
    smaller = False
    for image in writer.pages[0].images:
        stream = image.indirect_reference.get_object()
        if stream["/ColorSpace"] != "/DeviceRGB" or stream["/BitsPerComponent"] != 8:
            continue
        shape = stream["/Height"], stream["/Width"]
        colours = np.frombuffer(stream.get_data(), np.uint8).reshape(*shape, 3)
        if "/SMask" in stream:
            mask = np.frombuffer(stream["/SMask"].get_data(), np.uint8).reshape(*shape, 1)
            colours = np.where(mask == 0, np.uint8(255), colours)  # unseen black would bleed
        Image.fromarray(colours).save(jpeg := BytesIO(), "JPEG", **options)
        if jpeg.tell() + 1000 < len(stream._data):
            stream._data = jpeg.getvalue()
            stream[NameObject("/Filter")] = NameObject("/DCTDecode")
            stream.pop("/DecodeParms", None)
            smaller = True
    if smaller:
        writer.write(pdf)


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Six digits, and the same bytes everywhere."""
    with atomic(path) as part:
        table.to_csv(part, index=False, float_format="%.6g", lineterminator="\n")


def main() -> int:
    """`python -m dfa.provenance FOLDER`."""
    if len(sys.argv) != 2:
        print("usage: python -m dfa.provenance figures/PROFILE", file=sys.stderr)
        return 2
    try:
        print(summary(sys.argv[1]))
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
