"""What a training is known by: all that can change its weights, and nothing else."""

import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from shutil import copytree, ignore_patterns

import numpy as np
import pytest
import torch

from dfa import recipe
from dfa.evaluation.statistics import interval
from dfa.recipe import Recipe, digest

# A training in five modules of the package: what it calls, inherits and names is elsewhere.
SOURCES = {
    "_far": '''
SCALE = 2.0
UNUSED = 1


def far(x):
    """How far (x,) is from nought."""
    return (SCALE * x).abs()  # all of it


def elsewhere(x):
    return x + 1
''',
    "_base": """
import torch


class Base(torch.nn.Module):
    def begin(self, x):
        return x + 0.5
""",
    "_model": '''
import torch
from torch import Tensor

from dfa._base import Base


class Model(Base):
    """A line."""

    def __init__(self):
        super().__init__()
        self.net = torch.nn.Linear(2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(self.begin(x))
''',
    "_features": """
LIMIT = 3


def features(x, hop=LIMIT):
    return x[::hop]
""",
    "_learn": '''
import dfa._features
from dfa import _features
from dfa._far import far
from dfa._model import Model

TOP, WAYS = 9.0, {"far": far}


def learn(x, judge):
    """The model and its loss."""
    model, count = Model(), 0
    heard = _features.features(x)

    def loss(g):
        """Of a step."""
        features = WAYS["far"](model(heard))
        return features.clamp(max=TOP).mean() + judge(heard).mean(), {"size": "one"}

    return model, loss
''',
}


@dataclass(frozen=True)
class Ours(Recipe):
    batch: int = 4


def module(folder, name, text):
    """A module of the package, read from `folder`."""
    file = folder / f"{name}.py"
    file.write_text(text)
    spec = importlib.util.spec_from_file_location(f"dfa.{name}", file)
    made = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = made
    setattr(sys.modules["dfa"], name, made)
    spec.loader.exec_module(made)
    return made


@pytest.fixture
def key_of(tmp_path, monkeypatch):
    """The key of the training in SOURCES, with other sources or other numbers."""
    import dfa

    for name in (*SOURCES, "_moved"):
        monkeypatch.setitem(sys.modules, f"dfa.{name}", None)  # put back afterwards
        monkeypatch.setattr(dfa, name, None, raising=False)
    count = iter(range(99))

    def key(sources=(), numbers=Ours(10), seed=0, data="", rates=None, weight=0.0, start=0.0,
            frozen=False, hushed=False, aside=False):  # fmt: skip
        folder = tmp_path / str(next(count))
        folder.mkdir()
        for name, text in ({"_moved": ""} | SOURCES | dict(sources)).items():
            made = module(folder, name, text)
        torch.manual_seed(0)
        judge = torch.nn.Linear(2, 1)
        with torch.no_grad():
            judge.bias += weight
        model, loss = made.learn(torch.ones(6, 2), judge)
        with torch.no_grad():
            model.net.bias += start
        model.net.bias.requires_grad_(not frozen)
        judge.train(not hushed)
        groups = [{"params": [p], "lr": lr} for p, lr in
                  zip(model.parameters(), rates or [numbers.lr] * 2, strict=True)]  # fmt: skip
        return recipe.key(model, loss, numbers, seed, data, groups, (judge,),
                          (interval,) if aside else ())  # fmt: skip

    return key


def edited(name: str, *pairs: tuple[str, str]) -> dict[str, str]:
    """SOURCES of a module in which some words are others."""
    text = SOURCES[name]
    for old, new in pairs:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return {name: text}


@pytest.mark.parametrize(
    "change",
    [
        dict(numbers=Ours(10, lr=2e-3)),
        dict(numbers=Ours(10, weight_decay=0.1)),
        dict(numbers=Ours(10, warmup=51)),
        dict(numbers=Ours(10, clip=2.0)),
        dict(numbers=Ours(10, clip=None)),
        dict(numbers=Ours(11)),
        dict(numbers=Ours(10, batch=5)),
        dict(numbers=Recipe(10)),  # another training's, though the numbers are the same
        dict(rates=[1e-3, 2e-3]),
        dict(rates=[2e-3, 1e-3]),
        dict(frozen=True),
        dict(hushed=True),
        dict(aside=True),  # more code of the package
        dict(seed=1),
        dict(data="others"),
        dict(start=1e-6),
        dict(weight=1e-6),  # of a network that the loss uses
    ],
    ids=str,
)
def test_every_number_is_part_of_the_key(key_of, change):
    assert key_of() == key_of()
    assert key_of(**change) != key_of()


