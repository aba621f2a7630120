"""The user study: answers kept, scores against oracles, and the page in a real browser."""

import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import wilcoxon

from dfa import media, study
from dfa.evaluation.paper import METHODS, OURS, TRUTH
from dfa.study import opinions
from dfa.study.clips import LANGUAGES

ROOT = Path(__file__).resolve().parents[2]
FOUR = dict(zip(study.QUESTIONS, (1, 2, 3, 4), strict=True))


def results(folder: Path, methods=("LSP", OURS), keys=("own", "zh")) -> Path:
    """A folder of results: noise of a second, each video another."""
    rng = np.random.default_rng(0)
    names = [f"{TRUTH}/subject_a", *(f"{m}/subject_a.{k}" for m, k in product(methods, keys))]
    for name in names:
        path = folder / f"{name}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        frames = np.repeat(rng.integers(0, 255, (1, 32, 32, 3), np.uint8), 25, 0)
        media.write_video(path, frames, 0.1 * rng.standard_normal(16000), lossless=True)
    return folder


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    return study.prepare(results(folder / "results"), folder / "clips")


@pytest.fixture
def store(clips, tmp_path):
    with_answers = study.Store(tmp_path / "ratings.sqlite", clips)
    yield with_answers
    with_answers.close()


def test_clips_are_blind_alike_and_of_what_there_is(clips, tmp_path):
    told = [(c.method, c.testset, c.language, c.wanted) for c in clips]
    assert told == [
        ("LSP", "subject_a", "English", 0), ("LSP", "subject_a", "Mandarin", 0),
        (OURS, "subject_a", "English", 0), (OURS, "subject_a", "Mandarin", 0),
        (TRUTH, "subject_a", "", 2), (TRUTH, "subject_a", "", 4),
    ]  # fmt: skip
    assert len({c.id for c in clips}) == len(clips)
    for clip in clips:
        assert re.fullmatch(r"[0-9a-f]{12}\.mp4", clip.path.name)
        assert b"LSP" not in clip.path.read_bytes() and b"DFA" not in clip.path.read_bytes()
        assert media.frames_of(clip.path, None, 256).shape == (25, 256, 256, 3)
        assert len(media.read_audio(clip.path)) == pytest.approx(16000, abs=1100)
    with pytest.raises(media.InputError, match="no video to rate"):
        study.prepare(tmp_path, tmp_path)


def test_a_check_can_be_read(clips):
    asked, plain = (
        media.frames_of(c.path, None, 256)[0].astype(int) for c in (clips[-1], clips[0])
    )
    assert asked[:85].max() > 200 and (asked[:85] < 100).mean() > 0.7  # white on dark
    assert (plain[:85] < 100).mean() < 0.6


def test_answers_are_kept_and_orders_are_ones_own(store):
    one, other = store.join(), store.join()
    assert store.knows(one) and not store.knows("nobody")
    assert store.order(one) == store.order(one)
    assert sorted(c.id for c in store.order(one)) == sorted(c.id for c in store.clips)
    assert len({tuple(c.id for c in store.order(store.join())) for _ in range(10)}) > 3
    first = store.order(one)[0]
    store.rate(one, first, FOUR)
    again = study.Store(store.path, store.clips)  # as after a restart
    assert first not in again.remaining(one) and len(again.remaining(one)) == len(store.clips) - 1
    assert len(again.remaining(other)) == len(store.clips)
    kept = again.ratings()
    assert dict(zip(kept.question, kept.score, strict=True)) == FOUR
    assert set(kept["clip"]) == {first.id} and set(kept.method) == {first.method}
    assert again.ratings(other).empty
    again.close()


@pytest.mark.parametrize("scores", [{}, FOUR | {"sync": 6}, FOUR | {"sync": None}, {"sync": 3}])
def test_half_an_answer_is_none(store, scores):
    code = store.join()
    with pytest.raises(ValueError, match="scores from 1 to 5"):
        store.rate(code, store.clips[0], scores)
    assert store.ratings().empty


