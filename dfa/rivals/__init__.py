"""The methods of table 2: a compact implementation of each rival, to be read beside its paper.

All have the interface `method.Method`, learn from the same recordings and have the same budget. To
add a method, add one file to this folder.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil

from ..evaluation.paper import METHODS
from .method import Method


def methods() -> dict[str, type[Method]]:
    """All methods of this folder by name: the paper's in its order, then others by name."""
    modules = [
        importlib.import_module(f"{__name__}.{module.name}")
        for module in pkgutil.iter_modules(__path__)
    ]
    found = {
        kind.name: kind
        for module in modules
        for kind in vars(module).values()
        if inspect.isclass(kind) and issubclass(kind, Method) and kind.__module__ == module.__name__
        and not inspect.isabstract(kind)
    }  # fmt: skip
    order = [*METHODS, *sorted(set(found) - set(METHODS))]
    return {name: found[name] for name in order if name in found}
