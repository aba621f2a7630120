"""The house: versions in one place, notebooks as they should be, nothing missing or too big."""

import json
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from shutil import copytree

import pandas as pd
import pytest
import yaml

import dfa
from dfa import captures
from dfa.report import claims, origin

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted(ROOT.glob("notebooks/*.ipynb"))
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def committed() -> list[Path]:
    """The files that are, or would be, in the repo."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_environment_repeats_pyproject():
    project = PYPROJECT["project"]
    conda = yaml.safe_load((ROOT / "environment.yml").read_text("utf-8"))
    python, _, pip = conda["dependencies"]
    extras = dict(project["optional-dependencies"])
    headless = extras.pop("headless")  # goes over mediapipe's OpenCV, so it cannot be beside it
    wanted = [*project["dependencies"], *sum(extras.values(), [])]
    assert sorted(pip["pip"]) == sorted([*wanted, "-e ."])
    assert python == "python" + project["requires-python"]
    pinned = [*wanted, *headless]
    assert all(re.fullmatch(r"[\w-]+==[\w.]+", line) for line in pinned), "pinned, each of them"


def test_both_builds_of_opencv_have_one_version():
    (headless,) = PYPROJECT["project"]["optional-dependencies"]["headless"]
    assert headless.replace("-headless", "") in PYPROJECT["project"]["dependencies"]
    for name in ("pyproject.toml", "environment.yml"):  # the comment for those without make
        command = f"pip install --no-deps --force-reinstall {headless}\n"
        assert command in (ROOT / name).read_text("utf-8")


def test_what_is_installed_is_what_is_pinned():
    from importlib.metadata import PackageNotFoundError, version

    project = PYPROJECT["project"]
    extras = sum(project["optional-dependencies"].values(), [])
    for name, pin in (line.split("==") for line in [*project["dependencies"], *extras]):
        try:
            assert version(name).split("+")[0] == pin, name
        except PackageNotFoundError:
            assert f"{name}=={pin}" in extras, f"{name} is missing"


def test_citation_and_licence_agree():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert citation["version"] == dfa.__version__
    assert citation["license"] == PYPROJECT["project"]["license"] == "MIT"
    assert (ROOT / "LICENSE").read_text("utf-8").startswith("MIT License")
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_the_series_is_whole():
    assert [n.stem for n in NOTEBOOKS] == [
        "00_overview",
        "01_attributes",
        "02_disentanglement",
        "03_sync",
        "04_personality",
        "05_radiance_field",
        "06_talking_head",
        "07_audio_features",
        "08_rivals_anyone",
        "09_rivals_person",
        "10_comparison",
        "11_user_study",
        "12_ledger",
    ]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_source(path):
    notebook = json.loads(path.read_text("utf-8"))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    lengths = [len("".join(cell["source"]).splitlines()) for cell in code]
    tagged = [cell for cell in code if "parameters" in cell["metadata"].get("tags", [])]
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    assert not any(cell["outputs"] or cell["execution_count"] for cell in code)
    assert max(lengths) <= 25
    assert len(tagged) == 1
    names = re.findall(r"^(\w+): (\w+) = ", "".join(tagged[0]["source"]), re.MULTILINE)
    assert names[:3] == [("profile", "str"), ("seed", "int"), ("device", "str")]


def test_lint():
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--output-format", "concise"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_unfinished_work():
    # Spelt so that this file does not find itself.
    unfinished = r"NotImplemente[d]|\bTOD[O]\b|\bFIXM[E]\b|\bXX[X]\b"
    outside = r"/w[o]rk/|\.\./sh[a]red"  # paths of one machine
    text = {".py", ".ipynb", ".md", ".yml", ".yaml", ".toml", ".cff", "", ".smk"}
    found = [
        f"{path.relative_to(ROOT)}: {match}"
        for path in committed()
        if path.suffix in text and "figures" not in path.relative_to(ROOT).parts
        for match in re.findall(f"{unfinished}|{outside}", path.read_text("utf-8", "replace"))
    ]
    assert not found
    long = [p.name for p in committed() if p.suffix == ".py" and p.read_bytes().count(b"\n") > 600]
    assert not long, "a module is a few screens"


def test_sizes():
    sizes = {path.relative_to(ROOT).as_posix(): path.stat().st_size for path in committed()}
    assert sum(sizes.values()) < 45e6
    big = {".mp4", ".mkv", ".npz", ".ipynb"}
    # the judge of `dfa score`; and at 0.55 million weights a recogniser reads better than at 0.2
    known = {f"dfa/data/weights/{name}.safetensors" for name in ("expert", "recogniser")}
    large = {p for p, n in sizes.items() if n > 1e6 and Path(p).suffix not in big}
    assert large <= known
    # An executed notebook is looked at in a browser: about 1 MB.
    assert not [p for p, n in sizes.items() if n > 2e6 and p.endswith(".ipynb")]


def test_wheel_has_all_data(tmp_path):
    copytree(ROOT / "dfa", tmp_path / "dfa", ignore=lambda *_: ["__pycache__"])
    for name in ("pyproject.toml", "LICENSE", "README.md"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "-w", tmp_path / "out", tmp_path], check=True, capture_output=True)
    with zipfile.ZipFile(next((tmp_path / "out").glob("*.whl"))) as wheel:
        inside = set(wheel.namelist())
    data = [f"dfa/data/{name}" for name in ("actors.yaml", "reported.yaml", "face_model.npz")]
    names = [captures.titled(*each) for each in captures.recordings_of(captures.NAMES)]
    data += [f"dfa/data/captures/{name}.{end}" for name in names for end in ("mp4", "npz")]
    assert set(data) <= inside
    assert {path.split("/")[0] for path in inside} == {"dfa", f"dfa-{dfa.__version__}.dist-info"}


@pytest.mark.long
def test_the_library_needs_no_studio():
    """Everything but dfa.studio imports where only the plain dependencies are installed."""
    code = (
        "import sys, importlib, pkgutil, dfa\n"
        "for name in ('anny', 'warp', 'pyvista', 'vtk', 'espeakng_loader'):\n"
        "    sys.modules[name] = None\n"
        "for module in pkgutil.walk_packages(dfa.__path__, 'dfa.', lambda _: None):\n"
        "    if 'studio' not in module.name and '__main__' not in module.name:\n"
        "        importlib.import_module(module.name)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_committed_figures_are_those_of_the_manifest():
    folder = ROOT / "figures" / "quick"
    entries = json.loads((folder / "manifest.json").read_text("utf-8"))
    wrong = [line for line in origin.out_of_step(entries, ROOT) if ".pdf: not here" not in line]
    assert not wrong, "deleted or edited: `make figures` makes it again"
    # a run makes .pdf beside each figure, which is not committed
    outputs = {path for e in entries for path in e["outputs"] if not path.endswith(".pdf")}
    copies = {f"figures/quick/notebooks/{path.name}" for path in NOTEBOOKS}
    there = {p.relative_to(ROOT).as_posix() for p in committed() if folder in p.parents}
    assert there == {*outputs, *copies, "figures/quick/manifest.json"}


def test_the_papers_artifacts_are_all_there():
    """Its tables and figures, each in the manifest by its name; data beside what shows numbers."""
    folder = ROOT / "figures" / "quick"
    entries = {e["id"]: e for e in json.loads((folder / "manifest.json").read_text("utf-8"))}
    tables = {f"table{k}": f"Table {k}" for k in range(1, 6)}
    figures = {f"figure{k}": f"Figure {k}" for k in range(1, 8)}
    named = {id: entry["paper"] for id, entry in entries.items() if entry["paper"]}
    assert named == tables | figures
    kinds = {id: {Path(p).suffix for p in entries[id]["outputs"]} for id in named}
    assert all(kinds[id] == {".csv", ".tex", ".html"} for id in tables)
    pictures_alone = {"figure2", "figure5"}  # of frames and networks
    assert all({".png", ".pdf"} <= kinds[id] for id in figures)
    assert {id for id in figures if ".csv" not in kinds[id]} == pictures_alone
    claims = pd.read_csv(folder / "tables/claims.csv")
    assert claims.id.tolist() == [f"C{k:02d}" for k in range(1, 23)]
    assert claims.notna().all().all() and "claims" in entries


def test_readme_prints_the_committed_table():
    table = pd.read_csv(ROOT / "figures/quick/tables/table2.csv")
    readme = (ROOT / "README.md").read_text("utf-8")
    digits = {"psnr": 1, "ssim": 3, "lmd": 2, "sync": 2, "blinks_per_s": 2}
    for (testset, method), rows in table.groupby(["testset", "method"]):
        cells = []
        for metric, d in digits.items():
            r = rows[rows.metric == metric].iloc[0]
            if pd.isna(r.value):
                cells.append("–")
            elif method == "Ground Truth" and metric in ("ssim", "lmd"):
                cells.append(f"{r.value:.0f}")
            else:
                cells.append(f"{r.value:.{d}f} [{r.ci_low:.{d}f}, {r.ci_high:.{d}f}]")
        assert f"| {testset} | {method} | {' | '.join(cells)} |" in readme


def test_readme_prints_the_ledger():
    folder = ROOT / "figures/quick"
    committed = pd.read_csv(folder / "tables/claims.csv")
    assert claims.markdown(claims.ledger(folder)) == claims.markdown(committed)
    readme = (ROOT / "README.md").read_text("utf-8")
    assert claims.markdown(committed) in readme
    assert f"on synthetic actors: {claims.counted(committed)}." in readme.split("\n## ")[0]


def test_readme_prints_the_measured_speed():
    fields = json.loads((ROOT / "dfa/data/bench.json").read_text())["fields"]
    readme = (ROOT / "README.md").read_text("utf-8")
    fast, paper = fields["fast"], fields["paper"]
    assert f"| training step | {fast['step_s']:.3f} s | {paper['step_s']:.1f} s |" in readme
    frames = f"| frames/s at 128×128 | {fast['fps_128']:.0f} | {paper['fps_128']:.3f} |"
    assert frames in readme
    assert f"{fast['psnr']:.1f} dB after {fast['train_s']:.0f} s" in readme
