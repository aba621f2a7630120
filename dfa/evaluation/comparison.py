"""Table 2 for any folder of videos: each method is compared with the real videos (section 4.2).

A results folder has one folder for each method. In it there is one video for each testset, with the
name of the real video in `Ground Truth`:

    RESULTS/Ground Truth/subject_a.mp4
    RESULTS/AD-NeRF/subject_a.mp4
    RESULTS/AD-NeRF/subject_a.own.mp4, subject_a.zh.mp4, subject_a.de.mp4

The `.own` video is optional: the method generates head motion and eyes itself. Blinks are counted
in it. The `.zh` and `.de` videos speak Mandarin and German; people rate them in the user study.
`rivals.perform` also writes a `facts.json`: the method's properties, training curves and times.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from ..media import (
    VIDEOS,
    InputError,
    to_and_fro,
    video_of,
)
from ..method.tracking import face_points
from ..recording import Frames, Recording, decode
from .expert import SyncExpert
from .metrics import METRICS, lmd, mouth_opening, psnr
from .paper import METHODS, OURS, RIVALS, TRUTH, reported_aspects
from .protocol import Reference
from .statistics import over_clips
from .syncnet import SyncNet

SIMPLE = ("reference repeated", "training replayed")  # trivial baselines that need no method
# No eye model: the eyes are those of the reference frame or of the source video.
NO_EYES = {"ATVG", "Wav2Lip"}


def against_trivial(
    made: dict[str, np.ndarray], subject: Recording, test: Recording
) -> pd.DataFrame:
    """PSNR, LMD and mouth-opening correlation of methods and of two trivial baselines.

    The baselines are the subject's first frame repeated and the training frames in order.

    Args:
        made: each method's frames (T, S, S, 3) uint8, by its name.
        subject, test: the subject's training recording, and its test recording of T frames.

    Returns rows testset, method, metric (psnr in dB, lmd in pixels of 256, opening_corr), value,
    ci_low, ci_high, n. The correlation is nan if the mouth hardly moves.
    """
    n = len(test)
    still, replayed = np.repeat(subject.frames[:1], n, 0), to_and_fro(subject.frames, n)
    simple = dict(zip(SIMPLE, (still, replayed), strict=True))
    points, rows = face_points(test.frames)[0], []
    real_opening = mouth_opening(points)
    for method, frames in (simple | made).items():
        made_points = face_points(frames)[0]
        opening = mouth_opening(made_points)
        both = np.isfinite(opening) & np.isfinite(real_opening)
        moves = both.sum() > 2 and opening[both].std() > 2e-3  # below that: the tracker's noise
        rows += [
            dict(metric="psnr", method=method) | over_clips(psnr(frames, test.frames)),
            dict(metric="lmd", method=method) | over_clips(lmd(made_points, points)),
            dict(
                metric="opening_corr",
                method=method,
                value=np.corrcoef(opening[both], real_opening[both])[0, 1] if moves else np.nan,
                n=1,
            ),
        ]
    return pd.DataFrame(rows).assign(testset=test.name)


def trivial_verdicts(simple: pd.DataFrame) -> list[str]:
    """One line for each method and subject of `against_trivial`: does it beat both baselines?"""
    found, lines = simple.set_index(["testset", "metric", "method"]).value, []
    for n, m in simple[["testset", "method"]].drop_duplicates().itertuples(index=False):
        if m not in SIMPLE:
            lips = found[n, "lmd", m] < min(found[n, "lmd", s] for s in SIMPLE)
            picture = found[n, "psnr", m] > max(found[n, "psnr", s] for s in SIMPLE)
            says = [f"{'beats' if x else 'does NOT beat'} both in" for x in (lips, picture)]
            lines.append(f"{n} {m}: {says[0]} LMD, {says[1]} PSNR")
    return lines


def convergence(objective: Sequence[float]) -> float:
    """How much a training still improved at its end: 0 means converged, nan that it never improved.

    The decrease of the mean objective from the second-last fifth to the last fifth, divided by its
    decrease from the first value to the last fifth.

    objective: means over each hundredth of the steps, as `train` returns them.
    """
    x = np.asarray(objective)
    fifth = max(1, len(x) // 5)
    last, before = x[-fifth:].mean(), x[-2 * fifth : -fifth].mean()
    fell = x[0] - last
    return float((before - last) / fell) if fell > 0 else float("nan")


def converged(table: pd.DataFrame) -> list[str]:
    """One line for each training of `curves`: its `convergence`, and whether it is below 0.1."""
    lines = []
    for (m, part, n), curve in table.groupby(["method", "part", "testset"], sort=False):
        remaining = convergence(curve.objective)
        word = "converged" if remaining < 0.1 else "NOT converged"
        lines.append(f"{m:12s}{part:16s}{n:12s}{100 * remaining:5.1f} %, {word}")
    return lines


def curves(results: str | Path, methods: tuple[str, ...], keys: dict[str, str]) -> pd.DataFrame:
    """The training curves in `facts.json`: rows method, part, testset, step, objective.

    keys: {part: logged quantity} where the objective is not the whole loss. The loss of a GAN, for
    example, includes the discriminator's loss.
    """
    rows = [
        dict(method=m, part=part, testset=n, step=k["step"], objective=k[keys.get(part, "loss")])
        for m in methods
        for n, each in facts_of(Path(results) / m).get("curves", {}).items()
        for part, curve in each.items()
        for k in curve
    ]
    return pd.DataFrame(rows, columns=["method", "part", "testset", "step", "objective"])


def facts_of(folder: str | Path) -> dict:
    """The `facts.json` that `perform` wrote in a method's folder; {} if there is none."""
    path = Path(folder) / "facts.json"
    return json.loads(path.read_text()) if path.exists() else {}


