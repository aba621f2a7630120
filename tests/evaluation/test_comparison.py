"""Table 2 of a folder of videos: made-up methods on a few seconds of a capture."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from dfa import captures, media
from dfa.cli import main
from dfa.evaluation import comparison, expert, paper, protocol
from dfa.evaluation.metrics import METRICS
from dfa.evaluation.paper import OURS, RIVALS, TRUTH
from dfa.report import figures
from dfa.rivals.method import Method
from dfa.rivals.perform import perform

SECONDS = 3


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A folder of results: a perfect method, one that is a still, one whose file is cut short."""
    folder = tmp_path_factory.mktemp("results")
    source = captures.path("subject_b")
    frames = media.frames_of(source, None, 96)[: SECONDS * 25]
    audio = media.read_audio(source)[: SECONDS * media.SAMPLE_RATE]
    for name in (TRUTH, "Perfect", "ATVG", "LSP", "AD-NeRF"):
        (folder / name).mkdir()
    media.write_video(folder / TRUTH / "somebody.mp4", iter(frames), audio, lossless=True)
    shutil.copy(folder / TRUTH / "somebody.mp4", folder / "Perfect")
    still = np.repeat(frames[:1], len(frames), 0)
    media.write_video(folder / "ATVG" / "somebody.mp4", iter(still), audio, lossless=True)
    whole = (folder / "Perfect" / "somebody.mp4").read_bytes()
    (folder / "LSP" / "somebody.mp4").write_bytes(whole[: len(whole) // 3])
    # it follows the test video, and of its own accord it stares
    shutil.copy(folder / TRUTH / "somebody.mp4", folder / "AD-NeRF")
    media.write_video(folder / "AD-NeRF" / "somebody.own.mp4", iter(still), audio, lossless=True)
    return folder


@pytest.fixture(scope="module")
def table(results):
    return comparison.table2(results, expert.load_expert())


def test_every_method_has_its_row(results, table):
    rows, reasons = table
    assert list(dict.fromkeys(rows.method)) == [*RIVALS, "Perfect", TRUTH, OURS]
    for _, part in rows.groupby("method"):
        assert list(part.metric) == [name for name, m in METRICS.items() if m.of]
    value = rows.set_index(["method", "metric"]).value
    assert value["Perfect", "psnr"] == 100 and value["Perfect", "ssim"] == pytest.approx(1)
    assert value["Perfect", "lmd"] == pytest.approx(0, abs=1e-3)
    assert value["Perfect", "sync"] == value[TRUTH, "sync"]
    assert np.isnan(value[TRUTH, "psnr"])
    assert value["ATVG", "lmd"] > 0.5 and value["ATVG", "psnr"] < 40
    # no eyes of its own: no number; own eyes that stare: nought; a copy blinks as the original
    assert np.isnan(value["ATVG", "blinks_per_s"])
    assert value["AD-NeRF", "blinks_per_s"] == 0
    assert value["Perfect", "blinks_per_s"] == value[TRUTH, "blinks_per_s"]


def test_what_cannot_be_scored_is_an_empty_row_with_its_reason(table):
    rows, reasons = table
    for method in ("LSP", "Wav2Lip", OURS):
        assert rows[rows.method == method].value.isna().all()
    told = {line.split(",")[0]: line for line in reasons}
    assert set(told) == {"MakeItTalk", "Wav2Lip", "LSP", OURS}
    assert "no video" in told["Wav2Lip"] and "somebody.mp4" in told["LSP"]


def test_dfa_score_table(results, table, tmp_path, capsys):
    out = tmp_path / "table.csv"
    assert main(["score", "--table", str(results), "-o", str(out)]) == 0
    said = capsys.readouterr()
    assert "Perfect" in said.out and "empty: Wav2Lip, somebody: no video" in said.err
    pd.testing.assert_frame_equal(
        pd.read_csv(out), table[0], check_dtype=False, rtol=1e-4, atol=1e-6
    )
    assert main(["score", "--table", str(tmp_path), "--json"]) == 2
    assert main(["score", str(out)]) == 2
    last = capsys.readouterr().err.splitlines()
    assert f"no video in {tmp_path / TRUTH}" in last[-2] and "--table" in last[-1]


class Still(Method):
    """Repeats the reference frame."""

    name, learns_from, takes = "Still", "corpus", ("reference",)

    def fit(self, corpus, subject):
        self.frame = subject.frames[0]

    def render(self, audio, pose=None, eyes=None):
        self.seeds = [*getattr(self, "seeds", []), self.seed]
        yield from [self.frame] * media.frame_count(audio)


class Broken(Still):
    """Fails on the way."""

    name = "Broken"

    def render(self, audio, pose=None, eyes=None):
        yield self.frame
        raise ArithmeticError("not finite")


@pytest.fixture(scope="module")
def recordings():
    from dfa.method.tracking import track
    from dfa.recording import Recording

    attributes = track(captures.path("subject_b"), seconds=SECONDS, progress=False)
    whole = Recording.load("somebody", captures.path("subject_b"), attributes, 96)
    return whole.training, whole.test


def test_a_failing_method_leaves_its_reason_and_the_others_go_on(recordings, tmp_path, capsys):
    training, test = recordings
    for method in (Broken(tmp_path), still := Still(tmp_path, seed=5)):
        perform(method, [], training, test, {"own": training.audio}, tmp_path)
    assert still.seeds == [5, 6] and still.seed == 5  # videos do not share their blinks
    assert "ArithmeticError" in capsys.readouterr().err
    facts = {n: comparison.facts_of(tmp_path / n) for n in ("Broken", "Still", "Nobody")}
    assert facts["Broken"]["failed"] == {"somebody": "ArithmeticError: not finite"}
    assert not list((tmp_path / "Broken").glob("*.mp4"))
    assert facts["Still"]["failed"] == {"somebody": None} and facts["Nobody"] == {}
    assert facts["Still"]["aspects"]["target"] == "arbitrary"
    video = media.frames_of(tmp_path / "Still" / "somebody.mp4", None, 96)
    np.testing.assert_array_equal(video, np.repeat(training.frames[:1], len(test), 0))


def test_beside_no_method_at_all(recordings):
    training, test = recordings
    frames = {"copy": test.frames}
    rows = comparison.against_trivial(frames, training, test)
    value = rows.set_index(["method", "metric"]).value
    assert value["copy", "psnr"] == 100 and value["copy", "lmd"] == pytest.approx(0, abs=1e-6)
    assert value["reference repeated", "psnr"] < 60 < value["copy", "psnr"]
    assert value["copy", "opening_corr"] == pytest.approx(1)


def test_convergence_is_the_share_that_the_last_fifth_brought():
    falling = [10.0 - t for t in range(10)]
    # from 10 it fell to 3.5 in the fourth fifth and 1.5 in the last, which brought 2 of 8.5
    assert comparison.convergence(falling) == pytest.approx(2 / 8.5)
    flat = [1 + np.exp(-t) for t in range(100)]
    assert comparison.convergence(flat) == pytest.approx(0, abs=1e-6)
    assert np.isnan(comparison.convergence(falling[::-1]))
    parts = {"still falling": falling, "flat": flat, "rising": falling[::-1]}
    rows = [dict(method="X", part=k, testset="a", objective=y) for k, x in parts.items() for y in x]
    words = [line.partition(", ")[2] for line in comparison.converged(pd.DataFrame(rows))]
    assert words == ["NOT converged", "converged", "NOT converged"]


def test_curves_hold_the_objective_of_each_part(tmp_path):
    (tmp_path / "ATVG").mkdir()
    steps = [dict(step=k, loss=9 - k, pixel=k) for k in (1, 2)]
    facts = dict(curves={n: {"landmarks": steps, "pictures": steps} for n in "ab"})
    (tmp_path / "ATVG" / "facts.json").write_text(json.dumps(facts))
    curves = comparison.curves(tmp_path, ("ATVG", "LSP"), {"pictures": "pixel"})
    assert len(curves) == 8 and set(curves.method) == {"ATVG"} and set(curves.testset) == {"a", "b"}
    assert curves[curves.part == "landmarks"].objective.tolist() == [8, 7] * 2
    assert curves[curves.part == "pictures"].objective.tolist() == [1, 2] * 2
    figure = figures.training_curves(curves)
    assert [ax.get_title() for ax in figure.axes] == ["ATVG: landmarks", "ATVG: pictures"]
    assert [len(ax.lines) for ax in figure.axes] == [2, 2]
    assert figure.axes[1].lines[0].get_ydata().tolist() == [1, 2]


def test_trivial_verdicts_name_what_does_not_beat_a_baseline():
    values = {comparison.SIMPLE[0]: (20, 1.5), comparison.SIMPLE[1]: (21, 1.6)}
    values |= {"good": (30, 1.0), "poor": (20.5, 1.55)}
    rows = [
        dict(testset="a", method=m, metric=metric, value=v)
        for m, both in values.items()
        for metric, v in zip(("psnr", "lmd"), both, strict=True)
    ]
    assert comparison.trivial_verdicts(pd.DataFrame(rows)) == [
        "a good: beats both in LMD, beats both in PSNR",
        "a poor: does NOT beat both in LMD, does NOT beat both in PSNR",
    ]


def test_table_1_says_where_it_differs():
    aspects = paper.reported_aspects()
    other = {m: dict(a) for m, a in aspects.items() if m not in ("FACIAL", "LSP")}
    other["ATVG"]["framework"] = "NeRF"
    table = comparison.table1({**other, "LSP": None}).set_index(["method", "aspect"]).sort_index()
    assert table.agrees["ATVG", "framework"] == "computed NeRF"
    assert set(table.agrees["LSP"]) == set(table.agrees["FACIAL"]) == {"not implemented here"}
    rest = table.drop(index=["LSP", "FACIAL", "ATVG"])
    assert set(rest.agrees) == {"yes"} and len(table) == 5 * len(aspects)


def test_videos_side_by_side():
    videos = {f"m{k}": np.full((3 + k, 32, 32, 3), 40 * k, np.uint8) for k in range(6)}
    frames = list(comparison.side_by_side(videos, columns=4))
    assert len(frames) == 3 and frames[0].shape == (2 * 36, 4 * 32, 3)
    for k in range(6):
        y, x = 36 * (k // 4) + 4, 32 * (k % 4)
        assert (frames[1][y : y + 32, x : x + 32] == 40 * k).all()


def test_notes_say_what_was_given_and_spent(tmp_path):
    (tmp_path / "LSP").mkdir()
    facts = dict(takes=["pose", "eyes"], seconds={"a": {"x": 10, "y": 20}, "b": {"x": 40}})
    (tmp_path / "LSP" / "facts.json").write_text(json.dumps(facts))
    given, spent = comparison.notes(tmp_path)
    assert "LSP: pose, eyes" in given and "LSP 35 s" in spent
    assert comparison.notes(tmp_path / "LSP") == []


def test_videos_of_a_folder_are_those_that_are_there(results):
    found = comparison.videos(results, (TRUTH, "ATVG", "Wav2Lip"), "somebody", 32, 99)
    assert list(found) == [TRUTH, "ATVG"]
    assert found["ATVG"].shape == (SECONDS * 25, 32, 32, 3)


def test_own_eyes_of_a_video(results):
    reference = protocol.Reference(results / TRUTH / "somebody.mp4")
    moving, still = (
        reference.eyes(results / m / f).set_index("metric").value
        for m, f in ((TRUTH, "somebody.mp4"), ("AD-NeRF", "somebody.own.mp4"))
    )
    assert still["blinks_per_s"] == 0 and still["least_open"] > 0.9
    assert moving["least_open"] < still["least_open"]
