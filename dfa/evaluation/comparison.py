"""Table 2 of any folder of videos: every method's against the real ones, under one protocol.

A folder of results has a folder for each method, and in it a video for each test set, named as the
real one in `Ground Truth`; beside it there may be one with head motion and eyes of the method's
own, from which blinks are counted, and the like to Mandarin and German for people to rate:

    RESULTS/Ground Truth/subject_a.mp4
    RESULTS/AD-NeRF/subject_a.mp4
    RESULTS/AD-NeRF/subject_a.own.mp4, subject_a.zh.mp4, subject_a.de.mp4

The notebooks' own methods leave a `facts.json` there too: what they are, and took to train.
"""

from __future__ import annotations

import json
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from . import captures
from .evaluate import METRICS, Reference, lmd, mouth_opening, over_clips, psnr
from .media import (
    FPS,
    SAMPLES_PER_FRAME,
    VIDEOS,
    InputError,
    atomic,
    frames_of,
    read_audio,
    video_of,
    write_video,
)
from .provenance import METHODS, OURS, RIVALS, TRUTH, reported_aspects
from .rivals import Method, Recording
from .rivals.parts import to_and_fro
from .sync import SyncExpert
from .syncnet import SyncNet
from .talk import training_part
from .tracking import Attributes, face_points

SIMPLE = ("reference repeated", "training replayed")  # what needs no method
# Their eyes are those of the reference frame or of the source video: what blinks there is not
# theirs to blink.
NO_EYES = {"ATVG", "Wav2Lip"}


def recording(name: str, runs: str | Path, size: int) -> Recording:
    """A sample capture as notebook 01 tracked it."""
    attributes = Attributes.load(Path(runs) / name / "attributes.npz")
    return Recording.load(name, captures.path(name), attributes, size)


def split(whole: Recording) -> tuple[Recording, Recording]:
    """What trains, and what tests: the first 10/11 and the rest."""
    cut = training_part(len(whole))
    return whole.part(0, cut), whole.part(cut)


def sentences(name: str, seconds: float) -> dict[str, np.ndarray]:
    """What methods' own videos of a test subject say, each (640 T,) and at most this long: `own`
    in the subject's voice, `zh` and `de` in those of two corpus speakers, as long as people rate.
    None is in a capture."""
    rated = min(seconds, captures.RATED)
    said = {"own": (name, seconds)} | {k: (who, rated) for k, who in captures.SPEAKERS.items()}
    return {
        key: read_audio(captures.unseen(voice))[: int(longest * FPS) * SAMPLES_PER_FRAME]
        for key, (voice, longest) in said.items()
    }


def perform(
    method: Method,
    corpus: list[Recording],
    subject: Recording,
    test: Recording,
    speech: dict[str, np.ndarray],
    results: Path,
) -> str | None:
    """Fit a method, let it speak, and write what `table2` reads.

    One video says the test part's sound, with its head motion and eyes as far as the method takes
    them; the others say `speech`, each (640 T,) by its name, and are the method's own (of those
    without own eyes: one frame of the training part speaks). What the method is, its curves and
    seconds go to `facts.json`. A method that fails leaves its reason there, which is returned: the
    others go on.
    """
    folder = Path(results) / method.name
    folder.mkdir(parents=True, exist_ok=True)
    still = subject.part(0, 1) if method.name in NO_EYES else None
    facts, reason = facts_of(folder), None
    said = {test.name: (test.audio, test)}
    said |= {f"{test.name}.{key}": (audio, still) for key, audio in speech.items()}
    try:
        method.fit(corpus, subject)
        for name, (audio, shown) in said.items():
            frames = method.render(audio, shown, shown)
            write_video(folder / f"{name}.mp4", frames, audio, lossless=True)
        facts |= dict(aspects=method.aspects(), takes=list(method.takes))
    except Exception as error:  # whatever it was, the comparison goes on without this method
        traceback.print_exc()
        reason = f"{type(error).__name__}: {error}"
        for name in said:
            (folder / f"{name}.mp4").unlink(missing_ok=True)
    for what, value in dict(failed=reason, seconds=method.seconds, curves=method.curves).items():
        facts.setdefault(what, {})[test.name] = value
    with atomic(folder / "facts.json") as part:
        part.write_text(json.dumps(facts, indent=1))
    return reason


