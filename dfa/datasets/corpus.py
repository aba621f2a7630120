"""Track every clip of a corpus, and list the clips in a manifest.

A run over thousands of clips can be stopped at any point; the same command continues it.
"""

from __future__ import annotations

import glob
import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from tqdm import tqdm

from ..media import FPS, InputError, check_output, write_text
from ..method import tracking
from ..recording import Attributes
from .clips import Clip, find_clips, transcript
from .tracks import tracker

MANIFEST = "manifest.jsonl"


def track_corpus(
    root: str | Path, out: str | Path, jobs: int | None = None, progress: bool = True
) -> dict:
    """Track every clip of the corpus `root` to out/ID.npz, and list them in out/manifest.jsonl.

    Args:
        jobs: worker processes; None is one for each core, 1 works in this process.
        progress: whether to show a progress bar.

    A clip that cannot be used is listed with the reason. A finished clip is not tracked again if
    its video and the tracker are unchanged.

    Returns a dict: layout; the numbers clips, tracked, bad, frames (of all good clips) and new
    (clips of this run); reasons (of the bad clips, by id). Raises InputError if `root` has no
    videos, or `out` cannot be written or contains another corpus.
    """
    layout, clips = find_clips(root)
    out, jobs = Path(out), jobs or os.cpu_count() or 1
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {out}: {error.strerror}") from error
    check_output(out / MANIFEST)
    rows = _read_manifest(out)
    for clip in clips:
        before = rows.get(clip.id, {}).get("video", str(clip.video.absolute()))
        if before != str(clip.video.absolute()) and Path(before).exists():
            raise InputError(f"{out} holds another corpus ({before}): choose another folder")
    todo, n_bad = [], 0
    for clip in clips:
        if not _is_done(rows.get(clip.id), clip, out):
            todo.append(clip)
        elif rows[clip.id]["status"] == "bad":
            n_bad += 1
        elif clip.text and not rows[clip.id]["transcript"]:  # transcripts were unpacked later
            rows[clip.id] |= _words(clip)
    # drops a last line that a killed run left incomplete
    write_text(out / MANIFEST, "".join(json.dumps(row) + "\n" for row in rows.values()))
    bar = tqdm(total=len(clips), initial=len(clips) - len(todo), unit=" clips", desc=layout,
               disable=not progress, mininterval=1.0)  # fmt: skip
    with bar, open(out / MANIFEST, "a") as manifest:
        for row in _tracked(todo, out, min(jobs, len(todo))):
            row["layout"] = layout
            rows[row["id"]] = row
            try:
                manifest.write(json.dumps(row) + "\n")
                manifest.flush()
            except OSError as error:
                what = f"cannot write {out / MANIFEST}: {error.strerror}"
                raise InputError(f"{what}; make room and run again") from error
            n_bad += row["status"] == "bad"
            bar.set_postfix(bad=n_bad, refresh=False)
            bar.update()
    here = [rows[clip.id] for clip in clips]
    good = [row for row in here if row["status"] == "ok"]
    return dict(
        layout=layout,
        clips=len(here),
        tracked=len(good),
        bad=len(here) - len(good),
        frames=sum(row["frames"] for row in good),
        new=len(todo),
        reasons={row["id"]: row["reason"] for row in here if row["status"] == "bad"},
    )


def load_corpus(out: str | Path) -> Iterator[tuple[dict, Attributes]]:
    """Iterate over the good clips of a tracked corpus: manifest row and attributes.

    A row has id, video, speaker, split, layout, frames, seconds, tracked (fraction of the frames
    with a face), transcript and words. Raises InputError immediately if `out` is no tracked corpus.
    """
    out = Path(out)
    if not (out / MANIFEST).is_file():
        raise InputError(f"{out} is no tracked corpus: make one with `dfa track FOLDER -o {out}`")
    rows = [row for row in _read_manifest(out).values() if row["status"] == "ok"]
    return ((row, Attributes.load(out / f"{row['id']}.npz")) for row in rows)


def _read_manifest(out: Path) -> dict[str, dict]:
    """The rows by id; a later row replaces an earlier one; an incomplete last line is ignored."""
    rows, path = {}, out / MANIFEST
    lines = path.read_text("utf-8", "replace").splitlines() if path.exists() else []
    for n, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            rows[row["id"]] = row
        except (ValueError, TypeError, KeyError) as error:
            if n < len(lines):
                raise InputError(
                    f"{path} line {n} is broken: delete the line, and its clip is tracked again"
                ) from error
    return rows


