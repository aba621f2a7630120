"""The graph of notebooks. `make figures` runs it; so does `snakemake --config profile=smoke`.

Papermill runs a notebook and writes the executed copy to figures/<profile>/notebooks/. A notebook
is up to date if runs/<profile>/NN.done is newer than its inputs. This file is never committed, so
in a fresh clone everything runs. A notebook stores checkpoints in runs/<profile>/, so a notebook
that was killed continues from there.
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

PROFILE = str(config.get("profile", "quick"))
if workflow.is_main_process:
    from dfa.media import InputError
    from dfa.profiles import profile

    try:
        profile(PROFILE)
    except InputError as error:
        sys.exit(str(error))

# {notebook: the notebooks whose results it reads}
AFTER = {
    "01_attributes": [],
    "02_disentanglement": ["01_attributes"],
    "03_sync": ["02_disentanglement"],
    "04_personality": ["02_disentanglement", "03_sync"],
    "05_radiance_field": ["02_disentanglement", "03_sync"],
    "06_talking_head": ["04_personality", "05_radiance_field"],
    "07_audio_features": ["02_disentanglement", "03_sync"],
    "08_rivals_anyone": ["01_attributes"],
    "09_rivals_person": ["01_attributes"],
    "10_comparison": ["06_talking_head", "08_rivals_anyone", "09_rivals_person"],
    "11_user_study": ["10_comparison"],
    "12_ledger": ["07_audio_features", "11_user_study"],
    "00_overview": ["12_ledger"],  # the first to read, but it shows the results of the others
}
CAPTURES = Path("dfa/data/captures").glob("*[!d]")  # without the data sheet
CAPTURES = sorted(str(path) for path in CAPTURES if "_views" not in path.name)
STAGES = ("disentangle", "sync", "gpvae", "cme")
CORPUS = [f"dfa/data/weights/{stage}.safetensors" for stage in STAGES]
DATA = {
    "01_attributes": ["dfa/data/face_model.npz", *CAPTURES],
    "03_sync": CORPUS[:2],
    "04_personality": ["dfa/data/reported.yaml"],
    "05_radiance_field": [*sorted(map(str, Path("dfa/data").glob("bench*.json"))), *CORPUS],
    "07_audio_features": ["dfa/data/reported.yaml", "dfa/data/weights/recogniser.safetensors"],
    "09_rivals_person": ["dfa/data/weights/recogniser.safetensors"],
    "10_comparison": ["dfa/data/reported.yaml"],
    "11_user_study": ["dfa/data/reported.yaml"],
    "12_ledger": ["dfa/data/reported.yaml"],
    "00_overview": ["dfa/data/reported.yaml"],
}
# On a cluster --cores is not set (workflow.cores would raise), and a job sees only its own cores.
CORES = workflow.resource_settings.cores or os.cpu_count()
CORES = int(os.environ.setdefault("DFA_CORES", str(CORES)))
# These notebooks run in parallel, two of them on two cores. All others use all cores.
THREADS = {
    "04_personality": 1,
    "05_radiance_field": max(1, CORES // 2),
    "06_talking_head": max(1, CORES // 2),
    "07_audio_features": max(1, (CORES - 1) // 2),
    "08_rivals_anyone": max(1, CORES // 2),
    "09_rivals_person": max(1, CORES // 2),
}

# What a cluster reserves for a notebook: minutes and MB, and for those that use a GPU `gpus`.
GPUS = str(config.get("gpus", 0))
if not GPUS.isdecimal():
    sys.exit(f"gpus={GPUS}: how many GPUs each notebook gets, 0 or more")
ON_GPU = {*THREADS, "02_disentanglement", "03_sync", "10_comparison"}
RESERVED = {"smoke": (30, 3000), "quick": (120, 4000), "full": (1440, 16000)}
MINUTES, MEMORY = RESERVED[PROFILE.partition(",")[0]]

RUNS = Path("runs", PROFILE)
COPIES = Path("figures", PROFILE, "notebooks")

os.environ.update(
    OMP_WAIT_POLICY="passive",  # busy waiting makes two jobs on the same cores ten times slower
    GOMP_SPINCOUNT="0",
    PYTHONHASHSEED="0",
    DFA_WORKFLOW="1",  # notebooks then show no interactive widgets
    CUBLAS_WORKSPACE_CONFIG=":4096:8",  # deterministic sums on a GPU
    GLOG_minloglevel="2",  # hides mediapipe's log messages
    TF_CPP_MIN_LOG_LEVEL="3",
    PYDEVD_DISABLE_FILE_VALIDATION="1",
    # use the kernel and settings of this environment, not the user's
    JUPYTER_PREFER_ENV_PATH="1",
    PYTHONNOUSERSITE="1",
    IPYTHONDIR=str(Path(".snakemake/ipython").absolute()),
)
os.environ.pop("JUPYTER_PATH", None)
# Executed copies store pictures as JPEG, a third of PNG's size; the figures are also saved as PNG.
settings = Path(os.environ["IPYTHONDIR"], "profile_default", "ipython_kernel_config.py")
settings.parent.mkdir(parents=True, exist_ok=True)
settings.write_text(
    "c = get_config()\n"
    "c.InlineBackend.figure_formats = {'jpeg'}\n"
    "c.InlineBackend.print_figure_kwargs = {'bbox_inches': 'tight', 'pil_kwargs': {'quality': 85}}\n"
)


def imported(text, package):
    """The files of this repo that a module's or notebook's code imports.

    text: the code. package: the parts of its folder's path, to resolve relative imports.
    """
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
            packages = [folder / "__init__.py" for folder in (path, *path.parents)]
            yield from filter(Path.is_file, (path.with_suffix(".py"), *packages))
            if name == "dfa.rivals":  # it imports all modules in its folder
                yield from path.glob("*.py")


def library(name):
    """The modules of dfa that a notebook imports, directly or through other modules."""
    cells = json.loads(Path("notebooks", f"{name}.ipynb").read_text("utf-8"))["cells"]
    code = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")
    found, todo = set(), [(code, ())]
    while todo:
        for path in set(imported(*todo.pop())) - found:
            found.add(path)
            todo.append((path.read_text("utf-8"), path.parent.parts))
    return sorted(map(str, found))


def first_lines(source):
    """The first line of each cell that papermill runs; None for a markdown cell."""
    lines = []
    for cell in json.loads(Path(source).read_text("utf-8"))["cells"]:
        text = "".join(cell["source"]).strip()
        lines.append(text.partition("\n")[0] if cell["cell_type"] == "code" else None)
        if "parameters" in cell["metadata"].get("tags", []):
            lines.append(f'profile = "{PROFILE}"')  # the cell that papermill inserts
    return lines


def hold(name):
    """Wait for a lock on `name`. It is held while the returned file is open; a kill releases it."""
    RUNS.mkdir(parents=True, exist_ok=True)
    lock = open(RUNS / f".{name}.lock", "w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print(f"another {name} of profile {PROFILE} is running: waiting for it", flush=True)
        fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


def check_machine():
    """Raise WorkflowError if the profile's frames or training do not fit this machine."""
    from dfa.captures import path
    from dfa.commands.fit import check_memory
    from dfa.media import FPS, InputError, duration
    from dfa.method.fast_field import FastField
    from dfa.profiles import profile
    from dfa.recording import check_room

    try:
        p = profile(PROFILE)
        limits = ((False, p.seconds), (True, p.test_seconds))  # of both recordings
        takes = [min(most, duration(path(p.test[0], second))) for second, most in limits]
        T = round(FPS * (sum(takes) + max(takes)))  # joined, while one is decoded
        check_memory(FastField.training_memory(p.field_size), p.field_size)
        check_room(T, p.field_size)
    except InputError as error:
        raise WorkflowError(str(error)) from None


