"""The training loop: resumable to the bit, never a stale result, and one loop for many devices."""

import importlib.util
import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from dfa import training
from dfa.media import InputError


class Line(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 1))


DATA = torch.randn(64, 5, generator=torch.Generator().manual_seed(0))


class Killed(Exception):
    pass


def fit(path, steps=30, die_at=None, dropout=0.2, **changes):
    torch.manual_seed(0)
    model, calls = Line(), []
    model.net[1].p = dropout

    def loss(g):
        calls.append(1)
        if len(calls) == die_at:
            raise Killed
        x = DATA[training.share(torch.randint(64, (16,), generator=g))]
        off = model.net(x[:, :4]) - x[:, 4:]
        return off.square().mean(), {"off": off.abs().mean().item()}

    settings = dict(lr=1e-2, seed=3, inputs=training.digest(DATA), save_every=0.0) | changes
    history = training.train(model, loss, path=path, steps=steps, **settings)
    return model.state_dict(), history, len(calls)


def same(a, b):
    return all(torch.equal(a[k], b[k]) for k in a)


def test_a_killed_training_goes_on_and_ends_with_the_same_bits(tmp_path):
    whole, history, _ = fit(tmp_path / "a.safetensors")
    with pytest.raises(Killed):
        fit(tmp_path / "b.safetensors", die_at=18)
    assert not (tmp_path / "b.safetensors").exists()
    resumed, history_b, calls = fit(tmp_path / "b.safetensors")
    assert calls < 30
    assert same(whole, resumed)
    assert history == history_b
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.safetensors", "b.safetensors"]


def test_a_finished_training_is_loaded_and_a_changed_one_is_not(tmp_path):
    path = tmp_path / "a.safetensors"
    first, _, _ = fit(path)
    again, _, calls = fit(path)
    assert calls == 0 and same(first, again)
    for change in ({"seed": 4}, {"inputs": "other data"}, {"steps": 20}):
        _, _, calls = fit(path, **change)
        assert calls > 0


def test_a_loss_that_is_not_finite_stops_the_training(tmp_path):
    model = Line()
    with pytest.raises(FloatingPointError, match="step 0"):
        training.train(
            model, lambda g: (model.net[0].weight.sum() * float("nan"), {}),
            path=tmp_path / "x.safetensors", steps=3, lr=1e-3, seed=0, inputs="",
        )  # fmt: skip
    assert not (tmp_path / "x.safetensors").exists()


def test_save_and_load_round_trip(tmp_path):
    a, b = Line(), Line()
    training.save(a, tmp_path / "m.safetensors", steps=7)
    assert training.load(b, tmp_path / "m.safetensors")["steps"] == 7
    assert same(a.state_dict(), b.state_dict())


def test_weights_of_something_else_are_one_line(tmp_path):
    path = tmp_path / "m.safetensors"
    training.save(nn.Linear(3, 2), path)
    for broken in (None, path.read_bytes()[:40], b"not safetensors"):
        if broken is not None:
            path.write_bytes(broken)
        with pytest.raises(InputError, match="holds no Line of this version: make it again"):
            training.load(Line(), path)
    with pytest.raises(InputError, match="holds no Line"):
        training.load(Line(), tmp_path / "none.safetensors")


# --- many devices -------------------------------------------------------------------------------

SCRIPT = """
import os, torch
from test_training import Killed, fit

def run(name, **settings):
    weights, history, _ = fit(f"{name}.safetensors", label=name, **settings)
    torch.save((weights, history), f"{name}.{os.environ['RANK']}.pt")

run("plain", dropout=0.0)
run("whole")
try:
    run("broken", die_at=18)
except Killed:
    torch.distributed.barrier()  # the first one may still be writing
assert os.path.exists("broken.safetensors.partial")
run("broken")
run("broken")
"""


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """The folder in which two processes ran SCRIPT, and what they printed."""
    folder, here = tmp_path_factory.mktemp("two"), Path(__file__).parent
    (folder / "script.py").write_text(SCRIPT)
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{here}:{here.parent}"}
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [*start, "script.py"], cwd=folder, env=env, capture_output=True, text=True
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder, done.stdout, done.stderr


def results(folder, name):
    """(weights, history) of both processes."""
    return [torch.load(folder / f"{name}.{rank}.pt") for rank in range(2)]


