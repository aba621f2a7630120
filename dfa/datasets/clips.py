"""Find the clips of a corpus: GRID, LRS2, HDTF or any folder of videos, recognised by its files."""

from __future__ import annotations

import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from ..media import VIDEOS, InputError

# The person in the name of an HDTF clip: RD_Radio10_000, Radio11_0, WDA_AmyKlobuchar1_000
HDTF = re.compile(r"(RD_)?Radio\d+(?=_)|(WDA|WRA)_[^\W\d_]+")
GRID_UNITS = 25_000  # units of an .align file per second: samples of GRID's 25 kHz audio


@dataclass(frozen=True)
class Clip:
    """One video of a corpus."""

    id: str  # its path below the corpus, without the suffix: s1/bbaf2n, main/553.../00001
    video: Path
    speaker: str  # GRID: the speaker; LRS2: the programme; HDTF: the person; else folder or file
    text: Path | None = None  # the transcript, .align or .txt
    split: str | None = None  # LRS2: train, val, test or pretrain, from its lists


# ------------------------------------------------------------------------------------- layouts


def find_clips(root: str | Path) -> tuple[str, list[Clip]]:
    """The layout of a corpus folder ("GRID", "LRS2", "HDTF" or "videos") and its clips by id.

    - GRID: speaker folders of .mpg files; .align files may be in any folder;
    - LRS2: main/ (and pretrain/) with ID/CLIP.mp4 and .txt;
    - HDTF: .mp4 files with HDTF's names;
    - videos: everything else, with subfolders.

    Raises InputError if `root` is no folder or has no video.
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"{root} is no folder: give a folder of videos")
    files = _files(root)
    videos = [f for f in files if f.suffix.lower() in VIDEOS]
    if not videos:
        raise InputError(f"{root} holds no video ({', '.join(sorted(VIDEOS))}): check the path")
    stems = Counter(f.with_suffix("") for f in videos)
    ids = {f: (f if stems[f.with_suffix("")] > 1 else f.with_suffix("")).as_posix() for f in videos}
    if all(_lrs2(root, f) for f in videos):
        layout, clips = "LRS2", _lrs2_clips(root, videos, set(files), ids)
    elif all(f.suffix.lower() == ".mpg" for f in videos) and (
        any(f.suffix.lower() == ".align" for f in files)
        or all(_is_speaker(root, f) for f in videos)
    ):
        layout, clips = "GRID", _grid_clips(root, videos, files, ids)
    elif all(HDTF.match(f.stem) and f.suffix == ".mp4" for f in videos):
        layout = "HDTF"
        clips = [Clip(ids[f], root / f, HDTF.match(f.stem)[0]) for f in videos]
    else:
        layout = "videos"
        clips = [Clip(ids[f], root / f, f.parts[0] if f.parent.parts else f.stem) for f in videos]
    return layout, sorted(clips, key=lambda clip: clip.id)


def _files(root: Path) -> list[Path]:
    """All files below `root`, relative to it, without hidden files; a folder is visited once."""
    found, visited = [], set()
    for folder, folders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in visited:  # links can form a circle
            folders.clear()
            continue
        visited.add(real)
        folders[:] = sorted(d for d in folders if not d.startswith("."))
        below = Path(folder).relative_to(root)
        found += [below / name for name in names if not name.startswith(".")]
    return found


def _lrs2(root: Path, f: Path) -> bool:
    parts = [root.absolute().name, *f.parts]
    return f.suffix == ".mp4" and len(parts) > 2 and parts[-3] in ("main", "pretrain")


def _lrs2_clips(root: Path, videos: list[Path], files: set[Path], ids: dict) -> list[Clip]:
    splits = {}
    for name in ("pretrain", "train", "val", "test"):
        for folder in (root, root.absolute().parent):
            if (folder / f"{name}.txt").is_file():
                lines = (folder / f"{name}.txt").read_text("utf-8", "replace").splitlines()
                splits |= {line.split()[0]: name for line in lines if line.strip()}
                break
    clips = []
    for f in videos:
        text = f.with_suffix(".txt")
        split = splits.get(f"{f.parent.name}/{f.stem}")
        if split is None and f.parts[0] == "pretrain":
            split = "pretrain"
        clips.append(
            Clip(ids[f], root / f, f.parent.name, root / text if text in files else None, split)
        )
    return clips


def _is_speaker(root: Path, f: Path) -> bool:
    return any(re.fullmatch(r"s\d+", part) for part in (root.absolute().name, *f.parts[:-1]))


def _grid_clips(root: Path, videos: list[Path], files: list[Path], ids: dict) -> list[Clip]:
    def speaker(f: Path) -> str:
        named = [part for part in f.parts[:-1] if re.fullmatch(r"s\d+", part)]
        usual = {"align", "alignments", "video", "mpg_6000"}
        return next(iter(named), None) or next(
            (part for part in f.parts[:-1] if part not in usual), root.absolute().name
        )

    aligned = {(speaker(f), f.stem): root / f for f in files if f.suffix.lower() == ".align"}
    return [Clip(ids[f], root / f, speaker(f), aligned.get((speaker(f), f.stem))) for f in videos]


# --------------------------------------------------------------------------------- transcripts


def read_align(path: str | Path) -> list[tuple[str, float, float]]:
    """The words of a GRID .align file: (word, start, end), seconds; silence is left out.

    Raises InputError if the file cannot be read or is broken.
    """
    rows = _rows(path, 3)
    try:
        words = [(w, int(a) / GRID_UNITS, int(b) / GRID_UNITS) for a, b, w in rows]
    except ValueError as error:
        raise InputError(f"{path} is no .align file (START END WORD a line): {error}") from error
    return [row for row in words if row[0] not in ("sil", "sp")]


def read_lrs2(path: str | Path) -> tuple[str, list[tuple[str, float, float]]]:
    """The `Text:` of an LRS2 .txt file, and its words (word, start, end) in seconds, if given.

    Raises InputError if the file cannot be read or is broken.
    """
    lines = _text(path).splitlines()
    texts = [line.partition(":")[2].strip() for line in lines if line.startswith("Text:")]
    if not texts:
        raise InputError(f"{path} has no line `Text: ...`: it is no LRS2 transcript")
    timed = [line.split() for line in lines]
    starts = [i for i, row in enumerate(timed) if row[:3] == ["WORD", "START", "END"]]
    rows = [row for row in timed[starts[0] + 1 :] if len(row) >= 3] if starts else []
    try:
        return texts[0], [(w, float(a), float(b)) for w, a, b, *_ in rows]
    except ValueError as error:
        raise InputError(f"{path} has a broken word list: {error}") from error


def transcript(clip: Clip) -> tuple[str | None, list[tuple[str, float, float]]]:
    """The text of a clip and its words (word, start, end) in seconds; (None, []) without a file.

    Raises InputError as `read_align` and `read_lrs2` do.
    """
    if clip.text is None:
        return None, []
    if clip.text.suffix.lower() == ".align":
        words = read_align(clip.text)
        return " ".join(word for word, _, _ in words), words
    return read_lrs2(clip.text)


def _text(path: str | Path) -> str:
    try:
        return Path(path).read_text("utf-8", "replace")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error


def _rows(path: str | Path, columns: int) -> list[list[str]]:
    rows = [line.split() for line in _text(path).splitlines() if line.strip()]
    for n, row in enumerate(rows, 1):
        if len(row) != columns:
            raise InputError(f"{path} line {n} has {len(row)} columns, not {columns}: repair it")
    return rows
