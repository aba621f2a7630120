"""The graph of notebooks: on small stand-ins every way a run can go, then smoke for real."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest

from dfa.evaluation.comparison import facts_of
from dfa.evaluation.paper import METHODS, RIVALS
from dfa.method.gpvae import VARIANTS
from dfa.report import origin

ROOT = Path(__file__).resolve().parents[1]
SERIES = [path.stem for path in sorted(ROOT.glob("notebooks/*.ipynb"))]
# Quick enough to run twice: their smoke copies run again, and what they print is compared.
AGAIN = ["00_overview"]


def snakemake(repo: Path, *arguments: str, **environment: str) -> list[str]:
    """Run the graph in `repo`; returns what it says, line by line, its exit status last."""
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", *arguments, "--config", "profile=smoke"],
        cwd=repo,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return [*done.stdout.splitlines(), f"exit {done.returncode}"]


def stand_in(*cells: str) -> nbformat.NotebookNode:
    """A notebook that takes a profile and runs `cells`."""
    code = [nbformat.v4.new_code_cell(cell) for cell in ('profile: str = "quick"', *cells)]
    code[0].metadata["tags"] = ["parameters"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# words"), *code])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "", "language": "python"}
    return notebook


def write(repo: Path, name: str, *cells: str) -> None:
    nbformat.write(stand_in(*cells), repo / "notebooks" / f"{name}.ipynb")


@pytest.fixture
def repo(tmp_path):
    """The graph as it is, a library of two modules, and notebooks that only count their runs."""
    shutil.copy(ROOT / "Snakefile", tmp_path)
    shutil.copytree(ROOT / "profiles", tmp_path / "profiles")
    for folder in ("notebooks", "dfa/data/captures"):
        (tmp_path / folder).mkdir(parents=True)
    for name in ("__init__.py", "alpha.py", "beta.py", "data/face_model.npz", "data/reported.yaml"):
        (tmp_path / "dfa" / name).touch()
    (tmp_path / "dfa" / "alpha.py").write_text("from .beta import x\n")
    for name in SERIES:
        write(tmp_path, name, count(name))
    return tmp_path


PAPERMILL = """
import json, sys
source, out, *_, profile = [a for a in sys.argv[1:] if not a.startswith("--")]
notebook, scope = json.load(open(source)), {}
for i, cell in enumerate(notebook["cells"]):
    if "parameters" in cell["metadata"].get("tags", []):
        given = dict(cell, id="given", metadata={}, source=[f'profile = "{profile}"'])
        notebook["cells"].insert(i + 1, given)
for i, cell in enumerate(notebook["cells"], 1):
    if cell["cell_type"] == "code":
        print(f"Executing Cell {i}---", flush=True)
        exec("".join(cell["source"]), scope)