def against_trivial(
    made: dict[str, np.ndarray], subject: Recording, test: Recording
) -> pd.DataFrame:
    """Rows of PSNR, LMD and the correlation of the mouth's opening with the real one: of each
    method's frames (T, S, S, 3), and of two that need no method: the reference frame repeated, and
    the training part's frames in order."""
    n = len(test)
    still, replayed = np.repeat(subject.frames[:1], n, 0), to_and_fro(subject.frames, n)
    simple = dict(zip(SIMPLE, (still, replayed), strict=True))
    points, rows = face_points(test.frames)[0], []
    wide = mouth_opening(points)
    for method, frames in (simple | made).items():
        shown = face_points(frames)[0]
        opening = mouth_opening(shown)
        both = np.isfinite(opening) & np.isfinite(wide)
        moves = both.sum() > 2 and opening[both].std() > 2e-3  # less is the tracker's
        rows += [
            dict(metric="psnr", method=method) | over_clips(psnr(frames, test.frames)),
            dict(metric="lmd", method=method) | over_clips(lmd(shown, points)),
            dict(
                metric="opening_corr",
                method=method,
                value=np.corrcoef(opening[both], wide[both])[0, 1] if moves else np.nan,
                n=1,
            ),
        ]
    return pd.DataFrame(rows).assign(testset=test.name)


def straw_men(simple: pd.DataFrame) -> list[str]:
    """A line a method and subject of `against_trivial`: does it beat what needs no method?"""
    found, lines = simple.set_index(["testset", "metric", "method"]).value, []
    for n, m in simple[["testset", "method"]].drop_duplicates().itertuples(index=False):
        if m not in SIMPLE:
            lips = found[n, "lmd", m] < min(found[n, "lmd", s] for s in SIMPLE)
            picture = found[n, "psnr", m] > max(found[n, "psnr", s] for s in SIMPLE)
            says = [f"{'beats' if x else 'does NOT beat'} both in" for x in (lips, picture)]
            lines.append(f"{n} {m}: {says[0]} LMD, {says[1]} PSNR")
    return lines