def videos(
    results: Path, methods: tuple[str, ...], stem: str, size: int, T: int
) -> dict[str, np.ndarray | Frames]:
    """The methods' videos named `stem`: at most T frames (T, size, size, 3) uint8 by method.

    Many or large frames are kept in a file. Methods without such a video are left out.
    """
    paths = {m: video_of(results / m, stem) for m in methods}
    return {m: decode(path, None, size, T) for m, path in paths.items() if path}


def methods_of(results: Path) -> list[str]:
    """All methods for table 2: the paper's rivals, other methods in the folder, the truth, ours.

    The paper's methods are listed even if they have no folder.
    """
    known = (*METHODS, TRUTH)
    others = sorted(p.name for p in results.iterdir() if p.is_dir() and p.name not in known)
    return [*RIVALS, *others, TRUTH, OURS]


def table2(
    results: str | Path, expert: SyncExpert | SyncNet, references: str | Path | None = None
) -> tuple[pd.DataFrame, list[str]]:
    """Table 2: every metric of every method, and the reasons for missing values.

    Args:
        results: a folder as in this module's docstring.
        expert: the network that measures Sync.
        references: a folder of the real videos, by default `Ground Truth` in `results`.

    Returns a long-form table (testset, method, metric, value, ci_low, ci_high, n) and a list of
    lines. A video that is missing or cannot be used gives empty values and one line. Raises
    InputError if there is no real video.
    """
    results = Path(results)
    references = Path(references) if references else results / TRUTH
    found = references.glob("*") if results.is_dir() else []
    real = sorted(p for p in found if p.suffix.lower() in VIDEOS)
    if not real:
        raise InputError(
            f"no video in {references}: put the real videos there, each with the name of the made"
            " ones"
        )
    tables, reasons = [], []
    for path in real:
        reference = Reference(path)
        for method in methods_of(results):
            try:
                rows = _score(results / method, method, path.stem, reference, expert)
            except InputError as error:
                failed = facts_of(results / method).get("failed", {}).get(path.stem)
                reasons.append(f"{method}, {path.stem}: {failed or error}")
                measured = [name for name, metric in METRICS.items() if metric.of]
                rows = pd.DataFrame({"metric": measured, "value": np.nan})
            tables.append(rows.assign(testset=path.stem, method=method))
    columns = ["testset", "method", "metric", "value", "ci_low", "ci_high", "n"]
    return pd.concat(tables, ignore_index=True).reindex(columns=columns), reasons