def test_two_processes_take_the_steps_of_one(two, tmp_path):
    alone, history, _ = fit(tmp_path / "a.safetensors", dropout=0.0)
    (first, history_1), (second, history_2) = results(two[0], "plain")
    assert same(first, second) and history_1 == history_2
    for name, tensor in alone.items():
        torch.testing.assert_close(first[name], tensor, atol=1e-5, rtol=1e-5)
    for here, there in zip(history, history_1, strict=True):
        assert there == pytest.approx(here, rel=1e-4, abs=1e-5)


def test_two_processes_that_were_killed_go_on_to_the_same_bits(two):
    broken, whole = results(two[0], "broken"), results(two[0], "whole")
    for (weights, history), (weights_0, history_0) in zip(broken, whole, strict=True):
        assert same(weights, weights_0) and history == history_0


def test_of_two_processes_one_writes_and_prints_and_nobody_else_does(two):
    folder, out, err = two
    written = sorted(p.name for p in folder.glob("*.safetensors*"))
    assert written == [f"{name}.safetensors" for name in ("broken", "plain", "whole")]
    said = ["plain: step 30", "whole: step 30", "broken: going on from step 17"]
    said += ["broken: step 30", "broken: 30 steps already trained"]
    lines = out.splitlines()
    assert len(lines) == len(said) and all(map(str.startswith, lines, said)), out
    assert not err


def test_shares_of_a_batch(monkeypatch):
    i = torch.arange(8)
    assert torch.equal(training.share(i), i)
    parts = []
    for rank in "01":
        for name, value in (("LOCAL_RANK", rank), ("RANK", rank), ("WORLD_SIZE", "2")):
            monkeypatch.setenv(name, value)
        parts.append(training.share(i))
        assert training.pick_device("cuda") == torch.device("cuda", int(rank))
    assert sorted(torch.cat(parts).tolist()) == i.tolist()
    assert len(parts[0]) == len(parts[1])
    with pytest.raises(InputError, match="a batch of 7 cannot be shared by 2 processes"):
        training.share(i[:7])


def test_bfloat16_computes_in_it_and_keeps_float32_weights(tmp_path):
    torch.manual_seed(0)
    model, seen = nn.Linear(4, 1), set()

    def loss(g):
        x = torch.randn(16, 4, generator=g)
        y = model(x)
        seen.add(y.dtype)
        return (y.float() - x.sum(1, keepdim=True)).square().mean(), {}

    settings = dict(path=tmp_path / "m.safetensors", steps=100, lr=5e-2, seed=0, inputs="")
    with pytest.raises(InputError, match="precision 'half': choose one of 32-true, bf16-mixed"):
        training.train(model, loss, precision="half", **settings)
    history = training.train(model, loss, precision="bf16-mixed", **settings)
    assert seen == {torch.bfloat16}
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert history[-1]["loss"] < 0.01 * history[0]["loss"]


# --- what a training is known by ----------------------------------------------------------------


def module(folder, name, text):
    """A module of the package, read from `folder`."""
    file = folder / f"{name}.py"
    file.write_text(text)
    spec = importlib.util.spec_from_file_location(f"dfa.{name}", file)
    made = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = made
    spec.loader.exec_module(made)
    return made


def test_a_base_class_in_another_file_is_part_of_the_key(tmp_path, monkeypatch):
    base = "import torch\nclass Base(torch.nn.Module):\n    pass\n"
    for name in ("_base", "_kind"):
        monkeypatch.setitem(sys.modules, f"dfa.{name}", None)  # put back afterwards
    _base = module(tmp_path, "_base", base)
    kind = "from dfa._base import Base\nclass Half(Base):\n    pass\nclass Kind(Half):\n    pass\n"
    _kind = module(tmp_path, "_kind", kind)
    assert training._source(_base.Base()) == base
    assert training._source(_kind.Kind()) == kind + base
    (tmp_path / "_base.py").write_text(base + "# changed\n")
    assert training._source(_kind.Kind()) == kind + base + "# changed\n"


def test_a_model_of_one_file_keeps_its_key(tmp_path):
    from dfa.gpvae import AttributeVAE

    for model in (Line(), AttributeVAE()):
        assert training._source(model) == Path(inspect.getsourcefile(type(model))).read_text()
    path, inputs = tmp_path / "a.safetensors", training.digest(DATA)
    fit(path)
    source = Path(__file__).read_text()
    key = training.digest(inputs, 30, 3, source, ["Line", 0.0, 50])
    assert training._read(path)[1]["key"] == key
