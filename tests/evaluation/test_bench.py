"""What `dfa bench` measures: the clock, the curves and how they are merged, and the whole, tiny."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import conditions

from dfa.cli import main
from dfa.commands.bench import bench_table
from dfa.evaluation import bench
from dfa.method import field_training, mlp_field
from dfa.method.field import DIM_C
from dfa.method.field_training import FieldRecipe
from dfa.profiles import profile

SMOKE = profile("smoke")


class Clock:
    """Time that passes only when somebody says so."""

    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr(bench, "clock", lambda: self.now)

    def passes(self, seconds: float) -> None:
        self.now += seconds


def test_the_clock_stands_during_evaluation(monkeypatch):
    clock = Clock(monkeypatch)
    seen = []

    def evaluate(field):
        clock.passes(1000)
        seen.append(field)
        return 20.0 + len(seen)

    watch = bench.Watch(evaluate, every=4.0)
    for _ in range(32):
        watch("field")
        clock.passes(0.5)
    watch.stop()
    clock.passes(50)  # what comes after is no training
    watch.stop()
    watch.look("field")
    assert watch.steps == [0.5] * 32
    assert watch.seconds == 16
    assert [s for s, _ in watch.curve] == [0.5, 1, 2, 4, 8, 12, 16]  # then every 4 s
    assert [db for _, db in watch.curve] == [21, 22, 23, 24, 25, 26, 27]


def test_seconds_to_a_psnr():
    curve = [[1, 20.0], [3, 24.0], [5, 23.0], [9, 27.0]]
    assert bench.seconds_to(curve, 18) == 1  # there before anyone looked
    assert bench.seconds_to(curve, 20) == 1
    assert bench.seconds_to(curve, 21) == 1.5
    assert bench.seconds_to(curve, 24) == 3
    assert bench.seconds_to(curve, 25) == 7  # the first time above it, from the dip
    assert bench.seconds_to(curve, 27.5) is None


def test_the_worse_subject_counts_in_each_number():
    reached = lambda *s: dict(zip(("25", "28", "30", "32"), s, strict=True))  # noqa: E731
    a = dict(step_s=0.1, train_s=9.0, psnr=30.0, fps_128=50.0, fps_256=9.0, peak_memory_mb=700)
    b = dict(step_s=0.2, train_s=8.0, psnr=29.0, fps_128=60.0, fps_256=8.0, peak_memory_mb=600)
    a |= dict(peak_share=0.2, flops_step=5, curve=[], seconds_to_db=reached(1, 4, 9.0, None))
    b |= dict(peak_share=0.1, flops_step=5, curve=[], seconds_to_db=reached(2, 3, None, None))
    worst = dict(step_s=0.2, train_s=9.0, psnr=29.0, fps_128=50.0, fps_256=8.0, peak_memory_mb=700)
    worst |= dict(peak_share=0.1, seconds_to_db=reached(2, 4, None, None))
    assert bench.worse([a, b]) == worst
    assert bench.worse([b, a]) == worst
    on_gpu = [r | dict(peak_gpu_memory_mb=m) for r, m in ((a, 3), (b, 4))]
    assert bench.worse(on_gpu) == worst | dict(peak_gpu_memory_mb=4)


def test_speedup_is_the_smallest_there_is():
    def subject(fast, paper, fps):
        return {
            "fast": dict(curve=fast, fps_128=fps),
            "paper": dict(curve=paper, fps_128=0.1, flat_psnr=14.5),
        }

    paper = [[10, 14.0], [20, 15.0], [40, 22.0], [60, 21.0]]  # best at 40 s
    a = subject([[1, 20.0], [2, 24.0]], paper, 40.0)  # 22 dB after 1.5 s
    b = subject([[1, 23.0], [2, 24.0]], paper, 30.0)  # already after 1 s
    found = bench.speedup({"a": a, "b": b})
    at = dict(
        to_paper_best=40 / 1.5, at_db=22, to_any=20
    )  # 15 dB after 20 s, and at once; 14 dB are flat
    assert found == dict(fps_128=pytest.approx(300)) | at
    assert bench.speedup({"b": b})["to_paper_best"] == 40
    never = subject([[1, 10.0], [2, 21.9]], paper, 30.0)
    found = bench.speedup({"a": a, "never": never})
    assert found["to_paper_best"] is None
    assert found["to_any"] == pytest.approx(20 / (1 + 5 / 11.9))  # 15 dB, which both reach


@pytest.mark.parametrize("kind", sorted(field_training.FIELDS))
def test_held_out_psnr_is_that_of_all_pixels(kind, monkeypatch):
    """Against a plain formula on frames that are the field's own, but for a known error."""
    torch.manual_seed(0)
    monkeypatch.setattr(mlp_field.PaperField, "SAMPLES", 8)
    cond = conditions(32)
    field = field_training.FIELDS[kind](cond, 32).train()
    with torch.no_grad():
        own = field.eval().image(cond, 32).permute(0, 2, 3, 1).numpy()
        field.train()
    off = np.where(np.arange(32) < 16, 8, 40)[:, None, None, None]  # frames unlike each other
    whole = np.round(own * 255).clip(0, 255)
    frames = (whole + np.where(whole < 128, off, -off)).astype(np.uint8)
    state = torch.get_rng_state()
    found = bench.held_out(field, cond, frames)
    assert field.training and torch.equal(state, torch.get_rng_state())
    # not the mean of 20 log(255 / 8) and 20 log(255 / 40), which is 23
    assert found == pytest.approx(-10 * np.log10((8**2 + 40**2) / 2 / 255**2), abs=0.2)
    assert bench.held_out(field, cond, frames) == found