def _score(
    folder: Path, method: str, stem: str, reference: Reference, expert: SyncExpert | SyncNet
) -> pd.DataFrame:
    """One method's rows on one testset; InputError if it has no usable video."""
    made, own = video_of(folder, stem), video_of(folder, f"{stem}.own")
    if method == TRUTH:
        return reference.own_score(expert)
    if made is None:
        raise InputError("no video")
    rows = reference.score(made, expert)
    if facts_of(folder).get("no_eyes", method in NO_EYES):
        rows.loc[rows.metric == "blinks_per_s", ["value", "ci_low", "ci_high", "n"]] = np.nan
    elif own:
        own_blinks = reference.eyes(own)[lambda t: t.metric == "blinks_per_s"]
        rows = pd.concat([rows[rows.metric != "blinks_per_s"], own_blinks])
    return rows


def notes(results: str | Path) -> list[str]:
    """The notes below table 2: each method's inputs from the test video, and its training time."""
    given, spent = [], []
    for method in methods_of(Path(results)):
        facts = facts_of(Path(results) / method)
        if "takes" not in facts:
            continue
        given.append(f"{method}: {', '.join(facts['takes'])}")
        seconds = np.mean([sum(parts.values()) for parts in facts["seconds"].values()])
        spent.append(f"{method} {seconds:.0f} s" if np.isfinite(seconds) else f"{method} not noted")
    if not given:
        return []
    return [
        f"Inputs from the test video, in addition to its audio: {'; '.join(given)}.",
        f"Training time in seconds, on a machine that ran other jobs too: {', '.join(spent)}. LSP,"
        " AD-NeRF and DFA-NeRF (without its corpus networks): on each subject. The others: once,"
        " on the corpus.",
    ]


def table1(aspects: dict[str, dict | None]) -> pd.DataFrame:
    """Table 1: computed aspects beside the paper's, one row for each method and aspect.

    aspects: `Method.aspects` by method name; None if the method was not run.

    Columns: method, aspect, paper, computed, agrees. `agrees` is "yes", or says what differs.
    """
    rows = []
    reported = reported_aspects()
    others = {
        m: dict.fromkeys(found) for m, found in aspects.items() if found and m not in reported
    }
    for method, printed in (reported | others).items():
        computed = aspects.get(method)
        for aspect, paper in printed.items():
            value = computed[aspect] if computed else None
            agrees = "yes" if value == paper else f"computed {value or 'N/A'}"
            agrees = agrees if computed else "not implemented here"
            agrees = "not in the paper" if method in others else agrees
            row = dict(method=method, aspect=aspect, paper=paper or "N/A")
            rows.append(row | dict(computed=value or ("N/A" if computed else ""), agrees=agrees))
    return pd.DataFrame(rows)


def side_by_side(videos: dict[str, np.ndarray], columns: int = 4) -> Iterator[np.ndarray]:
    """Several videos {name: (T, S, S, 3) uint8} in a grid, each below its name.

    Yields frames (rows * (S + S // 8), columns * S, 3) uint8, as many as the shortest video has.
    """
    T, S = min(map(len, videos.values())), next(iter(videos.values())).shape[1]
    rows, bar = -(-len(videos) // columns), S // 8
    sheet = np.full((rows * (S + bar), columns * S, 3), 255, np.uint8)
    for k, name in enumerate(videos):
        at = (k % columns * S + 2, k // columns * (S + bar) + bar - 4)
        cv2.putText(sheet, name, at, cv2.FONT_HERSHEY_SIMPLEX, S / 340, (0, 0, 0), 1, cv2.LINE_AA)
    for t in range(T):
        for k, frames in enumerate(videos.values()):
            y, x = k // columns * (S + bar) + bar, k % columns * S
            sheet[y : y + S, x : x + S] = frames[t]
        yield sheet.copy()
