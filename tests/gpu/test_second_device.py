"""Every training runs on a device that is not the CPU, with the CPU's result.

A tensor that is left on the CPU raises here as it does on a GPU.
"""

from dataclasses import replace

import numpy as np
import pytest
import second_device
import torch
from conftest import conditions

from dfa import training
from dfa.gpu import proof, trainings
from dfa.method.field import Field, render_all
from dfa.rivals import Method
from dfa.training import PRECISIONS

pytestmark = pytest.mark.long
DEVICE = f"{second_device.NAME}:0"
TRAININGS = trainings.trainings()


def histories(folder):
    found = {p.name: training.metadata(p)["history"] for p in sorted(folder.glob("*.safetensors"))}
    return {name: [entry["loss"] for entry in history] for name, history in found.items()}


def rendered(made):
    """Frames of what a training gives, if it renders any: (n, S, S, 3) uint8."""
    if isinstance(made, Method):
        source = trainings.speaker(10, 64)
        return np.stack([*made.render(source.audio, source, source)])
    return render_all(made, conditions(3), 32) if isinstance(made, Field) else np.zeros(0)


@pytest.mark.parametrize("name", TRAININGS)
def test_a_training_gives_there_what_it_gives_on_the_cpu(name, tmp_path):
    losses, frames = {}, {}
    for device in ("cpu", DEVICE):
        folder = tmp_path / device.partition(":")[0]
        folder.mkdir()
        with trainings.without_dropout():
            made = TRAININGS[name](folder, 2, device)
        losses[device], frames[device] = histories(folder), rendered(made)
    assert losses["cpu"] and losses["cpu"].keys() == losses[DEVICE].keys()
    for what, expected in losses["cpu"].items():
        np.testing.assert_allclose(losses[DEVICE][what], expected, rtol=1e-3, err_msg=what)
    difference = np.subtract(frames["cpu"], frames[DEVICE], dtype=float)
    assert difference.size == 0 or np.abs(difference).mean() < 0.5  # grey levels of 255


def test_the_proof_compares_it_with_the_cpu(tmp_path, monkeypatch):
    there = replace(proof.MINIATURE, device=DEVICE)
    found = proof.agreement(there, tmp_path)
    assert found["agrees"] and list(found["difference"]) == [*there.names]
    losses = proof._losses

    def disturbed(learn, steps, device, precision):
        off = 1.1 if device == DEVICE else 1.0
        return {k: [off * x for x in v] for k, v in losses(learn, steps, device, precision).items()}

    monkeypatch.setattr(proof, "_losses", disturbed)
    found = proof.agreement(replace(there, names=("F_d",)), tmp_path)
    assert not found["agrees"] and found["difference"]["F_d"] == pytest.approx(0.1, rel=0.1)


MIXED = ("fast field", "paper field", "AD-NeRF")


@pytest.mark.slow  # the CPU emulates half precision
@pytest.mark.parametrize("name", MIXED)
def test_mixed_precision_learns_the_same(name):
    full, mixed = (proof._losses(TRAININGS[name], 2, "cpu", kind) for kind in PRECISIONS)
    for what, expected in full.items():
        np.testing.assert_allclose(mixed[what], expected, rtol=0.05, err_msg=what)
        # the fast field has grids and sums, which need float32, and hardly a network
        assert (mixed[what] != expected) is (name == "paper field")


@pytest.mark.parametrize("name", ["F_d", "Trans GP-VAE", "fast field", "Wav2Lip"])
def test_a_tensor_left_on_the_cpu_is_seen(name, tmp_path):
    """The output of the first layer that is run is planted on the CPU."""
    planted = []

    def plant(layer, inputs, output):
        if not planted and output.device.type == second_device.NAME:
            planted.append(layer)
            return output.cpu()

    kinds = (torch.nn.Linear, torch.nn.Conv1d, torch.nn.Conv2d)
    chosen = lambda m, i, o: plant(m, i, o) if isinstance(m, kinds) else None  # noqa: E731
    hook = torch.nn.modules.module.register_module_forward_hook(chosen)
    try:
        with pytest.raises(RuntimeError, match="on second and on the CPU"):
            TRAININGS[name](tmp_path, 1, DEVICE)
    finally:
        hook.remove()
    assert planted
