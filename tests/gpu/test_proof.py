"""`dfa bench --gpu`, in miniature on the CPU: every step, written as it comes, and continued."""

import json

import pytest
import torch

from dfa.cli import main
from dfa.gpu import proof
from dfa.media import InputError
from dfa.method.field_training import load_field


def test_without_a_gpu_it_says_so(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv(proof.PRETEND, raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    out = tmp_path / "bench_gpu.json"
    assert main(["bench", "--gpu", "-o", str(out)]) == 2
    assert capsys.readouterr().err == "dfa: there is no CUDA device: `dfa bench` measures the CPU\n"
    assert not out.exists() and not out.with_suffix("").exists()


def test_a_step_that_fails_leaves_the_others_and_is_done_again(tmp_path, monkeypatch):
    done = []

    def works(plan, folder):
        return dict(found=1)

    def fails(plan, folder):
        raise ValueError("no luck")

    def here(threads, step, *args):
        done.append(step.__name__)
        return step(*args)

    monkeypatch.setenv(proof.PRETEND, "cpu")
    monkeypatch.setattr(proof.bench, "in_own_process", here)
    monkeypatch.setattr(proof, "STEPS", {"a": (1.0, works), "b": (1.0, fails), "c": (1.0, works)})
    out = tmp_path / "bench_gpu.json"
    steps = proof.prove(out)["steps"]
    assert steps["b"] == {"failed": "ValueError: no luck"} and "seconds" in steps["c"]
    assert json.loads(out.read_text())["steps"] == steps
    monkeypatch.setattr(proof, "STEPS", {"a": (1.0, works), "b": (1.0, works), "c": (1.0, works)})
    assert "seconds" in proof.prove(out)["steps"]["b"]
    assert done == ["works", "fails", "works", "works"]


def test_a_step_that_no_longer_fits_waits_for_the_next_run(tmp_path, monkeypatch):
    monkeypatch.setattr(proof, "pick_device", lambda name: "cpu")
    monkeypatch.delenv(proof.PRETEND, raising=False)
    monkeypatch.setattr(proof, "STEPS", {"long": (61.0, None), "short": (59.0, None)})
    monkeypatch.setattr(proof.bench, "in_own_process", lambda *args: {})
    steps = proof.prove(tmp_path / "g.json", minutes=1.0)["steps"]
    assert "run the command again" in steps["long"]["skipped"] and "seconds" in steps["short"]


@pytest.mark.slow
def test_the_whole_in_miniature(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv(proof.PRETEND, "cpu")
    out = tmp_path / "bench_gpu.json"
    with pytest.raises(SystemExit, match="0"):
        main(["bench", "--gpu", "-o", str(out)])
    text, found = capsys.readouterr().out, json.loads(out.read_text())
    assert found["miniature"] and "synthetic actors" in found["data"]
    steps = found["steps"]
    assert list(steps) == list(proof.STEPS)
    assert all("seconds" in step for step in steps.values())
    assert load_field(tmp_path / "bench_gpu" / "paper_field.safetensors").size == 16
    for name, kind in (("paper_field", "paper"), ("our_field", "fast")):
        field = steps[name]
        assert len(field["curve"]) == len(field["curve_steps"]) and field["psnr"] > 5
        lines = (tmp_path / "bench_gpu" / f"{kind}.jsonl").read_text().splitlines()
        assert [json.loads(line)[:2] for line in lines] == field["curve"]
    assert steps["agreement"]["agrees"] and set(steps["agreement"]["difference"].values()) == {0}
    assert steps["two_processes"]["loss"] == pytest.approx(
        steps["two_processes"]["loss_alone"], rel=0.05
    )
    for name in steps:
        assert name in text


def test_a_training_without_a_number_is_no_success():
    assert proof._unmeasured({"a": 1.0, "b": "OutOfMemoryError", "c": float("nan")}) == {
        "failed": "no number of b, c"
    }
    assert "failed" in proof._unmeasured({}) and not proof._unmeasured({"a": 0.5})


@pytest.mark.parametrize("text", ["no JSON", "[]", '{"device": "another"}'])
def test_other_results_are_not_written_over(text, tmp_path, monkeypatch):
    monkeypatch.setenv(proof.PRETEND, "cpu")
    out = tmp_path / "g.json"
    out.write_text(text)
    with pytest.raises(InputError, match="g.json holds other results"):
        proof.prove(out)
    assert out.read_text() == text
    with pytest.raises(InputError, match="is no name of a .json file"):
        proof.prove(tmp_path / "results")