def test_a_full_disk_loses_no_answer_that_was_kept(store):
    code = store.join()
    store.rate(code, store.order(code)[0], FOUR)
    pages = store.db.execute("PRAGMA page_count").fetchone()[0]
    store.db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(sqlite3.OperationalError, match="full"):
        for clip in store.order(code)[1:] * 50:
            for k in range(5):
                store.rate(code, clip, FOUR)
                store.db.execute("INSERT INTO raters VALUES (?)", (f"{clip.id}{k}" * 40,))
    store.db.rollback()
    assert len(store.ratings(code)) % 4 == 0 and len(store.ratings(code)) >= 4


def test_what_is_no_database_is_an_error(tmp_path, clips):
    (tmp_path / "x.sqlite").write_text("these are notes, and not a database" * 99)
    with pytest.raises(media.InputError, match="cannot store ratings"):
        study.Store(tmp_path / "x.sqlite", clips)


def simulated(quality: dict[str, float], raters: int, checks: bool = True) -> pd.DataFrame:
    """Ratings that nobody gave, for tests alone: a method's quality, a rater's mood, and noise."""
    rng, rows = np.random.default_rng(1), []
    wanted = [("check", TRUTH, "subject_a", "", 2)] if checks else []
    said = product(quality, ("subject_a", "subject_b"), LANGUAGES.values())
    films = [(f"{m} {n} {l}", m, n, l, 0) for m, n, l in said]
    for rater, mood in enumerate(rng.normal(0, 0.4, raters)):
        for clip, method, testset, language, ask in [*films, *wanted]:
            for question in study.QUESTIONS:
                score = quality.get(method, 0) + mood + rng.normal(0, 0.6)
                score = ask or int(np.clip(round(score), 1, 5))
                rows.append((str(rater), 0, clip, method, testset, language, ask, question, score))
    columns = ["rater", "position", "clip", "method", "testset", "language", "wanted", "question"]
    return pd.DataFrame(rows, columns=[*columns, "score"])


QUALITY = dict(zip(METHODS, (1.5, 2.2, 2.6, 3.8, 3.6, 3.9), strict=True))


def test_who_misses_a_check_or_stops_is_left_out():
    ratings = simulated(QUALITY, 4)
    ratings.loc[(ratings.rater == "1") & (ratings.wanted > 0), "score"] = 3
    ratings = ratings[(ratings.rater != "2") | (ratings["clip"] != ratings["clip"].iloc[0])]
    kept = opinions.attentive(ratings)
    assert set(kept.rater) == {"0", "3"} and (kept.wanted == 0).all()


def test_table3_is_means_over_raters_and_clips():
    ratings = opinions.attentive(simulated(QUALITY, 20))
    table = opinions.table3(ratings)
    assert len(table) == 24 and table.paper.notna().all()
    row = table[(table.method == OURS) & (table.metric == "sync")].iloc[0]
    scores = ratings[(ratings.method == OURS) & (ratings.question == "sync")].score
    assert row.value == pytest.approx(scores.mean()) and row.n == len(scores) == 120
    # raters differ in mood, so that the interval is wider than that of 120 independent scores
    assert row.ci_high - row.ci_low > 1.2 * 2 * 1.96 * scores.std() / np.sqrt(120)
    assert row.ci_low < QUALITY[OURS] + 0.2 and row.ci_high > QUALITY[OURS] - 0.2


def test_nobodys_ratings_leave_the_papers_figures_alone():
    empty = simulated({}, 0)
    table = opinions.table3(opinions.attentive(empty))
    assert len(table) == 24 and table.value.isna().all() and table.paper.notna().all()
    assert opinions.paired(empty).empty
    assert np.isnan(list(opinions.agreement(empty).values())).all()


