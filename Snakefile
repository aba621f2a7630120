"""The graph of notebooks. `make figures` runs it; so does `snakemake --config profile=smoke`.

A notebook is run by papermill and leaves its executed copy in figures/<profile>/notebooks/. What
says that it is up to date is runs/<profile>/NN.done, which is never committed: in a fresh clone
everything runs, whatever copies and times came with it. A notebook keeps its own checkpoints in
runs/<profile>/, so one that was killed goes on where it was.
"""

import ast
import fcntl
import json
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

from snakemake.exceptions import WorkflowError

PROFILE = config.get("profile", "quick")
if PROFILE not in ("smoke", "quick", "full"):
    sys.exit(f"no profile called {PROFILE!r}: choose smoke, quick or full")

AFTER = {
    "01_attributes": [],
    "02_disentanglement": ["01_attributes"],
    "03_sync": ["02_disentanglement"],
    "04_personality": ["02_disentanglement", "03_sync"],
    "05_radiance_field": ["02_disentanglement", "03_sync"],
    "06_talking_head": ["04_personality", "05_radiance_field"],
    "07_audio_features": ["02_disentanglement", "03_sync"],
    "08_rivals_anyone": ["01_attributes"],
    "09_rivals_person": ["07_audio_features"],
    "10_comparison": ["06_talking_head", "08_rivals_anyone", "09_rivals_person"],
    "11_user_study": ["10_comparison"],
    "12_ledger": ["11_user_study"],
    "00_overview": ["12_ledger"],  # it opens the series and shows what the others found
}
CAPTURES = sorted(map(str, Path("dfa/data/captures").glob("*")))
DATA = {
    "01_attributes": ["dfa/data/face_model.npz", *CAPTURES],
    "05_radiance_field": ["dfa/data/bench.json"],
    "07_audio_features": ["dfa/data/reported.yaml"],
    "10_comparison": ["dfa/data/reported.yaml"],
    "11_user_study": ["dfa/data/reported.yaml"],
    "12_ledger": ["dfa/data/reported.yaml"],
    "00_overview": ["dfa/data/reported.yaml"],
}
CORES = workflow.cores or os.cpu_count()  # a cluster's executor gives none
# These run side by side: two of them on two cores, all on more.
THREADS = {
    "04_personality": 1,
    "05_radiance_field": max(1, CORES // 2),
    "06_talking_head": max(1, CORES // 2),
    "07_audio_features": max(1, (CORES - 1) // 2),
    "08_rivals_anyone": max(1, CORES // 2),
    "09_rivals_person": max(1, CORES // 2),
}

RUNS = Path("runs", PROFILE)
COPIES = Path("figures", PROFILE, "notebooks")

os.environ.update(
    OMP_WAIT_POLICY="passive",  # spinning threads slow two jobs on the same cores tenfold
    GOMP_SPINCOUNT="0",
    PYTHONHASHSEED="0",
    DFA_WORKFLOW="1",  # nobody is there to move a slider
    CUBLAS_WORKSPACE_CONFIG=":4096:8",  # repeatable sums on a GPU
    GLOG_minloglevel="2",  # mediapipe says much that is no one's business
    TF_CPP_MIN_LOG_LEVEL="3",
    PYDEVD_DISABLE_FILE_VALIDATION="1",
    # This environment's kernel and settings, not the user's.
    JUPYTER_PREFER_ENV_PATH="1",
    PYTHONNOUSERSITE="1",
    IPYTHONDIR=str(Path(".snakemake/ipython").absolute()),
)
os.environ.pop("JUPYTER_PATH", None)
# Executed copies hold pictures as JPEG: a third of PNG's size, and the figures lie beside them.
settings = Path(os.environ["IPYTHONDIR"], "profile_default", "ipython_kernel_config.py")
settings.parent.mkdir(parents=True, exist_ok=True)
settings.write_text(
    "c = get_config()\n"
    "c.InlineBackend.figure_formats = {'jpeg'}\n"
    "c.InlineBackend.print_figure_kwargs = {'bbox_inches': 'tight', 'pil_kwargs': {'quality': 85}}\n"
)


def imported(text, package):
    """The files of this repo that a module's or notebook's text imports; `package` is its folder."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            dotted = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else ()
            base = ".".join([*base, *filter(None, [node.module])])
            dotted = [base, *(f"{base}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in dotted:
            path = Path(*name.split("."))
            yield from filter(Path.is_file, (path.with_suffix(".py"), path / "__init__.py"))
            if name == "dfa.rivals":  # it imports whatever lies in its folder
                yield from path.glob("*.py")


def library(name):
    """The modules of dfa that a notebook imports, and those that they import."""
    cells = json.loads(Path("notebooks", f"{name}.ipynb").read_text("utf-8"))["cells"]
    code = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")
    found, todo = set(), [(code, ())]
    while todo:
        for path in set(imported(*todo.pop())) - found:
            found.add(path)
            todo.append((path.read_text("utf-8"), path.parent.parts))
    return sorted(map(str, found))


def first_lines(source):
    """The first line of each code cell as papermill runs them: None stands for a markdown cell."""
    lines = []
    for cell in json.loads(Path(source).read_text("utf-8"))["cells"]:
        text = "".join(cell["source"]).strip()
        lines.append(text.partition("\n")[0] if cell["cell_type"] == "code" else None)
        if "parameters" in cell["metadata"].get("tags", []):
            lines.append(f'profile = "{PROFILE}"')  # the cell that papermill puts in
    return lines


def hold(name):
    """A lock on `name`, held while the returned file is open: what is killed lets go of it."""
    RUNS.mkdir(parents=True, exist_ok=True)
    lock = open(RUNS / f".{name}.lock", "w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print(f"another {name} of profile {PROFILE} is at work: waiting for it", flush=True)
        fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


def run_notebook(name, source, threads):
    """Run one notebook, saying which cell it is in and what it prints; WorkflowError if it fails."""
    lock = hold(name)  # outlives a killed run as long as its notebook does
    COPIES.mkdir(parents=True, exist_ok=True)
    partial = RUNS / f"{name}.partial.ipynb"
    lines = first_lines(source)
    cells = sum(line is not None for line in lines)
    noise = re.compile("Ending Cell|(In|Out)put Notebook:|Executing notebook|.*IPKernelApp|<.*>$")
    began, cell, said, muted = time.time(), 0, "", False

    def say(text):
        print(f"{name:18} {text[:160]}", flush=True)

    try:
        for line in shell(
            f"{shlex.quote(sys.executable)} -m papermill {source} {partial} -k python3 -p profile {PROFILE}"
            " --log-output --no-progress-bar 2>&1",
            iterable=True,
            threads=threads,
        ):
            line = line.strip("\r\n")
            if started := re.match(r"Executing Cell (\d+)-", line):
                at, muted = int(started[1]), False
                if lines[at - 1] is not None:
                    cell = sum(line is not None for line in lines[:at])  # In[cell], as Jupyter counts
                    say(f"[{cell}/{cells}] {lines[at - 1]}")
            elif line.strip() and not noise.match(line):
                said = line
                # Papermill's own traceback stands between the cell and what it raised.
                muted = line.startswith("Traceback") or muted and "PapermillExec" not in line
                if not muted:
                    say(f"    {line}")
    except subprocess.CalledProcessError:
        raise WorkflowError(
            f"{name} failed in cell [{cell}]: {said}", f"That cell is marked in {partial}"
        ) from None
    os.replace(partial, COPIES / f"{name}.ipynb")
    # Its times are in it: the report reads them, and what comes after is out of date even to a
    # checksum.
    times = {"began": began, "ended": time.time()}
    (RUNS / f"{name}.done").write_text(json.dumps(times) + "\n")
    say(f"done in {times['ended'] - began:.0f} s")
    lock.close()


if workflow.is_main_process:
    lock = hold("run")
    # A notebook whose artifacts were removed is not up to date.
    kept = Path("figures", PROFILE, "manifest.json")
    needs = [(name, COPIES / f"{name}.ipynb") for name in AFTER]
    for entry in json.loads(kept.read_text("utf-8")) if kept.exists() else []:
        needs += [(entry["notebook"], Path(path)) for path in entry["outputs"]]
    for name, path in needs:
        if not path.exists():
            (RUNS / f"{name}.done").unlink(missing_ok=True)


rule all:
    input:
        expand(RUNS / "{name}.done", name=AFTER),


rule notebook:
    input:
        notebook="notebooks/{name}.ipynb",
        library=lambda wildcards: library(wildcards.name),
        data=lambda wildcards: DATA.get(wildcards.name, []),
        after=lambda wildcards: expand(RUNS / "{name}.done", name=AFTER[wildcards.name]),
    output:
        RUNS / "{name}.done",
    threads: lambda wildcards: THREADS.get(wildcards.name, CORES)
    run:
        run_notebook(wildcards.name, input.notebook, threads)


# What takes longest, and what waits for it, begins first, or it would be the last to end.
use rule notebook as longest_notebook with:
    output:
        RUNS / "{name,07_audio_features|08_rivals_anyone|09_rivals_person}.done",
    priority: 1


ruleorder: longest_notebook > notebook
