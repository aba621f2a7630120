"""Identity of a training: its recipe, its data, and the code that determines its weights.

A finished training with the same key is loaded, not repeated. So the key must change with
everything that can change the weights, and never with comments, docstrings, formatting, or the file
that holds the code.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib
import inspect
import json
import numbers
import re
import symtable
import sys
import textwrap
import types
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

PACKAGE = __package__
# They only run a training. What decides weights in `train` is in `begin_step` and `update`.
NOT_FOLLOWED = {
    "recipe.digest", "rivals.method.Method.learn",
    *(f"training.{name}" for name in ("train", "load", "save", "pick_device")),
}  # fmt: skip
CONSTANTS = (numbers.Number, np.generic, str, bytes, type(None), range, slice, Enum, re.Pattern,
             torch.dtype)  # fmt: skip


@dataclass(frozen=True)
class Recipe:
    """All settings of a training. Each model adds its own in a subclass."""

    steps: int
    lr: float = 1e-3  # learning rate of parameters without a group
    weight_decay: float = 0.0
    warmup: int = 50  # steps in which the learning rate rises
    clip: float | None = 1.0  # largest norm of the gradient; None: no limit


def digest(*things: object) -> str:
    """SHA-256 (hex) of arrays, tensors, `recording.Frames`, and settings that JSON can store."""
    sha = hashlib.sha256()
    for thing in things:
        if isinstance(thing, Tensor):
            thing = thing.detach().cpu().numpy()
        if hasattr(thing, "__array__") and not isinstance(thing, np.generic):
            sha.update(f"{thing.shape}{thing.dtype}".encode())
            for part in [thing] if isinstance(thing, np.ndarray) else thing:
                sha.update(np.ascontiguousarray(part).reshape(-1).view(np.uint8))
        else:
            sha.update(json.dumps(thing, sort_keys=True, default=str).encode() + b"\0")
    return sha.hexdigest()


def key(
    model: nn.Module, loss: Callable, recipe: Recipe, seed: int, data: str, groups: list[dict],
    uses: tuple[nn.Module, ...] = (), code: tuple[object, ...] = (),
) -> str:  # fmt: skip
    """The identity of a training, SHA-256 (hex), from all arguments.

    Args:
        model: with its initial weights.
        loss: its source, with that of the function that defines it.
        data: `digest` of the training data.
        groups: of the optimiser, each with a list `params` and an `lr`.
        uses: networks that the loss uses but does not train: their weights.
        code: more functions and classes: their source.
    """
    names = {id(p): (name, p.requires_grad) for name, p in model.named_parameters()}
    rates = [{**group, "params": [names[id(p)] for p in group["params"]]} for group in groups]
    weights = [m.state_dict() for m in (model, *uses)]
    start = digest(*(x for state in weights for pair in state.items() for x in pair))
    modes = [(str(m), m.training) for m in uses]
    networks = {type(part) for m in (model, *uses) for part in m.modules()}
    ours = [kind for kind in networks if _is_ours(kind)]
    source = code_of(*ours, *code, _made_in(loss))
    settings = [type(recipe).__name__, asdict(recipe), type(model).__name__, rates, modes, seed]
    return digest(settings, data, start, source)


def code_of(*roots: object) -> list[str]:
    """Source of functions and classes, and of all names of this package in them, sorted.

    Without comments, docstrings, formatting, annotations and file names. Constants: their values.
    """
    found: dict[int, str] = {}
    constants: set[str] = set()
    todo = [_unwrapped(root) for root in roots]
    while todo:
        thing = todo.pop()
        if id(thing) in found:
            continue
        tree = _tree(thing)
        found[id(thing)] = ast.unparse(tree)
        for name, value in _names_in(tree, thing):
            value = _unwrapped(value)
            if _is_ours(value):
                name = f"{value.__module__}.{value.__qualname__}".removeprefix(f"{PACKAGE}.")
                # each `_fit_...` of a rival method has a key of its own
                if name not in NOT_FOLLOWED and not value.__name__.startswith("_fit_"):
                    todo.append(value)
            elif (text := _constant(value, todo)) is not None:
                constants.add(f"{name} = {text}")
    return sorted({*found.values(), *constants})


def _is_ours(value: object) -> bool:
    """Whether `value` is a function or class of this package."""
    return isinstance(value, (types.FunctionType, type)) and _in_package(value.__module__)


def _unwrapped(value: object) -> object:
    """The plain function of a decorated function, method or property."""
    if isinstance(value, property):
        value = value.fget
    if isinstance(value, (staticmethod, classmethod, types.MethodType)):
        value = value.__func__
    if isinstance(value, functools.cached_property):
        value = value.func
    return inspect.unwrap(value) if callable(value) else value


def _made_in(loss: Callable) -> object:
    """The outermost function or method that defines `loss`, or `loss` itself."""
    loss = _unwrapped(loss)
    path = loss.__qualname__.partition(".<locals>")[0].split(".")
    made_in = sys.modules[loss.__module__]
    try:
        for name in path:
            made_in = inspect.getattr_static(made_in, name)
    except AttributeError:
        return loss
    return _unwrapped(made_in)


class _Bare(ast.NodeTransformer):
    """Takes docstrings and annotations out. Those of a class's fields stay: they make the field."""

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        for part in node.body:
            part.is_field = isinstance(part, ast.AnnAssign)
        return self._visit_body(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self._visit_body(node)

    visit_AsyncFunctionDef = visit_FunctionDef

    def _visit_body(self, node: ast.ClassDef | ast.FunctionDef) -> ast.AST:
        if ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
        return self.generic_visit(node)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        self.generic_visit(node)
        if getattr(node, "is_field", False):
            return node
        bare = ast.Assign([node.target], node.value) if node.value else ast.Pass()
        return ast.copy_location(bare, node)


def _tree(thing: object) -> ast.AST:
    """The definition as a syntax tree, without docstrings and annotations.

    Raises OSError if Python has no source of it.
    """
    return _Bare().visit(ast.parse(textwrap.dedent(inspect.getsource(thing))))


def _names_in(tree: ast.AST, thing: object) -> Iterator[tuple[str, object]]:
    """Names in a definition, and their values: globals of its module, attributes of modules of this
    package, methods of its own class."""
    scope, taken = vars(sys.modules[thing.__module__]), _globals_of(tree)
    owner = scope.get(thing.__qualname__.partition(".")[0]) if "." in thing.__qualname__ else None
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in scope and node.id in taken:
            yield node.id, scope[node.id]
        elif isinstance(node, ast.Attribute):
            first, *rest = ast.unparse(node).split(".")  # first: no name in `f(x).y`
            of = scope.get(first) if first in taken else None
            for name in rest:
                if not (isinstance(of, types.ModuleType) and _in_package(of.__name__)):
                    break
                of = getattr(of, name, None)
                yield name, of
            if first in ("self", "cls") and hasattr(owner, rest[0]):
                yield rest[0], inspect.getattr_static(owner, rest[0])
        elif isinstance(node, ast.ImportFrom) and (node.level or _in_package(node.module)):
            above = sys.modules[thing.__module__].__package__
            module = importlib.import_module("." * node.level + (node.module or ""), above)
            for alias in node.names:
                yield alias.name, getattr(module, alias.name, None)


def _in_package(module: str) -> bool:
    return module.partition(".")[0] == PACKAGE


def _globals_of(tree: ast.AST) -> set[str]:
    """The names that a definition takes from its module: no parameter, no variable of its own."""
    names, todo = set(), [symtable.symtable(ast.unparse(tree), "definition", "exec")]
    while todo:
        table = todo.pop()
        outermost = table.get_type() == "module"
        names |= {s.get_name() for s in table.get_symbols() if outermost or s.is_global()}
        todo += table.get_children()
    return names


def _constant(value: object, todo: list) -> str | None:
    """The value of a constant as text, or None. Functions in it are added to `todo`."""
    if isinstance(value, (np.ndarray, Tensor)):
        return digest(value)
    if isinstance(value, (*CONSTANTS, Recipe)):
        return repr(value)
    if isinstance(value, (dict, list, tuple, set, frozenset)):
        parts = [*value.keys(), *value.values()] if isinstance(value, dict) else [*value]
        if isinstance(value, (set, frozenset)):
            parts.sort(key=repr)
        texts = []
        for part in map(_unwrapped, parts):
            if _is_ours(part):
                todo.append(part)
                texts.append(part.__name__)
            else:
                texts.append(_constant(part, todo) or type(part).__name__)
        return f"{type(value).__name__}{texts}"
    if isinstance(value, functools.partial):
        return _constant((value.func, value.args, value.keywords), todo)
    if isinstance(value, types.ModuleType):
        return None if _in_package(value.__name__) else value.__name__
    if isinstance(value, Path):  # the file's content: where it lies decides nothing
        return digest(value.name, value.read_bytes().hex() if value.is_file() else None)
    if type(value).__module__ == "typing" or hasattr(value, "__qualname__"):
        return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', value)}"
    what = f"a {type(value).__name__} cannot be part of a key"
    raise TypeError(f"{what}: give `train` its digest as data")
