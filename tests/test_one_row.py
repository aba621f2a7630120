"""What is new costs one place: a rival is a file, a metric and a claim are a row."""

import sys

import numpy as np
import pandas as pd
import pytest
from conftest import speaker

from dfa import captures, media, rivals
from dfa.evaluation import comparison, expert, metrics
from dfa.evaluation.paper import OURS, TRUTH
from dfa.report import claims, rules, tables
from dfa.rivals.perform import perform

FRAMES, SIZE = 60, 64
TOY = '''
"""A toy: the reference frame, darker where it is loud."""

import numpy as np

from ..media import SAMPLES_PER_FRAME
from .method import Method


class Toy(Method):
    """The reference frame, darker where it is loud."""

    name, learns_from, takes = "Toy", "subject", ("reference",)
    own, no_eyes = ("heads",), True

    def fit(self, corpus, subject):
        self.frame = subject.frames[0]

    def render(self, audio, pose=None, eyes=None, size=None):
        for loud in np.abs(audio).reshape(-1, SAMPLES_PER_FRAME).mean(1):
            yield (self.frame * np.exp(-loud)).astype(np.uint8)
'''


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """The class of a rival that is one file in a folder of rivals."""
    folder = tmp_path / "more"
    folder.mkdir()
    (folder / "toy.py").write_text(TOY)
    monkeypatch.setitem(sys.modules, "dfa.rivals.toy", None)
    monkeypatch.setattr(rivals, "toy", None, raising=False)
    del sys.modules["dfa.rivals.toy"]  # put back, which is to say not there, afterwards
    before = list(rivals.methods())
    monkeypatch.setattr(rivals, "__path__", [*rivals.__path__, str(folder)])
    found = rivals.methods()
    assert list(found) == [*before, "Toy"] and "Toy" not in before
    return found["Toy"]


@pytest.fixture
def results(toy, tmp_path):
    """A folder of results with a real video, and what the toy made beside it."""
    folder, source = tmp_path / "results", captures.path("subject_b")
    subject, test = speaker(20, SIZE), speaker(FRAMES, SIZE, 1)
    reason = perform(toy(tmp_path / "runs"), [], subject, test, {"own": test.audio}, folder)
    assert reason is None
    (folder / TRUTH).mkdir()
    real, sound = media.frames_of(source, None, SIZE, FRAMES), media.read_audio(source)
    sound = sound[: FRAMES * media.SAMPLES_PER_FRAME]
    media.write_video(folder / TRUTH / "somebody.mp4", iter(real), sound, lossless=True)
    return folder


def test_a_rival_is_one_file_and_a_metric_one_row(results, monkeypatch):
    row = metrics.Metric("Half the frames ↓", 1, lambda v: [len(v.frames) / 2])
    monkeypatch.setitem(metrics.METRICS, "toy_metric", row)

    table, reasons = comparison.table2(results, expert.load_expert())
    assert list(dict.fromkeys(table.method))[-3:] == ["Toy", TRUTH, OURS]
    assert not any("Toy" in line for line in reasons)
    value = table.set_index(["method", "metric"]).value
    assert np.isfinite(value["Toy", "psnr"]) and np.isnan(value["Toy", "blinks_per_s"])
    assert value["Toy", "toy_metric"] == value[TRUTH, "toy_metric"] == FRAMES / 2
    printed = tables.wide(table)
    assert printed.loc[("somebody", "Toy"), ("Half the frames ↓", "ours")] == f"{FRAMES / 2:.1f}"
    assert any("Toy: reference" in line for line in comparison.notes(results))

    facts = comparison.facts_of(results / "Toy")
    assert facts["any_size"] and facts["no_eyes"]
    aspects = comparison.table1({"Toy": facts["aspects"]}).set_index(["method", "aspect"])
    assert aspects.loc[("Toy", "target"), "computed"] == "specific"
    assert aspects.loc[("Toy", "personalized"), "computed"] == "heads"
    assert set(aspects.loc["Toy"].agrees) == {"not in the paper"}


@pytest.mark.parametrize(
    "value, verdict", [(3.0, claims.SUPPORTED), (1.0, claims.CONTRADICTED), (2.1, claims.UNDECIDED)]
)
def test_a_claim_is_one_row(tmp_path, monkeypatch, value, verdict):
    def rule(s):
        return rules.best(s, "made_up", "toy_metric", 1, "Toy", (OURS,))

    monkeypatch.setitem(claims.CLAIMS, "C99", claims.Claim("nowhere", "toys are best", rule))
    rows = [dict(testset="a", method=m, metric="toy_metric", value=v, ci_low=v - 0.2,
                 ci_high=v + 0.2) for m, v in (("Toy", value), (OURS, 2.0))]  # fmt: skip
    (tmp_path / "tables").mkdir()
    pd.DataFrame(rows).to_csv(tmp_path / "tables" / "made_up.csv", index=False)
    ledger = claims.ledger(tmp_path).set_index("id")
    assert list(ledger.index) == [*(f"C{k:02d}" for k in range(1, 23)), "C99"]
    told = ledger.loc["C99"]
    assert (told["says"], told["where"], told.verdict) == ("toys are best", "nowhere", verdict)
    assert told.paper_supports == "no table" and "Toy" in told.evidence
    assert f"C99 toys are best: {verdict}" in claims.verdicts(tmp_path, "C99")
    printed = claims.markdown(ledger.reset_index())
    assert f"| C99 | toys are best | {verdict} | no table |" in printed