json.dump(notebook, open(out, "w"))
"""


@pytest.fixture
def quick(repo):
    """`repo` with a papermill that runs cells without a kernel, which takes seconds to start."""
    (repo / "papermill.py").write_text(PAPERMILL)
    return repo


def count(name: str) -> str:
    """A cell that writes a line to runs/<profile>/NAME.ran each time it runs."""
    return f'print(file=open(f"runs/{{profile}}/{name}.ran", "a"))'


def runs(repo: Path) -> dict[str, int]:
    """How often each stand-in has run."""
    return {path.stem: len(path.read_text()) for path in (repo / "runs/smoke").glob("*.ran")}


FIRST, SECOND = "01_attributes", "02_disentanglement"
DONE_FIRST, DONE_SECOND = (f"runs/smoke/{name}.done" for name in (FIRST, SECOND))


@pytest.mark.long
def test_runs_what_is_out_of_date_and_nothing_else(quick):
    """A fresh clone brings copies and any times: it runs; then only what a change reaches runs."""
    repo = quick
    copies = repo / "figures/smoke/notebooks"
    copies.mkdir(parents=True)
    (copies / f"{FIRST}.ipynb").write_text("committed, and newer than its source")
    write(repo, SECOND, "if False:\n    from dfa import alpha", count(SECOND))
    snakemake(repo, DONE_SECOND)
    assert runs(repo) == {FIRST: 1, SECOND: 1}
    executed = nbformat.read(copies / f"{FIRST}.ipynb", as_version=4)
    assert 'profile = "smoke"' in executed.cells[2].source
    assert not list((repo / "runs/smoke").glob("*.ipynb"))

    (repo / "notebooks" / f"{FIRST}.ipynb").touch()  # newer, the same
    said = snakemake(repo, DONE_SECOND)
    assert any("Nothing to be done" in line for line in said)

    (repo / "dfa/beta.py").write_text("x = 1\n")  # through alpha
    snakemake(repo, DONE_SECOND)
    assert runs(repo) == {FIRST: 1, SECOND: 2}

    (copies / f"{SECOND}.ipynb").unlink()
    snakemake(repo, DONE_SECOND)
    assert runs(repo) == {FIRST: 1, SECOND: 3}

    write(repo, FIRST, "1", count(FIRST))
    snakemake(repo, DONE_FIRST)
    assert runs(repo) == {FIRST: 2, SECOND: 3}
    snakemake(repo, DONE_SECOND)  # as after a kill between the two
    assert runs(repo) == {FIRST: 2, SECOND: 4}


@pytest.mark.long
def test_a_failing_notebook_says_where(repo):
    write(repo, FIRST, "print('before')", "x = 1\nraise KeyError('no such subject')")
    *said, status = snakemake(repo, DONE_SECOND)
    text = "\n".join(said)
    assert status == "exit 1"
    assert f"{FIRST} failed in cell [4]: KeyError: 'no such subject'" in text
    partial = re.search(r"That cell is marked in (\S+)", text)[1]
    executed = nbformat.read(repo / partial, as_version=4)
    assert executed.cells[-1].outputs[-1].ename == "KeyError"
    assert "papermill/cli.py" not in text, "papermill's own frames are no one's business"
    assert not (repo / DONE_FIRST).exists()
    assert not list((repo / "figures").rglob("*.ipynb"))
    write(repo, FIRST, count(FIRST))
    snakemake(repo, DONE_SECOND)
    assert runs(repo) == {FIRST: 1, SECOND: 1}


STEPS = """import time
from pathlib import Path
steps = Path(f"runs/{profile}/steps")
for step in range(len(steps.read_text()) if steps.exists() else 0, 10):
    print(f"step {step}/10", flush=True)
    print(".", end="", file=steps.open("a"))
    time.sleep(0.5)"""


@pytest.mark.long
@pytest.mark.parametrize("whole_group", [True, False], ids=["group", "only the first process"])
def test_a_killed_run_goes_on(repo, whole_group):
    write(repo, FIRST, STEPS, count(FIRST))
    steps = repo / "runs/smoke/steps"
    job = subprocess.Popen(
        [sys.executable, "-m", "snakemake", DONE_SECOND, "--config", "profile=smoke"],
        cwd=repo,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    until = time.monotonic() + 60
    while not (steps.exists() and len(steps.read_text()) >= 3) and time.monotonic() < until:
        time.sleep(0.1)
    (os.killpg if whole_group else os.kill)(job.pid, signal.SIGKILL)
    job.wait()
    assert runs(repo) == {}
    said = snakemake(repo, DONE_SECOND)
    assert said[-1] == "exit 0"
    # No step twice: the kernel died with its run, or the second run waited for the first's.
    assert len(steps.read_text()) == 10
    assert not any(line.endswith("step 0/10") for line in said)
    # Whoever holds the lock while the second run starts may also have ended before it.
    assert runs(repo)[SECOND] == 1 and runs(repo)[FIRST] in ((1,) if whole_group else (1, 2))


@pytest.mark.long
def test_shows_where_it_is(repo):
    write(repo, FIRST, "for step in (1, 2):\n    print('step', step)", "y = 2")
    said = snakemake(repo, DONE_FIRST)
    ours = [line.split(maxsplit=1)[1] for line in said if line.startswith(FIRST)]
    assert ours[:2] == ['[1/4] profile: str = "quick"', '[2/4] profile = "smoke"']
    assert {"[3/4] for step in (1, 2):", "step 1", "step 2", "[4/4] y = 2"} <= set(ours)
    assert ours[-1].startswith("done in ")


@pytest.mark.long
def test_the_users_own_kernel_and_startup_are_not_used(repo, tmp_path):
    for folder in (".local/share/jupyter", "path"):
        kernel = tmp_path / folder / "kernels" / "python3"
        kernel.mkdir(parents=True)
        spec = {"argv": ["/bin/false"], "display_name": "x", "language": "python"}
        (kernel / "kernel.json").write_text(json.dumps(spec))
    startup = tmp_path / ".ipython/profile_default/startup"
    startup.mkdir(parents=True)
    (startup / "00.py").write_text("print('USER')")
    write(repo, FIRST, "import sys; print(sys.executable)")
    said = snakemake(repo, DONE_FIRST, HOME=str(tmp_path), JUPYTER_PATH=str(tmp_path / "path"))
    assert any(line.endswith(sys.executable) for line in said)
    assert not any("USER" in line for line in said)


def test_an_unknown_profile_is_one_line(repo):
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--config", "profile=huge"],
        cwd=repo,
        capture_output=True,
        text=True,
    )
    assert done.returncode
    assert done.stderr.splitlines()[-1] == (
        "no profile called 'huge': choose one of smoke, quick, full"
    )


# ------------------------------------------------------------------------------ the real thing


@pytest.fixture(scope="module")
def smoke():
    """figures/smoke, made or brought up to date."""
    said = snakemake(ROOT)
    assert said[-1] == "exit 0", "\n".join(said[-40:])
    return ROOT / "figures/smoke"


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_smoke_makes_every_artifact(smoke):
    entries = {entry["id"]: entry for entry in json.loads((smoke / "manifest.json").read_text())}
    assert {"figure3", "figure5", "table2", "talking_head_a", "talking_head_b"} <= set(entries)
    assert {"tracking", "disentanglement", "sync", "sync_options", "table5"} <= set(entries)
    assert {"table4", "table4_motion", "identity", "figure4", "figure6"} <= set(entries)
    for entry in entries.values():
        assert entry["notebook"] in SERIES
        assert entry["parameters"]["profile"] == "smoke"
        assert isinstance(entry["cell"], int)
    assert not origin.out_of_step([*entries.values()], ROOT)
    for name in SERIES:
        executed = nbformat.read(smoke / "notebooks" / f"{name}.ipynb", as_version=4)
        code = [cell for cell in executed.cells if cell.cell_type == "code"]
        assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert {"table1", "eyes", "neck", "comparison_a", "comparison_b"} <= set(entries)
    methods = {"table2": {*RIVALS, "Ground Truth", "DFA-NeRF"}}
    methods["table5"] = {"Ground Truth", "DFA-NeRF", "MFCC", "DeepSpeech"}
    for table, expected in methods.items():
        rows = (smoke / f"tables/{table}.csv").read_text().splitlines()
        assert rows[0] == "testset,method,metric,paper,value,ci_low,ci_high,n"
        found = {tuple(row.split(",")[:2]) for row in rows[1:]}
        assert found == {(n, method) for n in ("subject_a", "subject_b") for method in expected}
    for method in METHODS:
        failed = facts_of(ROOT / "runs/smoke/results" / method)["failed"]
        assert failed == {"subject_a": None, "subject_b": None}
    table2 = pd.read_csv(smoke / "tables/table2.csv").set_index(["metric", "method"]).value
    assert table2["psnr"].loc[list(METHODS)].notna().all()
    table1 = pd.read_csv(smoke / "tables/table1.csv", keep_default_na=False)
    assert set(table1[table1.method.isin(METHODS)].agrees) == {"yes"}
    table4 = pd.read_csv(smoke / "tables/table4.csv").groupby(["testset", "protocol"])
    variants, simple = set(VARIANTS), {"hold-last", "mean-pose", "GP"}
    metrics = {"d_rot", "d_pos", "d_rot_deg", "d_pos_mm"}
    for n in ("subject_a", "subject_b"):
        for protocol, methods, measured in (
            ("reconstruction", variants, metrics),
            ("prediction", variants | simple, metrics | {"crps"}),
            ("prediction, new person", variants | simple, metrics | {"crps"}),
            ("generation", variants | simple, {"speed_ratio", "freeze", "blinks_per_s"}),
        ):
            rows = table4.get_group((n, protocol))
            assert methods <= set(rows.method) and measured == set(rows.metric)
            assert rows.value.notna().all()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_table_4_of_somebodys_own_tracks(smoke, tmp_path):
    """A minute of tracks through notebook 04, with what smoke trained; too short is one line."""
    for name in ("Snakefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "runs/smoke", tmp_path / "runs/smoke")
    short = tmp_path / "runs/smoke/subject_a/attributes.npz"
    with np.load(short) as data:
        T = len(data["h"])
        minute = {k: np.concatenate([v] * 3) if len(v) == T else v for k, v in data.items()}
    np.savez(tmp_path / "minute.npz", **minute)
    command = [sys.executable, "-m", "papermill", ROOT / "notebooks/04_personality.ipynb"]
    command += ["out.ipynb", "-k", "python3", "-p", "profile", "smoke", "-p", "tracks"]
    run = lambda tracks: subprocess.run(  # noqa: E731
        [*command, tracks], cwd=tmp_path, capture_output=True, text=True
    )
    said = run("minute.npz").stderr
    tables = tmp_path / "figures/smoke/tables"
    assert (tables / "table4_tracks.csv").exists(), said[-3000:]
    found = pd.read_csv(tables / "table4_tracks.csv").groupby("protocol").method.agg(set)
    assert found["prediction"] == {*VARIANTS, "hold-last", "mean-pose", "GP"}
    assert found["reconstruction"] == found["generation"] == set(VARIANTS)
    assert "tracks of minute" in (tables / "table4_tracks.html").read_text()
    *_, last = (line for line in run(short).stderr.splitlines() if line.strip())
    assert last.endswith(f"has {T / 25:.0f} s: give 44 s or more of video")


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_smoke_again_finds_nothing_to_do(smoke):
    began = time.monotonic()
    assert any("Nothing to be done" in line for line in snakemake(ROOT))
    assert time.monotonic() - began < 20


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", AGAIN)
def test_smoke_copy_runs_again(smoke, name):
    copy = smoke / "notebooks" / f"{name}.ipynb"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--nbval-lax", "-p", "no:cacheprovider", copy],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4000:]