def test_agreement_is_krippendorffs():
    """His example of two observers and ten units (Computing Krippendorff's alpha, 2011), with
    ordinal distances by hand from the coincidence matrix."""
    a, b = [1, 2, 3, 3, 2, 1, 4, 1, 2, 5], [1, 2, 3, 3, 2, 2, 4, 1, 2, 5]
    rows = [(r, k, "sync", s) for r, x in enumerate((a, b)) for k, s in enumerate(x)]
    table = pd.DataFrame(rows, columns=["rater", "clip", "question", "score"])
    n_c = np.bincount(a + b, minlength=6)
    d = lambda c, k: (n_c[c : k + 1].sum() - (n_c[c] + n_c[k]) / 2) ** 2 if c <= k else d(k, c)  # noqa: E731
    observed = np.mean([d(*pair) for pair in zip(a, b, strict=True)])
    expected = sum(n_c[c] * n_c[k] * d(c, k) for c in range(6) for k in range(6)) / (20 * 19)
    assert opinions.agreement(table)["sync"] == pytest.approx(1 - observed / expected)
    noise = table.assign(score=np.random.default_rng(0).integers(1, 6, len(table)))
    assert opinions.agreement(noise)["sync"] < 0.6


def test_paired_tests_find_what_differs_and_not_what_does_not():
    equal = dict.fromkeys(METHODS, 3.0)
    ratings = simulated(QUALITY, 20, checks=False)
    table = opinions.paired(ratings)
    found = table.set_index(["question", "method"])
    assert (found.loc["sync"].q[["ATVG", "MakeItTalk", "Wav2Lip"]] < 0.001).all()
    assert (found.difference.xs("ATVG", level=1) > 2).all()
    assert (table.q >= table.p).all()
    assert (opinions.paired(simulated(equal, 20)).q > 0.05).all()
    # by hand: one rater's difference is the mean over the sentences
    rows = ratings[(ratings.question == "sync") & ratings.method.isin([OURS, "LSP"])]
    means = rows.groupby(["rater", "method"]).score.mean().unstack()
    apart = (means[OURS] - means["LSP"]).round(9)
    assert found.loc[("sync", "LSP"), "difference"] == pytest.approx(apart.mean())
    assert found.loc[("sync", "LSP"), "p"] == pytest.approx(wilcoxon(apart).pvalue)


def test_the_page_says_why_answers_were_not_kept(store, monkeypatch):
    page = study.Page(store)
    page.begin()
    *_, following, message = page.children
    rows = [child for child in page.children if hasattr(child, "options")]
    assert following.disabled
    for row in rows:
        row.value = 3
    assert not following.disabled
    clip = store.remaining(page.code)[0]

    def full(*_):
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(store, "rate", full)
        following.click()
    assert "disk is full" in message.value and store.remaining(page.code)[0] == clip
    following.click()  # there is room again
    assert clip not in store.remaining(page.code)


# ------------------------------------------------------------------------------ in a real browser


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The study's page as `make study` serves it, from a repo with a few videos: address, repo."""
    repo = tmp_path_factory.mktemp("repo")
    for name in ("Snakefile", "pyproject.toml", "notebooks"):
        (repo / name).symlink_to(ROOT / name)
    results(repo / "runs/smoke/results", keys=("own",))
    port = free_port()
    log = open(repo / "voila.log", "w")
    server = subprocess.Popen(
        [sys.executable, "-m", "dfa.study", "smoke", "--no-browser", f"--port={port}"],
        cwd=repo, stdout=log, stderr=log, start_new_session=True,
        env={k: v for k, v in os.environ.items() if k != "DFA_WORKFLOW"},
    )  # fmt: skip
    try:
        for _ in range(120):
            try:
                urllib.request.urlopen(f"http://localhost:{port}/static/", timeout=1)
            except urllib.error.HTTPError:
                break
            except OSError:
                assert server.poll() is None, (repo / "voila.log").read_text()
                time.sleep(0.5)
        yield f"http://localhost:{port}", repo
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(20)


@pytest.fixture
def browser():
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if not found and not (found := shutil.which("google-chrome")):
        pytest.skip("needs a Chromium (Debian: apt-get install chromium)")
    from playwright.sync_api import sync_playwright

    quiet = ["--no-sandbox", "--disable-background-networking", "--disable-component-update"]
    with sync_playwright() as p:
        yield p.chromium.launch(executable_path=found, args=quiet)


