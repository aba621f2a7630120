"""The rooms of the house: who may import whom, and what is done in one place alone."""

import ast
import json
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = {
    ".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): p
    for p in sorted((ROOT / "dfa").rglob("*.py"))
}
# From the ground up; who shares a floor does not import the other. Imports within functions (the
# command line's) and for type checkers are apart.
FLOORS = [
    {"media", "recipe"},
    {"captures", "processes", "recording"},
    {"training"},
    {"profiles"},
    {"method"},
    {"datasets", "studio"},
    {"evaluation"},
    {"rivals", "report"},
    {"study", "gpu"},
    {"shipped"},
    {"commands"},
    {"cli"},
    {"__main__"},
]


def imported(name: str) -> set[str]:
    """The modules of dfa that a module imports as it is itself imported."""
    path = FILES[name]
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    found, todo = set(), [*ast.parse(path.read_text("utf-8")).body]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            base = ".".join([*base, *filter(None, [node.module])])
            for alias in node.names:
                below = f"{base}.{alias.name}"
                found.add(below if below in FILES else base)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            todo += node.orelse
        elif not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            todo += ast.iter_child_nodes(node)
    return found & set(FILES)


def room(name: str) -> str:
    """The room or the file of the ground floor that a module is of."""
    return name.split(".")[1]


def test_every_room_has_its_floor():
    rooms = [name for floor in FLOORS for name in floor]
    assert len(rooms) == len(set(rooms))
    assert set(rooms) == {room(name) for name in FILES if name != "dfa"}


def test_no_module_imports_in_a_circle():
    assert len([*TopologicalSorter({name: imported(name) for name in FILES}).static_order()]) > 50


@pytest.mark.parametrize("name", [name for name in FILES if name != "dfa"])
def test_nobody_imports_from_above(name):
    floor = {r: k for k, floor in enumerate(FLOORS) for r in floor}
    own = room(name)
    for other in imported(name) - {"dfa"}:
        assert room(other) == own or floor[room(other)] < floor[own], f"{name} imports {other}"


@pytest.mark.long
@pytest.mark.parametrize(
    "imports, absent",
    [
        ("dfa.datasets", ["dfa.method.gpvae", "dfa.method.field", "dfa.rivals", "dfa.training"]),
        ("dfa.report.claims", ["dfa.rivals"]),
        ("dfa.study", ["torch"]),
        ("dfa.cli", ["torch"]),
    ],
)
def test_what_reads_loads_no_model(imports, absent):
    code = f"import sys, {imports}; print([m for m in {absent} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def source_of(path: Path) -> str:
    """The code of a module or a notebook."""
    text = path.read_text("utf-8")
    if path.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        text = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")
    return text


def test_captures_are_cut_into_parts_in_one_place():
    """`Recording.training` and `.test` say what is learnt from and what tests, and nobody else."""
    allowed = {ROOT / "dfa" / "recording.py", *(ROOT / "dfa" / "datasets").glob("*.py")}
    texts = {path: source_of(path) for path in (*FILES.values(), *ROOT.glob("notebooks/*.ipynb"))}
    here = {ROOT / "dfa" / "recording.py"}
    for sign, free in (("training_frames(", allowed), ("10//11", here), ("//11", here)):
        found = {path.relative_to(ROOT).as_posix() for path in set(texts) - free
                 if sign in "".join(texts[path].split())}  # fmt: skip
        assert not found, sign
