"""Training of fields: where pixels count more, corrected poses, to the bit, and read back."""

import numpy as np
import pytest
import torch
from conftest import ball, conditions

from dfa import training
from dfa.media import InputError
from dfa.method import fast_field, field_training, mlp_field
from dfa.recipe import Recipe

KINDS = sorted(field_training.FIELDS)


def test_region_weights_favour_eyes_and_mouth():
    points = torch.zeros(1, 68, 2) + 0.5
    angle = torch.linspace(0, 2 * np.pi, 20)
    points[0, 48:68] = 0.7 + 0.06 * torch.stack([angle.cos(), angle.sin() * 0.4], 1)
    points[0, 36:42, 0] = torch.linspace(0.3, 0.4, 6)
    points[0, 42:48, 0] = torch.linspace(0.6, 0.7, 6)
    w = field_training.region_weights(points, 64)
    assert w.shape == (1, 1, 64, 64)
    assert abs(float(w.mean()) - 1) < 1e-5
    assert w[0, 0, 45, 45] > 3 * w[0, 0, 5, 5]
    assert w[0, 0, 32, 22] > 3 * w[0, 0, 5, 5]


def test_pose_corrections_are_linear_between_knots_and_have_no_mean():
    corrections = field_training.PoseCorrections(fast_field.FastField(), T=33, every=8)
    assert corrections(torch.arange(33)).abs().max() == 0  # nothing is known at first
    with torch.no_grad():
        corrections.knots[:] = torch.arange(6.0)[:, None]  # knots 0..5 at frames 0, 8, .., 40
    moved = corrections(torch.tensor([0, 4, 8, 32]))[:, 0] / corrections.UNIT
    torch.testing.assert_close(moved, torch.tensor([-2.5, -2.0, -1.5, 1.5]))


@pytest.mark.parametrize("kind", KINDS)
def test_a_field_is_read_back_whichever_it_is(kind, tmp_path):
    torch.manual_seed(0)
    field, cond = field_training.FIELDS[kind](conditions(), 32).eval(), conditions(1)
    training.save(field, tmp_path / "field.safetensors")
    again = field_training.load_field(tmp_path / "field.safetensors")
    assert type(again) is type(field) and int(again.size) == 32
    with torch.no_grad():
        torch.testing.assert_close(again.image(cond, 32), field.image(cond, 32))
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "field.safetensors").read_bytes()[:999])
    for name in ("cut", "none"):
        with pytest.raises(InputError, match="holds no radiance field"):
            field_training.load_field(tmp_path / f"{name}.safetensors")


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_training_ends_with_the_bits_of_an_unbroken_one(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(mlp_field.PaperField, "RAYS", 64)
    monkeypatch.setattr(mlp_field.PaperField, "SAMPLES", 4)
    cond, frames = ball(32, 6)

    def learn(path, die_at=None):
        torch.manual_seed(0)
        field, steps = field_training.FIELDS[kind](cond, 32), []

        def loss(g):
            steps.append(1)
            if len(steps) == die_at:
                raise KeyboardInterrupt
            i = torch.randint(6, (field.frames_per_step,), generator=g)
            return field.loss(cond[i], frames[i], torch.ones(len(i), 1, 32, 32), g)

        groups = field.parameter_groups()
        settings = dict(seed=1, data="", groups=groups, save_every=0.0)
        training.train(field, loss, Recipe(8, clip=None), path=path, **settings)
        return field.state_dict(), len(steps)

    whole, _ = learn(tmp_path / "whole.safetensors")
    with pytest.raises(KeyboardInterrupt):
        learn(tmp_path / "killed.safetensors", die_at=5)
    resumed, steps = learn(tmp_path / "killed.safetensors")
    assert steps == 4
    assert all(torch.equal(v, resumed[k]) for k, v in whole.items())