def run_notebook(name, source, threads):
    """Run one notebook; print its current cell and its output. Raises WorkflowError if it fails."""
    if not AFTER[name]:  # where the first notebook runs: on a cluster that is another machine
        check_machine()
    lock = hold(name)  # if Snakemake is killed, the notebook's process still holds it
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
                # skip papermill's own traceback, between the cell and the exception that it raised
                muted = line.startswith("Traceback") or muted and "PapermillExec" not in line
                if not muted:
                    say(f"    {line}")
    except subprocess.CalledProcessError:
        raise WorkflowError(
            f"{name} failed in cell [{cell}]: {said}", f"That cell is marked in {partial}"
        ) from None
    os.replace(partial, COPIES / f"{name}.ipynb")
    # The report reads these times. They also change the file's checksum, so later notebooks run
    # again.
    times = {"began": began, "ended": time.time()}
    (RUNS / f"{name}.done").write_text(json.dumps(times) + "\n")
    say(f"done in {times['ended'] - began:.0f} s")
    lock.close()


if workflow.is_main_process:
    lock = hold("run")
    # a notebook whose outputs were deleted is not up to date
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
    resources:
        gpu=lambda wildcards: int(GPUS) if wildcards.name in ON_GPU else 0,
        runtime=MINUTES,
        mem_mb=MEMORY,
    run:
        run_notebook(wildcards.name, input.notebook, threads)


# The longest notebooks, and those that 07 needs, start first, so that the whole run ends earlier.
use rule notebook as longest_notebook with:
    output:
        RUNS / "{name,02_disentanglement|03_sync|07_audio_features|08_rivals_anyone|09_rivals_person}.done",
    priority: 1


ruleorder: longest_notebook > notebook