@pytest.fixture
def data(tmp_path):
    """What `prepare` writes, of a person that never was: 110 frames of 32x32."""
    rng, T = np.random.default_rng(0), 110
    frames = rng.integers(60, 200, (1, 32, 32, 3)).repeat(T, 0).astype(np.uint8)
    points = rng.uniform(0.3, 0.7, (T, 68, 2)).astype(np.float32)
    path = tmp_path / "data.npz"
    np.savez(path, frames=frames, points=points, cond=conditions(T).numpy(), n=100)
    return path


@pytest.mark.parametrize("watched", [False, True])
def test_watching_changes_nothing(watched, data, tmp_path):
    """A training that is looked at after each step ends with the bits of one that is not."""
    with np.load(data) as file:
        learnt = file["frames"], file["points"], torch.from_numpy(file["cond"])
    watch = bench.Watch(lambda f: bench.held_out(f, learnt[2][100:], learnt[0][100:]))
    looked = []

    def every_step(field):
        watch.due = 0.0
        looked.append(field.training)
        watch(field)

    look, recipe = every_step if watched else None, FieldRecipe(3)
    plain, seen = (
        field_training.train_field(*learnt, recipe, tmp_path / name, 0, "cpu", watch)[0]
        for name, watch in (("plain.safetensors", None), ("seen.safetensors", look))
    )
    assert looked == [True] * 3 * watched
    assert len(watch.curve) == 3 * watched
    for name, value in plain.state_dict().items():
        assert torch.equal(value, seen.state_dict()[name]), name


def here(threads, work, *args):
    """`bench.in_own_process` without the process."""
    return work(*args)


@pytest.fixture
def tiny(monkeypatch, data):
    """Both fields in this process and next to no time."""
    monkeypatch.setattr(bench, "in_own_process", here)
    monkeypatch.setattr(bench, "prepare", lambda name, p, path: path.write_bytes(data.read_bytes()))
    monkeypatch.setattr(mlp_field.PaperField, "SAMPLES", 4)
    monkeypatch.setattr(mlp_field.PaperField, "WIDTH", 16)
    fps = bench.fps
    monkeypatch.setattr(bench, "fps", lambda *args: fps(*args, seconds=0.0))
    return replace(SMOKE, field_steps=4)


