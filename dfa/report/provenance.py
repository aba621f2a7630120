"""Record for each figure, table and video which cell, commit, data and seed made it.

A notebook opens one `Run` and saves everything through it:

    run = provenance.start("02_disentanglement", profile, seed=seed, inputs=[...])
    run.save_figure(fig, "figure3", paper="Figure 3", data=frame)
    run.save_table(frame, "disentanglement")

`python -m dfa.report figures/quick` prints table 2 and a list of the other results.
"""

from __future__ import annotations

import fcntl
import json
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from .. import __version__
from ..captures import SAMPLES
from ..media import atomic, sha256, write_text
from .machine import commit_of, device_name, root

if TYPE_CHECKING:
    from IPython.display import HTML
    from matplotlib.figure import Figure
    from matplotlib.text import Text

DPI = 110  # of a PNG: a page shows it as large as it is


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
    """Start the record of one notebook's run, and its clock.

    Args:
        notebook: its name without suffix. profile: its profile.
        seed: one or several.
        inputs: the files that the results depend on; they are hashed now.
        device: a torch device.
        data: the data in words, for the footers.
        parameters: the notebook's other parameters.
    """
    return Run(notebook, profile, seed, inputs, device, data, parameters)


class Run:
    """Saves artifacts under figures/<profile>/ and records each in its manifest.json.

    Open one with `start`.
    """

    def __init__(self, notebook, profile, seed, inputs, device, data, parameters):
        self.root = root()
        self.folder = self.root / "figures" / profile
        (self.folder / "tables").mkdir(parents=True, exist_ok=True)
        self.footer = f"profile {profile} · {data} · dfa {__version__}"
        self._began = time.monotonic()
        self._saved: dict[str, list[Path]] = {}  # id -> files
        seeds = [seed] if isinstance(seed, int) else list(seed)
        commit, dirty = commit_of(self.root)
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
        add_footer(fig, self.footer)
        png, pdf = self.folder / f"{id}.png", self.folder / f"{id}.pdf"
        origin = json.dumps({"id": id, "paper": paper, "cell": _cell(), **self._entry}, default=str)
        undated = {"CreationDate": None, "Creator": None, "Producer": None, "Subject": origin}
        with atomic(png) as part:
            _write_png(fig, part, origin)
        with atomic(pdf) as part:
            fig.savefig(part, dpi=150, bbox_inches="tight", metadata=undated)
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
        """Write tables/<id>.csv, .tex and .html; returns the HTML to display.

        A table with a column `metric` is long-form: it needs `KEYS` and `value`, may have
        `protocol` and the rest of `COLUMNS`, and is printed by `wide`. Any other table is printed
        as it is. `paper` is the paper's table, such as "Table 2"; `notes` are printed below the
        table. Raises ValueError for a long-form table with wrong columns or duplicate rows.
        """
        from great_tables import GT
        from IPython.display import HTML

        from .tables import long_form, wide

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
        note = f"{self.footer}. Paper: the values that it prints, measured on its own videos."
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
        write_text(outputs[1], latex.strip() + "\n")
        write_text(outputs[2], html.strip() + "\n")
        self._record(id, paper, outputs)
        return HTML(html)

    def path(self, name: str) -> Path:
        """The path for a file of this run: write it there, then call `save_file`."""
        return self.folder / name

    def save_file(self, path: str | Path, id: str, *, paper: str | None = None) -> None:
        """Record a file that is already under figures/<profile>/, for instance a video.

        Raises ValueError if it is elsewhere.
        """
        path = Path(path).absolute()
        if not path.is_relative_to(self.folder):
            raise ValueError(f"{path} is not under {self.folder}: write it to run.path(name)")
        self._record(id, paper, [path])

    def _record(self, id: str, paper: str | None, outputs: list[Path]) -> None:
        if self._saved.setdefault(id, outputs) != outputs:
            raise ValueError(f"{id} names another artifact of this run: give each an id of its own")
        entry = {"id": id, "paper": paper, "cell": _cell(), **self._entry}
        entry["outputs"] = self._hashes(outputs)
        entry["wall_s"] = round(time.monotonic() - self._began, 1)
        entry["created"] = datetime.now(UTC).isoformat(timespec="seconds")
        with _locked(self.folder / ".manifest.lock"):
            others = [old for old in manifest(self.folder) if old["id"] != id]
            entries = sorted([*others, entry], key=lambda e: e["id"])
            text = json.dumps(entries, indent=1, ensure_ascii=False, default=str)
            write_text(self.folder / "manifest.json", text + "\n")

    def _hashes(self, paths: Iterable[str | Path]) -> dict[str, str]:
        """{path: sha256}; the path is relative to the repo, or only a name for files outside it."""
        hashes = {}
        for path in map(Path, paths):
            path = path if path.is_absolute() else self.root / path
            inside = path.is_relative_to(self.root)
            name = path.relative_to(self.root).as_posix() if inside else path.name
            hashes[name] = sha256(path)
        return dict(sorted(hashes.items()))


def manifest(folder: str | Path) -> list[dict]:
    """The entries of a folder's manifest.json; an empty list if there is no such file."""
    path = Path(folder) / "manifest.json"
    return json.loads(path.read_text("utf-8")) if path.exists() else []


def _cell() -> int | None:
    """The number n of In[n] of the running notebook cell; None outside of notebooks."""
    if "IPython" not in sys.modules:
        return None
    from IPython import get_ipython

    shell = get_ipython()
    # Not execution_count, which some versions of IPython raise before the cell and some after.
    return len(shell.user_ns["In"]) - 1 if shell is not None else None


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock, because two notebooks may save at the same time.

    The system releases it if the process is killed.
    """
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def add_footer(fig: Figure, words: str) -> Text:
    """Write `words` below all that a figure shows, flush with its right edge; replaces the last."""
    for old in [text for text in fig.texts if text.get_gid() == "provenance"]:
        old.remove()
    own = fig.dpi
    fig.set_dpi(DPI)  # a text's size in inches depends on it a little
    fig.draw_without_rendering()  # lays the figure out
    box = fig.get_tightbbox()
    fig.set_dpi(own)
    x, y = np.array([box.x1, box.y0 - 0.06]) / fig.get_size_inches()
    return fig.text(x, y, words, ha="right", va="top", size=6, color="0.4", gid="provenance")


def _write_png(fig: Figure, path: Path, origin: str) -> None:
    """In three channels, for nothing shows through; a chart by its 256 most different colours.

    They are off by some hundredths at worst, on the edges of lines, and take half the bytes.
    """
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    fig.savefig(drawn := BytesIO(), format="png", dpi=DPI, bbox_inches="tight")
    told = PngInfo()
    told.add_text("Description", origin)
    image = Image.open(drawn).convert("RGB")
    if image.getcolors(4096):  # None where there are more, in photographs
        image = image.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    image.save(path, "PNG", optimize=True, pnginfo=told, dpi=(DPI, DPI))


def _photos_as_jpeg(pdf: Path) -> None:
    """Re-encode a one-page PDF's colour images as JPEG; matplotlib's are four times as large.

    What is transparent stays so: the mask lies beside the colours. A file whose images have a
    palette, or would save little, keeps its bytes.
    """
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
    """Write a .csv with six significant digits, with the same bytes on every system."""
    with atomic(path) as part:
        table.to_csv(part, index=False, float_format="%.6g", lineterminator="\n")