@pytest.mark.parametrize(
    "what, name, old, new",
    [
        ("the loss", "_learn", ".mean() + judge", ".sum() + judge"),
        ("the function that makes the loss", "_learn", "features(x)", "features(x, 2)"),
        ("a method of the model", "_model", "self.net(self.begin(x))", "self.net(x)"),
        ("the model's layers", "_model", "Linear(2, 1)", "Linear(2, 1, bias=True)"),
        ("a base class elsewhere", "_base", "x + 0.5", "x + 0.25"),
        ("a function elsewhere, by way of a table", "_far", ".abs()", ".square()"),
        ("a function of a module", "_features", "x[::hop]", "x[1::hop]"),
        ("a constant", "_learn", "9.0", "8.0"),
        ("a constant elsewhere", "_far", "SCALE = 2.0", "SCALE = 3.0"),
        ("a constant that is a default", "_features", "LIMIT = 3", "LIMIT = 2"),
        ("a function's name", "_learn", '{"size": "one"}', '{"size": "two"}'),
    ],
)
def test_all_code_that_decides_is_part_of_the_key(key_of, what, name, old, new):
    assert key_of(edited(name, (old, new))) != key_of()


@pytest.mark.parametrize(
    "what, sources",
    [
        ("a comment", edited("_far", ("  # all of it", "  # doubled\n    # and more"))),
        ("a function's docstring", edited("_far", ('"""How far (x,) is from nought."""', '"x"'))),
        ("no docstring", edited("_far", ('    """How far (x,) is from nought."""\n', ""))),
        ("a class's docstring", edited("_model", ('"""A line."""', '"""A plane."""'))),
        ("a nested docstring", edited("_learn", ('"""Of a step."""', '"""Of one step."""'))),
        ("no nested docstring", edited("_learn", ('        """Of a step."""\n', ""))),
        ("quotes", edited("_learn", ('{"size": "one"}', "{'size': 'one'}"))),
        ("line breaks", edited("_learn", (".clamp(max=TOP)", ".clamp(\n    max=TOP,\n)"))),
        ("parentheses", edited("_far", ("(SCALE * x).abs()", "((SCALE * x)).abs()"))),
        ("blank lines", edited("_model", ("        super()", "\n        super()"))),
        ("annotations of arguments", edited("_far", ("far(x):", "far(x: float) -> float:"))),
        ("no annotations", edited("_model", ("x: Tensor) -> Tensor", "x)"))),
        ("a variable's annotation", edited("_learn", ("    heard =", "    heard: object ="))),
        ("what is not named", edited("_far", ("UNUSED = 1", "UNUSED = 2"), ("x + 1", "x + 2"))),
    ],
)  # fmt: skip
def test_what_decides_nothing_is_not(key_of, what, sources):
    assert key_of(sources) == key_of()


def test_nor_is_where_a_definition_stands(key_of):
    """Moved to another file, a function with what it names, a base class; in another order."""
    moved = {"_moved": SOURCES["_far"]} | edited("_learn", ("dfa._far", "dfa._moved"))
    assert key_of(moved | {"_far": ""}) == key_of()
    base = {"_moved": SOURCES["_base"]} | edited("_model", ("dfa._base", "dfa._moved"))
    assert key_of(base | {"_base": ""}) == key_of()
    head, far, elsewhere = SOURCES["_far"].split("\n\n\n")
    assert key_of({"_far": "\n\n\n".join([head, elsewhere.strip(), far])}) == key_of()


def test_each_pair_of_rates_has_its_key(key_of):
    pairs = [[1e-3, 1e-3], [1e-3, 2e-3], [2e-3, 1e-3]]
    assert len({key_of(rates=pair) for pair in pairs}) == 3


def test_what_has_no_fixed_value_is_refused(key_of):
    """It would be left out of the key, and then a change of it not seen."""
    with pytest.raises(TypeError, match="a Generator cannot be part of a key"):
        key_of(edited("_learn", ("TOP, WAYS = 9.0", "import torch\nTOP, WAYS = torch.Generator()")))


def test_a_variable_is_not_what_its_module_calls_so(key_of):
    """`features` is a variable of the loss, whatever the module has by that name."""
    line = "import dfa._features\n"
    imported = edited("_learn", (line, "from dfa._features import features\n"))
    aside = edited("_learn", (line, "from dfa._far import elsewhere as features\n"))
    assert key_of(imported) == key_of(aside) == key_of()