def test_bench_measures_both_fields_alike(tiny, capsys, monkeypatch):
    # It renders, but by a clock of pixels: of so short a look the machine decides which is faster.
    rendered = bench.fps
    monkeypatch.setattr(bench, "fps", lambda *args: rendered(*args) and 1e6 / args[2] ** 2)
    result = bench.bench(tiny, ["subject_b"], paper_seconds=1e-3, device="cpu", threads=1)
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert {k: result[k] for k in ("data", "profile", "threads")} == dict(
        data="sample captures, synthetic actors", profile="smoke", threads=1
    )
    assert result["peak_gflops"] > 1
    assert set(result["subjects"]) == {"subject_b"}
    for kind, found in result["subjects"]["subject_b"].items():
        assert result["fields"][kind] == {
            k: v
            for k, v in found.items()
            if k not in ("curve", "curve_steps", "flops_step", "flat_psnr")
        }
        assert set(found["seconds_to_db"]) == {"25", "28", "30", "32"}
        steps = 4 if kind == "fast" else 3
        assert steps / 2 * found["step_s"] < found["train_s"]
        assert found["curve"][-1] == [found["train_s"], found["psnr"]]
        assert 5 < found["psnr"] < 40
        assert 0 < found["fps_256"] < found["fps_128"]
        assert 100 < found["peak_memory_mb"] < 100_000
        assert 0 < found["peak_share"] < 1
        share = found["flops_step"] / found["step_s"] / result["peak_gflops"] / 1e9
        assert found["peak_share"] == pytest.approx(share)
    assert result["speedup"]["fps_128"] > 0
    shown = bench_table({"device": "this machine", **result})
    assert "synthetic actors" in shown and "frames/s, 256x256" in shown
    assert all(len(line) <= 120 for line in shown.splitlines()[2:])


@pytest.mark.long
def test_flops_are_those_of_the_layers(monkeypatch, data):
    """The paper field's step: forward, and as much again for inputs and for weights."""
    monkeypatch.setattr(bench, "fps", lambda *_: 1.0)
    monkeypatch.setattr(mlp_field.PaperField, "RAYS", 64)
    with np.load(data) as file:
        field = mlp_field.PaperField(torch.from_numpy(file["cond"]), 32)
    found = bench.measure("paper", data, SMOKE, 1e-3, "cpu", 1e12)
    layers = [*field.trunk, field.density, field.feature, field.view, field.colour]
    points = field.RAYS * field.SAMPLES
    forward = sum(2 * points * layer.weight.numel() for layer in layers)
    assert 2.8 * forward < found["flops_step"] < 3.1 * forward


def test_a_batch_is_rendered_whole(monkeypatch):
    clock, sizes = Clock(monkeypatch), []

    def render(field, cond, size, batch):
        clock.passes(4.0 if not sizes else 2.0)  # the first is slow
        sizes.append((len(cond), batch, size))
        yield from cond

    monkeypatch.setattr(bench, "render", render)
    assert bench.fps("field", conditions(8), 128, seconds=7.0) == 4.0
    assert sizes == [(8, 8, 128)] * 3


def test_prepared_data_are_those_of_the_notebooks(tmp_path):
    p = replace(SMOKE, seconds=3.0)
    bench.prepare("subject_a", p, tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz") as file:
        assert file["frames"].shape == (75, 64, 64, 3) and file["frames"].dtype == np.uint8
        assert file["points"].shape == (75, 68, 2)
        assert file["cond"].shape == (75, DIM_C) and file["cond"].dtype == np.float32


@pytest.mark.long
def test_in_own_process(capfd):
    """Another process, with its own threads, and nothing of it on stdout."""
    bench.in_own_process(1, print, "training: step 1")
    assert bench.in_own_process(2, torch.get_num_threads) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert "training: step 1" in err


def test_command(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("dfa.profiles.profile", lambda name: tiny)
    result = {"threads": 2, "fields": {}}
    asked = []
    monkeypatch.setattr(bench, "bench", lambda *a: asked.append(a) or result)
    out = tmp_path / "bench.json"
    assert main(["bench", "--json", "--subject", "subject_a", "-o", str(out)]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads(out.read_text())
    assert printed.pop("device").endswith(", 2 threads") and printed == result
    assert asked == [(tiny, ["subject_a"], 300.0, None, "auto")]
    assert main(["bench", "--json", "--threads", "2", "--paper-seconds", "5"]) == 0
    assert asked[1] == (tiny, tiny.test, 5.0, 2, "auto")


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["--subject", "nobody"], "subject_a"),
        (["--subject", "corpus_01"], "subject_a"),  # the shipped weights learnt from that one
        (["--paper-seconds", "0"], "--paper-seconds"),
        (["--paper-seconds", "nan"], "--paper-seconds"),
        (["--threads", "0"], "--threads"),
        (["--output", "/nowhere/bench.json"], "/nowhere"),
    ],
)
def test_bad_arguments(arguments, says, capsys):
    assert main(["bench", "--json", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("dfa: ") and says in err and err.count("\n") == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_no_cuda(capsys):
    assert main(["bench", "--device", "cuda"]) == 2
    assert "--device cpu" in capsys.readouterr().err
