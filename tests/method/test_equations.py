"""From each equation of the paper to the code that is it, and back."""

import importlib
import inspect
import re
from pathlib import Path

import pytest

from dfa.method import EQUATIONS

NUMBERS = r"\d+(?:\s*(?:-|–|to|and|,)\s*\d+)*"


def named(docstring: str) -> set[int]:
    """The equations that a docstring names: "eq. 4", "Equations 4 and 5", "eq. 4-8", "eq. 4, 5"."""
    found = set()
    for text in re.findall(rf"\b[Ee]q(?:uation)?s?\.?\s+({NUMBERS})", docstring):
        for first, last in re.findall(r"(\d+)(?:\s*(?:-|–|to)\s*(\d+))?", text):
            found.update(range(int(first), int(last or first) + 1))
    return found


def definition(name: str) -> object:
    """What `module.name` of dfa.method is."""
    module, *path = name.split(".")
    found = importlib.import_module(f"dfa.method.{module}")
    for part in path:
        found = inspect.getattr_static(found, part)
    return found


@pytest.mark.parametrize(
    "says, numbers",
    [
        ("The loss (eq. 3).", {3}),
        ("Eq. 1: shapes", {1}),
        ("Equation 10 as it is written", {10}),
        ("eq. 4-8 and the prior", {4, 5, 6, 7, 8}),
        ("of eq. 4, 5 and 7, over 12 frames", {4, 5, 7}),
        ("(eq.\n    11)", {11}),
        ("Equations 4 to 6; eq. 9", {4, 5, 6, 9}),
        ("equal to 3 frequencies", set()),
    ],
)
def test_numbers_are_read(says, numbers):
    assert named(says) == numbers


def test_all_equations_are_there():
    assert list(EQUATIONS) == list(range(1, 12)) and all(EQUATIONS.values())


@pytest.mark.parametrize(
    "equation, name", [(n, name) for n, names in EQUATIONS.items() for name in names]
)
def test_an_equation_is_named_where_it_stands(equation, name):
    found = definition(name)
    assert callable(found) or isinstance(found, property)
    where = inspect.unwrap(getattr(found, "__func__", found)).__module__
    assert where == f"dfa.method.{name.partition('.')[0]}", "where it is defined"
    assert equation in named(inspect.getdoc(found) or "")


def test_the_readme_has_the_same_index():
    readme = (Path(__file__).parents[2] / "README.md").read_text("utf-8")
    for number, names in EQUATIONS.items():
        (row,) = (line for line in readme.splitlines() if line.startswith(f"| {number} | "))
        for name in names:
            module, _, rest = name.partition(".")
            assert f"`{module}.py`" in row and f"`{rest}`" in row, f"eq. {number}: {name}"