def convergence(objective: Sequence[float]) -> float:
    """By how much the mean objective of the last fifth of a training stands below that of the fifth
    before, as a share of all that it fell since the first hundredth, by the last fifth: near 0 is
    converged; nan where it did not fall.

    objective: a mean over each hundredth of the steps, as `train` returns it.
    """
    x = np.asarray(objective)
    fifth = max(1, len(x) // 5)
    last, before = x[-fifth:].mean(), x[-2 * fifth : -fifth].mean()
    fell = x[0] - last
    return float((before - last) / fell) if fell > 0 else float("nan")


def converged(table: pd.DataFrame) -> list[str]:
    """A line a training of `curves`: its `convergence`, and whether that is below a tenth."""
    lines = []
    for (m, part, n), curve in table.groupby(["method", "part", "testset"], sort=False):
        share = convergence(curve.objective)
        word = "converged" if share < 0.1 else "NOT converged"
        lines.append(f"{m:12s}{part:16s}{n:12s}{100 * share:5.1f} %, {word}")
    return lines


def curves(results: str | Path, methods: tuple[str, ...], keys: dict[str, str]) -> pd.DataFrame:
    """What `perform` noted of the methods' trainings: method, part, testset, step, objective.

    keys: which of the logged quantities is the objective of a part, by its name, where it is not
    the whole loss: of a GAN that holds the discriminator's too.
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
    """What `perform` noted of the method of this folder of results; {} if it did not make it."""
    path = Path(folder) / "facts.json"
    return json.loads(path.read_text()) if path.exists() else {}


def videos(results: Path, methods: tuple[str, ...], stem: str, size: int) -> dict[str, np.ndarray]:
    """What methods made of a test set, as far as they did: frames (T, size, size, 3) by method."""
    paths = {m: video_of(results / m, stem) for m in methods}
    return {m: frames_of(path, None, size) for m, path in paths.items() if path}


def methods_of(results: Path) -> list[str]:
    """The paper's methods in its order, there or not, any others of a folder, and ours."""
    known = (*METHODS, TRUTH)
    others = sorted(p.name for p in results.iterdir() if p.is_dir() and p.name not in known)
    return [*RIVALS, *others, TRUTH, OURS]


def table2(
    results: str | Path, expert: SyncExpert | SyncNet, references: str | Path | None = None
) -> tuple[pd.DataFrame, list[str]]:
    """Every metric of every method, and why something is missing.

    Args:
        results: the folder, as this module's docstring has it.
        references: a folder of the real videos, by default `Ground Truth` in `results`.

    Returns a long-form table (testset, method, metric, value, ci_low, ci_high, n), with empty
    values where a video is missing or cannot be used, and a line on each of these. InputError
    where there is no real video.
    """
    results = Path(results)
    references = Path(references) if references else results / TRUTH
    found = references.glob("*") if results.is_dir() else []
    real = sorted(p for p in found if p.suffix.lower() in VIDEOS)
    if not real:
        raise InputError(f"no video in {references}: the real ones belong there, named as the made")
    tables, reasons = [], []
    for path in real:
        reference = Reference(path)
        for method in methods_of(results):
            try:
                rows = _score(results / method, method, path.stem, reference, expert)
            except InputError as error:
                failed = facts_of(results / method).get("failed", {}).get(path.stem)
                reasons.append(f"{method}, {path.stem}: {failed or error}")
                rows = pd.DataFrame({"metric": METRICS, "value": np.nan})
            tables.append(rows.assign(testset=path.stem, method=method))
    columns = ["testset", "method", "metric", "value", "ci_low", "ci_high", "n"]
    return pd.concat(tables, ignore_index=True).reindex(columns=columns), reasons


def _score(
    folder: Path, method: str, stem: str, reference: Reference, expert: SyncExpert | SyncNet
) -> pd.DataFrame:
    made, own = video_of(folder, stem), video_of(folder, f"{stem}.own")
    if method == TRUTH:
        return reference.own_score(expert)
    if made is None:
        raise InputError("no video")
    rows = reference.score(made, expert)
    if method in NO_EYES:
        rows.loc[rows.metric == "blinks_per_s", ["value", "ci_low", "ci_high", "n"]] = np.nan
    elif own:
        alone = reference.eyes(own)[lambda t: t.metric == "blinks_per_s"]
        rows = pd.concat([rows[rows.metric != "blinks_per_s"], alone])
    return rows


def notes(results: str | Path) -> list[str]:
    """Below table 2: what each method was given of the test video, and how long it trained."""
    given, spent = [], []
    for method in METHODS:
        facts = facts_of(Path(results) / method)
        if "takes" not in facts:
            continue
        given.append(f"{method}: {', '.join(facts['takes'])}")
        seconds = np.mean([sum(parts.values()) for parts in facts["seconds"].values()])
        spent.append(f"{method} {seconds:.0f} s" if np.isfinite(seconds) else f"{method} not noted")
    if not given:
        return []
    return [
        f"Given of the test video beside its sound: {'; '.join(given)}.",
        f"Trained for (seconds here, beside other work): {', '.join(spent)}; LSP, AD-NeRF and"
        " DFA-NeRF (beside its corpus networks) on each subject, the others once on the corpus.",
    ]


def table1(aspects: dict[str, dict | None]) -> pd.DataFrame:
    """Table 1, computed (`Method.aspects` by method; None where there is none) beside the paper's:
    one row a method and aspect. `agrees` is yes, or says what differs."""
    rows = []
    for method, printed in reported_aspects().items():
        computed = aspects.get(method)
        for aspect, paper in printed.items():
            value = computed[aspect] if computed else None
            agrees = "yes" if value == paper else f"computed {value or 'N/A'}"
            agrees = agrees if computed else "not implemented here"
            row = dict(method=method, aspect=aspect, paper=paper or "N/A")
            rows.append(row | dict(computed=value or ("N/A" if computed else ""), agrees=agrees))
    return pd.DataFrame(rows)


def side_by_side(videos: dict[str, np.ndarray], columns: int = 4) -> Iterator[np.ndarray]:
    """Frames of several videos {name: (T, S, S, 3)} beside each other, each with its name."""
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
