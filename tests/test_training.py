"""The training loop: resumable to the bit, and never a stale result."""

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


def fit(path, steps=30, die_at=None, **changes):
    torch.manual_seed(0)
    model, calls = Line(), []

    def loss(g):
        calls.append(1)
        if len(calls) == die_at:
            raise Killed
        x = DATA[torch.randint(64, (16,), generator=g)]
        return (model.net(x[:, :4]) - x[:, 4:]).square().mean(), {}

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