def rate_one(page, scores) -> None:
    """Choose four scores of the clip that is shown, and go on."""
    video = page.locator("video")
    video.wait_for()
    page.wait_for_function("document.querySelector('video').readyState >= 2")  # it can be played
    rows = page.locator(".widget-toggle-buttons")
    for k, score in enumerate(scores):
        assert page.get_by_role("button", name="Next").is_disabled()
        rows.nth(k).get_by_role("button").nth(score - 1).click()
    before = page.locator("b").first.inner_text()
    page.get_by_role("button", name="Next").click()
    page.wait_for_function("old => document.querySelector('b')?.innerText !== old", arg=before)


@pytest.mark.slow
def test_rate_close_resume_export(browser, served, tmp_path):
    address, repo = served
    asked = set()
    page = browser.new_page()
    page.on("request", lambda r: asked.add(r.url))
    page.on("requestfailed", lambda r: r.failure == "csp" and asked.discard(r.url))
    page.goto(address)
    begin = page.get_by_role("button", name="Begin")
    begin.wait_for(timeout=60_000)
    assert "no name, no address" in page.inner_text("body") and begin.is_disabled()
    page.get_by_text("I am of age").click()
    begin.click()
    page.get_by_text("Video 1 of 4").wait_for()
    code = page.locator("code").inner_text()
    rate_one(page, (1, 2, 3, 4))
    page.get_by_text("Video 2 of 4").wait_for()
    words = page.content()
    assert not any(name in words for name in (*METHODS, "subject_a")), "blind"
    page.close()

    page = browser.new_page(accept_downloads=True)
    page.on("request", lambda r: asked.add(r.url))
    page.on("requestfailed", lambda r: r.failure == "csp" and asked.discard(r.url))
    page.goto(address)
    page.get_by_placeholder("your code").fill("0000")
    page.get_by_role("button", name="Continue").click()
    page.get_by_text("This code is unknown").wait_for(timeout=60_000)
    page.get_by_placeholder("your code").fill(code)
    page.get_by_role("button", name="Continue").click()
    page.get_by_text("Video 2 of 4").wait_for()
    rate_one(page, (5, 4, 3, 2))
    rate_one(page, (2, 2, 2, 2))
    rate_one(page, (4, 4, 5, 1))
    page.get_by_text("Thank you").wait_for()
    with page.expect_download() as download:
        page.get_by_text("Your answers (.csv)").click()
    download.value.save_as(tmp_path / "own.csv")

    kept = sqlite3.connect(repo / "runs/smoke/study/ratings.sqlite")
    rows = kept.execute("SELECT rater, position, question, score FROM answers").fetchall()
    given = [(1, 2, 3, 4), (5, 4, 3, 2), (2, 2, 2, 2), (4, 4, 5, 1)]
    wanted = {(code, t, q, s) for t, x in enumerate(given)
              for q, s in zip(study.QUESTIONS, x, strict=True)}  # fmt: skip
    assert set(rows) == wanted
    own = pd.read_csv(tmp_path / "own.csv")
    assert set(own[["position", "question", "score"]].itertuples(index=False, name=None)) == {
        row[1:] for row in wanted
    }
    hosts = {re.match(r"\w+://([^/:]+)", url)[1] for url in asked if url.startswith("http")}
    assert hosts == {"localhost"}, [u for u in asked if "localhost" not in u]


def test_the_page_has_the_page_cells_alone(tmp_path, monkeypatch):
    from dfa.study.__main__ import page

    for name in ("Snakefile", "pyproject.toml", "notebooks"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(media.InputError, match="make figures"):
        page("smoke")
    (tmp_path / "runs/smoke/results").mkdir(parents=True)
    cells = json.loads(Path(page("smoke")).read_text())["cells"]
    text = ["".join(cell["source"]) for cell in cells]
    assert all(cell["cell_type"] == "code" for cell in cells)
    assert text[0].endswith('profile = "smoke"') and "study.Page(store)" in text[-1]
    assert not any("run." in cell or "save_" in cell for cell in text), "nothing is measured there"
    light = "import sys; from dfa import study; from dfa.report import provenance;"
    light += "print('torch' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", light], capture_output=True, text=True)
    assert said.stdout == "False\n", "each rater has a kernel of their own"
