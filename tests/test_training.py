"""The training loop: resumable to the bit, never a stale result, and one loop for many devices."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from dfa import training
from dfa.media import InputError
from dfa.processes import own_part
from dfa.recipe import Recipe, digest


class Line(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 1))


DATA = torch.randn(64, 5, generator=torch.Generator().manual_seed(0))


class Killed(Exception):
    pass


RECIPE = Recipe(30, lr=1e-2)


def fit(path, recipe=RECIPE, die_at=None, dropout=0.2, **changes):
    torch.manual_seed(0)
    model, calls = Line(), []
    model.net[1].p = dropout

    def loss(g):
        calls.append(1)
        if len(calls) == die_at:
            raise Killed
        x = DATA[own_part(torch.randint(64, (16,), generator=g))]
        off = model.net(x[:, :4]) - x[:, 4:]
        return off.square().mean(), {"off": off.abs().mean().item()}

    settings = dict(seed=3, data=digest(DATA), save_every=0.0) | changes
    history = training.train(model, loss, recipe, path=path, **settings)
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
    for change in (
        {"seed": 4}, {"data": "other data"}, {"recipe": replace(RECIPE, steps=20)},
        {"uses": [nn.Linear(1, 1)]}, {"code": [digest]},
    ):  # fmt: skip
        _, _, calls = fit(path, **change)
        assert calls > 0


def test_a_loaded_training_leaves_the_generator_where_it_left_it_itself(tmp_path):
    """What draws afterwards draws the same, whether the weights were made now or found."""
    path, left = tmp_path / "a.safetensors", []
    with pytest.raises(Killed):
        fit(path, die_at=18)
    for _ in range(2):  # goes on; is found
        fit(path)
        left.append(torch.get_rng_state())
    fit(tmp_path / "unbroken.safetensors")
    left.append(torch.get_rng_state())
    assert torch.equal(left[0], left[1]) and torch.equal(left[0], left[2])
    torch.manual_seed(0)
    assert not torch.equal(left[0], torch.get_rng_state())


def test_what_is_noted_of_a_training(tmp_path):
    _, history, _ = fit(tmp_path / "a.safetensors")
    noted = training.metadata(tmp_path / "a.safetensors")
    assert noted["recipe"] == dict(steps=30, lr=1e-2, weight_decay=0.0, warmup=50, clip=1.0)
    assert (noted["history"], noted["steps"], noted["seed"]) == (history, 30, 3)
    assert [point["step"] for point in history] == list(range(1, 31))
    assert noted["seconds"] >= 0


def test_the_rate_rises_and_falls_as_a_cosine():
    r = Recipe(100, warmup=10)
    rates = [training.scheduled(2.0, r, step) for step in range(101)]
    assert rates[0] == pytest.approx(0.2) and rates[4] == pytest.approx(1.0, rel=0.01)
    assert rates[50] == pytest.approx(2 * 0.51) and rates[100] == pytest.approx(0.04)
    assert rates.index(max(rates)) == 9


def test_a_loss_that_is_not_finite_stops_the_training(tmp_path):
    model = Line()
    with pytest.raises(FloatingPointError, match="step 0"):
        training.train(
            model, lambda g: (model.net[0].weight.sum() * float("nan"), {}), Recipe(3),
            path=tmp_path / "x.safetensors", seed=0, data="",
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


@pytest.mark.long
def test_two_processes_take_the_steps_of_one(two, tmp_path):
    alone, history, _ = fit(tmp_path / "a.safetensors", dropout=0.0)
    (first, history_1), (second, history_2) = results(two[0], "plain")
    assert same(first, second) and history_1 == history_2
    for name, tensor in alone.items():
        torch.testing.assert_close(first[name], tensor, atol=1e-5, rtol=1e-5)
    for here, there in zip(history, history_1, strict=True):
        assert there == pytest.approx(here, rel=1e-4, abs=1e-5)


@pytest.mark.long
def test_two_processes_that_were_killed_go_on_to_the_same_bits(two):
    broken, whole = results(two[0], "broken"), results(two[0], "whole")
    for (weights, history), (weights_0, history_0) in zip(broken, whole, strict=True):
        assert same(weights, weights_0) and history == history_0


@pytest.mark.long
def test_of_two_processes_one_writes_and_prints_and_nobody_else_does(two):
    folder, out, err = two
    written = sorted(p.name for p in folder.glob("*.safetensors*"))
    assert written == [f"{name}.safetensors" for name in ("broken", "plain", "whole")]
    said = ["plain: step 30", "whole: step 30", "broken: continuing from step 17"]
    said += ["broken: step 30", "broken: 30 steps already trained"]
    lines = out.splitlines()
    assert len(lines) == len(said) and all(map(str.startswith, lines, said)), out
    assert not err


def test_shares_of_a_batch(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    i = torch.arange(8)
    assert torch.equal(own_part(i), i)
    parts = []
    for rank in "01":
        for name, value in (("LOCAL_RANK", rank), ("RANK", rank), ("WORLD_SIZE", "2")):
            monkeypatch.setenv(name, value)
        parts.append(own_part(i))
        assert training.pick_device("cuda") == torch.device("cuda", int(rank))
    assert sorted(torch.cat(parts).tolist()) == i.tolist()
    assert len(parts[0]) == len(parts[1])
    with pytest.raises(InputError, match="a batch of 7 cannot be shared by 2 processes"):
        own_part(i[:7])


def test_a_device_that_is_not_there_is_one_line(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert training.pick_device("auto") == torch.device("cpu")
    for name in ("cuda", "cuda:0"):
        with pytest.raises(InputError, match="there is no CUDA device: choose --device cpu"):
            training.pick_device(name)
    with pytest.raises(InputError, match="there is no device 'gpu': choose auto, cpu or cuda"):
        training.pick_device("gpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert training.pick_device("auto") == training.pick_device("cuda") == torch.device("cuda", 0)
    with pytest.raises(InputError, match="there is no cuda:1: this machine has 1 CUDA device"):
        training.pick_device("cuda:1")
    monkeypatch.setenv("LOCAL_RANK", "1")  # two processes share the one there is
    assert training.pick_device("cuda") == torch.device("cuda", 0)


def test_bfloat16_computes_in_it_and_keeps_float32_weights(tmp_path):
    torch.manual_seed(0)
    model, seen = nn.Linear(4, 1), set()

    def loss(g):
        x = torch.randn(16, 4, generator=g)
        y = model(x)
        seen.add(y.dtype)
        return (y.float() - x.sum(1, keepdim=True)).square().mean(), {}

    settings = dict(path=tmp_path / "m.safetensors", seed=0, data="")
    with pytest.raises(InputError, match="precision 'half': choose one of 32-true, bf16-mixed"):
        training.train(model, loss, Recipe(100, lr=5e-2), precision="half", **settings)
    history = training.train(model, loss, Recipe(100, lr=5e-2), precision="bf16-mixed", **settings)
    assert seen == {torch.bfloat16}
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert history[-1]["loss"] < 0.01 * history[0]["loss"]
