"""dfa.report: the same bytes twice, a true manifest, tables in long form and as printed."""

import hashlib
import json
import os
import subprocess
import sys

import matplotlib
import numpy as np
import pandas as pd
import pypdf
import pytest
from PIL import Image

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from dfa.report import figures, provenance, tables
from dfa.report.__main__ import main

SCHEMA = {
    "id": str,
    "paper": (str, type(None)),
    "notebook": str,
    "cell": (int, type(None)),
    "parameters": dict,
    "seeds": list,
    "commit": (str, type(None)),
    "dirty": (bool, type(None)),
    "inputs": dict,
    "outputs": dict,
    "device": str,
    "wall_s": float,
    "created": str,
}
TABLE = pd.DataFrame(
    [
        ("subject_a", "Ground Truth", "psnr", np.nan, np.nan, np.nan, np.nan, 4),
        ("subject_a", "DFA-NeRF", "psnr", 29.12, 31.234, 30.5, 32.0, 4),
        ("subject_a", "DFA-NeRF", "blinks_per_s", 0.46, 0.5, np.nan, np.nan, None),
    ],
    columns=["testset", "method", "metric", "paper", "value", "ci_low", "ci_high", "n"],
)


def sha(path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def repo(tmp_path, monkeypatch):
    """An empty repo, and the current folder in it."""
    for name in ("Snakefile", "pyproject.toml"):
        (tmp_path / name).touch()
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def a_figure():
    fig, ax = plt.subplots(figsize=(3, 2))
    ax.plot([0, 1, 4], label="$f_m$")
    ax.imshow(np.arange(12).reshape(3, 4))
    ax.legend()
    return fig


def a_grid():
    """Two frames like photographs: smooth colours, some noise."""
    y, x = np.mgrid[:128, :128] / 128
    smooth = np.stack([x, y, (1 + np.sin(6 * x * y)) / 2], axis=-1)
    frames = smooth + np.random.default_rng(0).normal(0, 0.02, (2, 128, 128, 3))
    return figures.frame_grid([(255 * frames.clip(0, 1)).astype(np.uint8)])


def test_manifest_entry_is_true(repo):
    (repo / "data.bin").write_bytes(b"abc")
    run = provenance.start("01_test", "smoke", seed=[3, 4], inputs=["data.bin"], device="cpu", k=2)
    run.save_figure(a_figure(), "figure9", paper="Figure 9", data=pd.DataFrame({"x": [1.5]}))
    run.save_table(TABLE, "table9", paper="Table 9")
    video = run.path("talk.mp4")
    video.write_bytes(b"film")
    run.save_file(video, "talk")
    entries = json.loads((repo / "figures/smoke/manifest.json").read_text())
    assert [entry["id"] for entry in entries] == ["figure9", "table9", "talk"]
    for entry in entries:
        assert set(entry) == set(SCHEMA)
        assert all(isinstance(entry[key], kind) for key, kind in SCHEMA.items())
        assert entry["outputs"] == {path: sha(repo / path) for path in entry["outputs"]}
        assert entry["inputs"] == {"data.bin": hashlib.sha256(b"abc").hexdigest()}
        assert entry["parameters"] == {"profile": "smoke", "seed": 3, "device": "cpu", "k": 2}
        assert (entry["seeds"], entry["cell"], entry["commit"]) == ([3, 4], None, None)
    made = {path.relative_to(repo).as_posix() for path in (repo / "figures").rglob("[!.]*.*")}
    assert made == {
        "figures/smoke/manifest.json",
        *(path for entry in entries for path in entry["outputs"]),
    }
    assert {path.rpartition(".")[2] for path in entries[0]["outputs"]} == {"png", "pdf", "csv"}
    assert {path.rpartition(".")[2] for path in entries[1]["outputs"]} == {"csv", "tex", "html"}


def test_figures_carry_their_origin(repo):
    (repo / "data.bin").write_bytes(b"abc")
    run = provenance.start("01_test", "smoke", seed=[3, 4], inputs=["data.bin"], k=2)
    for figure in (a_figure(), a_grid()):  # one whose PDF is written again, with photographs
        run.save_figure(figure, "figure9", paper="Figure 9")
        (entry,) = provenance.manifest(repo / "figures/smoke")
        drawn = repo / "figures/smoke/figure9"
        for said in (
            Image.open(drawn.with_suffix(".png")).text["Description"],
            pypdf.PdfReader(drawn.with_suffix(".pdf")).metadata.subject,
        ):
            told = json.loads(said)
            assert told == {key: entry[key] for key in told}
            assert set(told) == set(SCHEMA) - {"outputs", "wall_s", "created"}


def a_tight_one():
    """Axes that reach the figure's edge: its labels lie outside."""
    fig = plt.figure(figsize=(4, 2))
    ax = fig.add_axes((0.0, 0.0, 1.0, 1.0), xlabel="step", ylabel="dB")
    ax.plot([0, 1, 4])
    return fig


def a_loose_one():
    """Drawings with white around them, laid out anew when they are saved."""
    fig, axes = plt.subplots(2, 3, figsize=(6, 4), layout="constrained")
    for ax in axes.flat:
        ax.imshow(np.arange(12).reshape(3, 4))
        ax.set_title("title")
    fig.text(0.1, -0.2, "words below\nin two lines")
    return fig


@pytest.mark.parametrize("draw", [a_figure, a_grid, a_tight_one, a_loose_one])
def test_the_footer_stands_below_everything(repo, draw):
    """It covers nothing, and no white band lies between."""
    run, fig = provenance.start("01_test", "smoke"), draw()
    for _ in range(2):
        run.save_figure(fig, "f")
    footer = fig.texts[-1]
    assert [text.get_text() for text in fig.texts].count(run.footer) == 1
    fig.set_dpi(provenance.DPI)
    fig.draw_without_rendering()
    box = footer.get_window_extent().transformed(fig.dpi_scale_trans.inverted())
    footer.remove()
    others = fig.get_tightbbox()
    assert 0 < others.y0 - box.y1 < 0.15  # inches
    assert abs(box.x1 - others.x1) < 0.02
    for artist in fig.get_children():
        if artist is not fig.patch:
            around = artist.get_tightbbox().transformed(fig.dpi_scale_trans.inverted())
            assert around.y0 > box.y1

    dark = np.asarray(Image.open(run.path("f.png")).convert("L")).min(1) < 250
    rows = np.flatnonzero(dark)
    gaps = np.diff(rows) - 1  # the footer's letters, from below, then the gap above it
    lines = np.flatnonzero(gaps > 2)
    assert gaps[lines[-1]] < 0.15 * provenance.DPI
    assert (len(dark) - 1 - rows[lines[-1] + 1]) < 0.3 * provenance.DPI  # all below is the footer


def test_saving_again_replaces(repo):
    for text in (b"one", b"two"):
        run = provenance.start("01_test", "smoke")
        run.path("x.mp4").write_bytes(text)
        run.save_file("figures/smoke/x.mp4", "x")
    (entry,) = provenance.manifest(repo / "figures/smoke")
    assert entry["outputs"] == {"figures/smoke/x.mp4": hashlib.sha256(b"two").hexdigest()}
    with pytest.raises(ValueError, match="not under"):
        run.save_file("/etc/hostname", "y")


def test_commit_and_dirty_leave_the_artifacts_out(repo):
    def git(*arguments):
        who = ["-c", "user.name=t", "-c", "user.email=t@t"]
        done = subprocess.run(["git", *who, *arguments], cwd=repo, check=True, capture_output=True)
        return done.stdout.decode().strip()

    git("init", "-q")
    git("add", "-A")
    git("commit", "-qm", "first")
    provenance.start("01_test", "quick").save_figure(a_figure(), "figure9")
    provenance.start("01_test", "quick").save_figure(a_figure(), "figure9")
    (entry,) = provenance.manifest(repo / "figures/quick")
    assert (entry["commit"], entry["dirty"]) == (git("rev-parse", "HEAD"), False)
    (repo / "Snakefile").write_text("changed")
    provenance.start("01_test", "quick").save_figure(a_figure(), "figure9")
    assert provenance.manifest(repo / "figures/quick")[0]["dirty"] is True


@pytest.mark.long
def test_bytes_depend_on_the_drawing_alone(repo):
    """Two processes, other hash seeds, other folders: the same figures and tables."""
    code = (
        "import sys, matplotlib; matplotlib.use('Agg'); sys.path.insert(0, sys.argv[1])\n"
        "from test_provenance import TABLE, a_figure, a_grid\n"
        "from dfa.report import provenance\n"
        "run = provenance.start('01_test', 'smoke'); run.save_table(TABLE, 't')\n"
        "figure = a_figure(); run.save_figure(figure, 'f', data=TABLE)\n"
        "run.save_figure(a_grid(), 'g')\n"
        "run.save_figure(figure, 'f', data=TABLE)\n"  # twice: the footer is not drawn over itself
    )
    hashes = []
    for seed in ("1", "2"):
        env = {**os.environ, "PYTHONHASHSEED": seed, "SOURCE_DATE_EPOCH": seed * 9}
        here = os.path.dirname(__file__)
        subprocess.run([sys.executable, "-c", code, here], cwd=repo, env=env, check=True)
        (f, g, t) = provenance.manifest(repo / "figures/smoke")
        hashes.append({**f["outputs"], **g["outputs"], **t["outputs"]})
    assert len(hashes[0]) == 8
    assert hashes[0] == hashes[1]


def test_a_chart_keeps_its_colours_in_a_palette(repo):
    """And a photograph all of its."""
    run = provenance.start("01_test", "smoke")
    for draw, kind in ((a_figure, "P"), (a_grid, "RGB")):
        fig = draw()
        run.save_figure(fig, "f")
        fig.savefig(repo / "own.png", dpi=provenance.DPI, bbox_inches="tight")
        ours, own = Image.open(run.path("f.png")), Image.open(repo / "own.png")
        assert ours.mode == kind
        off = np.asarray(ours.convert("RGB"), int) - np.asarray(own.convert("RGB"))
        assert np.abs(off).max() <= (10 if kind == "P" else 0)
        assert run.path("f.png").stat().st_size < (repo / "own.png").stat().st_size


def test_photographs_are_jpeg_in_the_pdf(repo):
    def images(path):
        (page,) = pypdf.PdfReader(path).pages
        kinds = [i.indirect_reference.get_object()["/Filter"] for i in page.images]
        return kinds, np.array([np.asarray(i.image, float) for i in page.images])

    run, fig = provenance.start("01_test", "smoke"), a_grid()
    run.save_figure(fig, "f")
    path, own = run.path("f.pdf"), repo / "own.pdf"
    fig.savefig(own, dpi=150, bbox_inches="tight")  # with the footer that it has by now
    assert path.stat().st_size < 0.5 * own.stat().st_size
    (ours, pixels), (theirs, lossless) = images(path), images(own)
    assert (ours, theirs) == (["/DCTDecode"] * 2, ["/FlateDecode"] * 2)
    assert np.abs(pixels - lossless).mean() < 4
    saved = path.read_bytes()
    reader = pypdf.PdfReader(path)
    assert (reader.pdf_header, "/ID" in reader.trailer) == ("%PDF-1.4", False)
    assert set(reader.metadata) == {"/Subject"}
    run.save_figure(fig, "f")
    assert path.read_bytes() == saved


def test_transparent_photographs_keep_their_mask(repo):
    fig, ax = plt.subplots(figsize=(3, 2))
    values = np.zeros((300, 300, 4))
    values[..., :3] = np.random.default_rng(0).random((300, 300, 3))
    values[:, 100:, 3] = 1
    ax.imshow(values, interpolation="nearest")
    run = provenance.start("01_test", "smoke")
    run.save_figure(fig, "f")
    fig.savefig(repo / "own.pdf", dpi=150, bbox_inches="tight")
    ours, theirs = (
        next(iter(pypdf.PdfReader(p).pages[0].images)).indirect_reference.get_object()
        for p in (run.path("f.pdf"), repo / "own.pdf")
    )
    assert (ours["/Filter"], theirs["/Filter"]) == ("/DCTDecode", "/FlateDecode")
    assert ours["/SMask"].get_data() == theirs["/SMask"].get_data()


@pytest.mark.parametrize("kind", ["lines", "palette"])
def test_other_pdfs_are_matplotlibs_own(repo, kind):
    fig, ax = plt.subplots(figsize=(3, 2))
    ax.plot([0, 1, 4])
    if kind != "lines":
        ax.imshow(np.random.default_rng(0).random((400, 400)), interpolation="nearest")
    run = provenance.start("01_test", "smoke")
    run.save_figure(fig, "f")
    told = {"CreationDate": None, "Creator": None, "Producer": None}
    told["Subject"] = pypdf.PdfReader(run.path("f.pdf")).metadata.subject
    fig.savefig(repo / "own.pdf", dpi=150, bbox_inches="tight", metadata=told)
    assert run.path("f.pdf").read_bytes() == (repo / "own.pdf").read_bytes()


@pytest.mark.long
def test_many_processes_write_one_manifest(repo):
    code = (
        "import sys; from dfa.report import provenance; run = provenance.start('n', 'smoke')\n"
        "for i in range(15):\n"
        "    path = run.path(f'{sys.argv[1]}{i}.mp4'); path.write_bytes(b'x')\n"
        "    run.save_file(path, path.stem)\n"
    )
    jobs = [subprocess.Popen([sys.executable, "-c", code, who], cwd=repo) for who in "abc"]
    assert [job.wait() for job in jobs] == [0, 0, 0]
    ids = [entry["id"] for entry in provenance.manifest(repo / "figures/smoke")]
    assert ids == sorted(f"{who}{i}" for who in "abc" for i in range(15))


def test_every_artifact_says_profile_and_data(repo):
    run = provenance.start("01_test", "smoke")
    shown = run.save_table(TABLE, "t", paper="Table 9")
    fig = a_figure()
    run.save_figure(fig, "f")
    says = ("profile smoke", "sample captures, synthetic actors")
    for text in (
        shown.data,
        (repo / "figures/smoke/tables/t.html").read_text(),
        (repo / "figures/smoke/tables/t.tex").read_text(),
        fig.texts[-1].get_text(),
    ):
        assert all(words in text for words in says)


def test_csv_is_long_form(repo):
    run = provenance.start("01_test", "smoke")
    run.save_table(TABLE[["metric", "testset", "value", "method", "n"]], "t")
    lines = (repo / "figures/smoke/tables/t.csv").read_text().splitlines()
    assert lines[0] == "testset,method,metric,paper,value,ci_low,ci_high,n"
    assert lines[1] == "subject_a,Ground Truth,psnr,,,,,4"
    assert lines[2] == "subject_a,DFA-NeRF,psnr,,31.234,,,4"
    run.save_table(TABLE.assign(protocol="generation"), "p")
    header = (repo / "figures/smoke/tables/p.csv").read_text().splitlines()[0]
    assert header == "testset,protocol,method,metric,paper,value,ci_low,ci_high,n"


@pytest.mark.parametrize(
    ("table", "says"),
    [
        (TABLE.drop(columns="value"), r"lacks \['value'\]"),
        (TABLE.assign(comment="x"), r"unknown \['comment'\]"),
        (pd.concat([TABLE, TABLE]), "twice"),
    ],
)
def test_a_wrong_table_is_refused(repo, table, says):
    with pytest.raises(ValueError, match=says):
        provenance.start("01_test", "smoke").save_table(table, "t")
    assert not list((repo / "figures/smoke").rglob("*.csv"))


def test_a_table_without_metrics_is_kept_as_it_is(repo):
    claims = pd.DataFrame({"id": ["C01"], "verdict": ["holds"], "data": [None]})
    provenance.start("01_test", "smoke").save_table(claims, "claims")
    assert (repo / "figures/smoke/tables/claims.csv").read_text() == "id,verdict,data\nC01,holds,\n"


def test_wide_is_the_papers_layout():
    wide = tables.wide(TABLE)
    assert wide.index.tolist() == [("subject_a", "Ground Truth"), ("subject_a", "DFA-NeRF")]
    assert list(wide.columns) == [
        (metric, who) for metric in ("PSNR ↑", "Blinks/s") for who in ("paper", "ours")
    ]
    assert wide.loc[("subject_a", "DFA-NeRF")].tolist() == [
        "29.12",
        "31.23 [30.50, 32.00]",
        "0.46",
        "0.50",
    ]
    assert set(wide.loc[("subject_a", "Ground Truth")]) == {"–"}
    without = tables.wide(TABLE.drop(columns="paper"))
    assert {who for _, who in without.columns} == {"ours"}


def test_the_terminal_summary(repo, monkeypatch, capsys):
    run = provenance.start("06_talking_head", "smoke")
    monkeypatch.setattr(sys, "argv", ["dfa.report", "figures/smoke"])
    assert main() == 2
    assert "run `make figures` first" in capsys.readouterr().err
    run.save_table(TABLE, "table2")
    run.path("talking_head_a.mp4").write_bytes(b"x")
    assert main() == 0
    said = capsys.readouterr().out
    assert "31.23 [30.50, 32.00]" in said
    assert "29.12" in said
    assert "talking_head_a.mp4" in said


def test_the_cell_is_the_number_in_brackets(repo):
    import nbformat
    from nbclient import NotebookClient

    cells = [
        "from dfa.report import provenance",
        "run = provenance.start('n', 'smoke')",
        "path = run.path('x.mp4'); path.write_bytes(b''); run.save_file(path, 'x')",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# words")])
    notebook.cells += [nbformat.v4.new_code_cell(cell) for cell in cells]
    NotebookClient(
        notebook, kernel_name="python3", resources={"metadata": {"path": repo}}
    ).execute()
    (entry,) = provenance.manifest(repo / "figures/smoke")
    assert entry["cell"] == notebook.cells[-1].execution_count == 3