def _stamp(clip: Clip) -> list:
    """Size and time of the video, and the tracker: a corpus is too large to hash its videos."""
    stat = clip.video.stat()
    return [stat.st_size, stat.st_mtime_ns, tracker()[:16]]


def _is_done(row: dict | None, clip: Clip, out: Path) -> bool:
    try:
        same = row is not None and row["stamp"] == _stamp(clip)
    except (OSError, KeyError):  # a dangling link
        return False
    return same and (row["status"] == "bad" or (out / f"{clip.id}.npz").exists())


def _one(clip: Clip, out: Path) -> dict:
    """Track a clip and return its row. InputError only where `out` cannot be written."""
    row = _row(clip)
    try:
        if clip.video.exists():
            row["stamp"] = _stamp(clip)
        attributes = tracking.track(clip.video, progress=False)
    except InputError as error:
        return _bad(row, str(error))
    except Exception as error:  # one broken clip must not stop the others
        return _bad(row | {"stamp": None}, f"{type(error).__name__}: {error}")
    path = out / f"{clip.id}.npz"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {path.parent}: {error.strerror}") from error
    for left in path.parent.glob(f".{glob.escape(path.stem[:100])}.*.part.npz"):
        left.unlink()  # of a run that was killed while it wrote
    attributes.save(path)
    return (row | _words(clip)) | dict(
        frames=len(attributes),
        seconds=round(len(attributes) / FPS, 2),
        tracked=round(1 - float(attributes.lost.mean()), 4),
    )


def _words(clip: Clip) -> dict:
    """The row's fields from the transcript. A broken transcript does not make a clip bad."""
    try:
        text, words = transcript(clip)
        return dict(transcript=text, words=words, reason=None)
    except InputError as error:
        return dict(transcript=None, words=[], reason=str(error))


def _row(clip: Clip) -> dict:
    """The row's fields known before tracking. A clip with stamp None is tracked again next time."""
    video = str(clip.video.absolute())
    return dict(id=clip.id, status="ok", reason=None, video=video, speaker=clip.speaker,
                split=clip.split, stamp=None)  # fmt: skip


def _bad(row: dict, reason: str) -> dict:
    return row | dict(status="bad", reason=" ".join(reason.split()))


def _tracked(clips: list[Clip], out: Path, jobs: int) -> Iterator[dict]:
    """Track `clips`; yield each row when it is finished."""
    if jobs <= 1:
        yield from (_one(clip, out) for clip in clips)
        return
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the workers: one core each
    waiting = iter(clips)
    crashed = yield from _pool(waiting, out, jobs)
    while crashed:  # a worker died: track its clips one by one to find the one that causes it
        for clip in crashed:
            if (yield from _pool(iter([clip]), out, 1)):
                yield _bad(_row(clip), "tracking it ended its process: too little memory?")
        crashed = yield from _pool(waiting, out, jobs)


def _pool(waiting: Iterator[Clip], out: Path, jobs: int):
    """Track the clips of `waiting`; yield rows; return the clips in work when a process died.

    At most as many clips as processes are submitted at a time, so these clips are known.
    """
    context, work = multiprocessing.get_context("spawn"), {}
    pool = ProcessPoolExecutor(jobs, context, _start_worker)
    try:
        while True:
            while len(work) < jobs and (clip := next(waiting, None)) is not None:
                work[pool.submit(_one, clip, out)] = clip
            if not work:
                return []
            for future in wait(work, return_when=FIRST_COMPLETED).done:
                row = future.result()
                del work[future]
                yield row
    except BrokenProcessPool:
        return list(work.values())
    finally:
        for process in list((pool._processes or {}).values()) if work else []:
            process.terminate()  # the run was stopped: unfinished clips are tracked again
        pool.shutdown(wait=True, cancel_futures=True)


def _start_worker() -> None:
    """Leave Ctrl-C to the parent process, and end with it if it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    tqdm.set_lock(threading.RLock())  # tqdm's default lock would leak if the run is stopped
    parent = multiprocessing.parent_process()
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()