def test_digests_tell_things_apart():
    a = np.arange(6)
    things = [a, a.reshape(2, 3), a.astype(np.float32), a[::-1], [*range(6)], "012345"]
    assert len({digest(t) for t in things}) == len(things)
    assert digest(a) == digest(torch.arange(6)) == digest(np.arange(12)[::2] // 2)
    assert digest(dict(a=1, b=2)) == digest(dict(b=2, a=1)) != digest(dict(a=2, b=1))
    assert digest("a", "b") != digest("b", "a")


def test_a_recipe_is_replaced_not_changed():
    r = Ours(10)
    assert replace(r, steps=5) == Ours(5) and r.steps == 10
    with pytest.raises(AttributeError):
        r.steps = 5


# --- the package itself -------------------------------------------------------------------------

# Prints the keys of E_a's training and of ATVG's landmarks with each copy of the package named,
# one line a copy. Each is read by a child of one process that has loaded torch and the like.
SCRIPT = """
import json, os, sys, tempfile

def keys(folder):
    for name in [n for n in sys.modules if n.split(".")[0] in ("dfa", "conftest")]:
        del sys.modules[name]
    sys.path.insert(0, folder)
    import torch
    from conftest import speaker
    from dfa import recipe, training
    from dfa.method.sync import SyncRecipe, train_sync
    from dfa.rivals.atvg import ATVG

    class Known(Exception):
        pass

    def known(*told):
        raise Known(recipe.key(*told))

    def key(train, *told):
        try:
            train(*told)
        except Known as k:
            return str(k)

    assert recipe.__file__.startswith(folder)
    training.key = known
    g = torch.Generator().manual_seed(0)
    f_m, sounds = ([torch.randn(n, d, generator=g)] * 2 for n, d in ((60, 32), (240, 20)))
    out = tempfile.mkdtemp()
    return dict(
        E_a=key(train_sync, f_m, sounds, SyncRecipe(3), out + "/E_a", 0),
        ATVG=key(ATVG(out, device="cpu").fit, [speaker(40, 32, 1)], speaker(4)),
    )

keys(sys.argv[1])
for folder in sys.argv[1:]:
    if not os.fork():
        print(json.dumps(keys(folder)), flush=True)
        os._exit(0)
    assert os.wait()[1] == 0
"""


def keys(folder: Path, *edits: dict[str, list[tuple[str, str]]]) -> list[dict[str, str]]:
    """The keys with each of several edits of the package's files."""
    here = Path(__file__).resolve().parent
    ignored = ignore_patterns("__pycache__", "captures", "weights")
    for i, edit in enumerate(edits):
        copytree(here.parent / "dfa", folder / str(i) / "dfa", ignore=ignored)
        for name, pairs in edit.items():
            file = folder / str(i) / "dfa" / f"{name}.py"
            text = file.read_text("utf-8")
            for old, new in pairs:
                assert text.count(old) == 1, old
                text = text.replace(old, new)
            file.write_text(text, "utf-8")
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(here)}
    copies = [str(folder / str(i)) for i in range(len(edits))]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *copies], cwd=folder, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) == len(edits) and all(all(key.values()) for key in found)
    return found


SYNC, AUDIO, ATVG, TRAINING = "method/sync", "method/audio", "rivals/atvg", "training"

SAID = {
    SYNC: [("negative = torch.cat([own, other])", "negative = torch.cat([own, other])  # x"),
           ('"""L_con of eq. 3, a', '"""Another docstring of eq. 3, a')],
    AUDIO: [("HOP = SAMPLE_RATE // 100  #", "HOP = SAMPLE_RATE // 100  # another comment,")],
    TRAINING: [("    loss.backward()", "    # downhill\n    loss.backward()")],
}  # fmt: skip

DECIDES = [
    ("E_a", {SYNC: [("    return -positive.log()", "    return -2 * positive.log()")]}),
    # E_a is given its MFCC, and they are in the digest of its data; a rival makes them itself
    ("ATVG", {AUDIO: [("    samples = ", "    audio = audio * 1.0\n    samples = ")]}),
    # `fit` prepares the data, and calls what defines the loss
    ("ATVG", {ATVG: [("(COMPONENTS, random_state=0)", "(COMPONENTS, random_state=1)")]}),
    ("E_a ATVG", {TRAINING: [("cosine = 0.02 +", "cosine = 0.03 +")]}),  # the schedule
    ("E_a ATVG", {TRAINING: [("    g.manual_seed(seed", "    g.manual_seed(1 + seed")]}),
    ("E_a ATVG", {TRAINING: [("    optimiser.step()", "    optimiser.step(None)")]}),
]


def test_keys_of_the_package_follow_what_decides_and_not_what_is_said(tmp_path):
    plain, said, *now = keys(tmp_path, {}, SAID, *(edits for _, edits in DECIDES))
    assert said == plain
    changed = [" ".join(name for name in plain if key[name] != plain[name]) for key in now]
    assert changed == [names for names, _ in DECIDES]
