"""The command line: one line and exit code 2 for what a user can mend, and nothing half-written."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from dfa import captures, media
from dfa.cli import main
from dfa.commands.fit import alone_in, check_memory
from dfa.evaluation.syncnet import SyncNet
from dfa.media import InputError

SIZE = 256


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Bad input of every kind, made from three seconds of a capture."""
    folder = tmp_path_factory.mktemp("clips")
    source = captures.path("subject_a")
    frames = media.frames_of(source, None, SIZE)[:75]
    audio = media.read_audio(source)[: 75 * 640]
    grey = np.full_like(frames, 128)
    half = frames[:, :, SIZE // 4 : SIZE // 4 * 3]
    two = np.concatenate([half, half], 2)
    for name, pictures, sound in (
        ("good", frames, audio),
        ("no_face", grey, audio),
        ("two_faces", two, audio),
        ("no_sound", frames, None),
        ("silent", frames, np.zeros_like(audio)),
        ("short", frames[:20], audio[: 20 * 640]),
    ):
        media.write_video(folder / f"{name}.mp4", pictures, sound)
    whole = (folder / "good.mp4").read_bytes()
    (folder / "truncated.mp4").write_bytes(whole[: len(whole) // 3])
    (folder / "text.mp4").write_text("this is no video\n" * 100)
    media.write_audio(folder / "speech.wav", audio)
    media.write_audio(folder / "silence.wav", np.zeros(32000, np.float32))
    (folder / "a_file").write_text("")
    return folder


BAD = {
    "no_face.mp4": "face",
    "two_faces.mp4": "face",
    "truncated.mp4": "",
    "text.mp4": "",
    "short.mp4": "second|s |short",
    "missing.mp4": "missing.mp4",
}


def fails(capsys, *arguments) -> str:
    capsys.readouterr()
    assert main([str(a) for a in arguments]) == 2
    error = capsys.readouterr().err.strip().splitlines()
    said = [line for line in error if line.startswith("dfa: ")]
    assert len(said) == 1, error
    assert "Traceback" not in "\n".join(error)
    return said[0]


@pytest.mark.parametrize("name", BAD)
def test_track_refuses_bad_video(clips, tmp_path, capsys, name):
    import re

    said = fails(capsys, "track", clips / name, "-o", tmp_path / "a.npz")
    assert re.search(BAD[name], said)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["no_sound.mp4", "silent.mp4", "no_face.mp4", "truncated.mp4"])
def test_fit_refuses_bad_video(clips, tmp_path, capsys, name):
    fails(capsys, "fit", clips / name, "-o", tmp_path / "model")
    left = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert left == []


def test_outputs_that_cannot_be_written(clips, tmp_path, capsys):
    fails(capsys, "track", clips / "good.mp4", "-o", tmp_path / "nowhere" / "a.npz")
    fails(capsys, "track", clips / "good.mp4", "-o", clips / "a_file" / "a.npz")
    fails(capsys, "fit", clips / "good.mp4", "-o", clips / "a_file")
    fails(capsys, "fit", clips / "good.mp4", "-o", clips / "a_file" / "model")
    assert list(tmp_path.iterdir()) == []


def test_an_output_is_no_input(clips, tmp_path, capsys):
    shutil.copy(clips / "good.mp4", video := tmp_path / "good.mp4")
    shutil.copy(clips / "speech.wav", speech := tmp_path / "speech.wav")
    before = [p.read_bytes() for p in (video, speech)]
    (tmp_path / "model.json").write_text("{}")
    assert "is an input" in fails(capsys, "track", video, "-o", video)
    assert "is an input" in fails(capsys, "speak", tmp_path, "--audio", speech, "-o", speech)
    copied = ["speak", tmp_path, "--audio", speech, "--pose-from", video, "-o", video]
    assert "is an input" in fails(capsys, *copied)
    assert [p.read_bytes() for p in (video, speech)] == before


def test_a_training_that_needs_more_memory_than_there_is():
    check_memory(10**6, 512)
    with pytest.raises(InputError, match="at 512x512 pixels needs about 1000000.0 GB of memory"):
        check_memory(10**15, 512)


@pytest.mark.parametrize(
    "package, command",
    [("pyvista", "pip install 'dfa[studio]'"), ("voila", "pip install 'dfa[study]'"),
     ("torch.nn", "pip install .")],
)  # fmt: skip
def test_a_missing_package_is_named_with_what_brings_it(monkeypatch, capsys, package, command):
    def run(args):
        raise ModuleNotFoundError(name=package)

    monkeypatch.setattr("dfa.commands.origin.run", run)
    said = fails(capsys, "origin", "x.png")
    assert said == f"dfa: this needs the package {package.partition('.')[0]}: {command}"


@pytest.mark.skipif(sys.platform == "win32", reason="folders are not locked on Windows")
def test_one_fit_at_a_time_writes_to_a_folder(clips, tmp_path, capsys):
    with alone_in(tmp_path):
        said = fails(capsys, "fit", clips / "good.mp4", "-o", tmp_path, "--profile", "smoke")
    assert "another `dfa fit`" in said
    with alone_in(tmp_path):  # it is free again
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "option, value",
    [("--size", "33"), ("--size", "16"), ("--size", "100000"), ("--size", "big"), ("--seed", "-1"),
     ("--seed", str(2**32)), ("--seed", "1.5")],
)  # fmt: skip
@pytest.mark.parametrize("command", ["fit x.mp4 -o m", "speak m --audio x.wav -o x.mp4"])
def test_numbers_out_of_range(capsys, command, option, value):
    with pytest.raises(SystemExit) as stopped:
        main([*command.split(), option, value])
    assert stopped.value.code == 2
    assert f"argument {option}" in capsys.readouterr().err.splitlines()[-1]


def test_speak_wants_a_model_and_a_voice(clips, tmp_path, capsys):
    out = tmp_path / "t.mp4"
    said = fails(capsys, "speak", tmp_path, "--audio", clips / "speech.wav", "-o", out)
    assert "dfa fit" in said
    assert not out.exists()


def test_score_refuses_what_is_missing(clips, capsys):
    fails(capsys, "score", clips / "missing.mp4", clips / "good.mp4")
    fails(capsys, "score", clips / "good.mp4", clips / "text.mp4")


def test_score_refuses_weights_of_something_else(clips, tmp_path, capsys):
    good = clips / "good.mp4"
    torch.save(torch.nn.Linear(2, 2).state_dict(), tmp_path / "other.pt")
    for weights in (tmp_path / "other.pt", good, tmp_path / "missing.model"):
        said = fails(capsys, "score", good, good, "--syncnet-weights", weights)
        assert weights.name in said


@pytest.mark.long
def test_score_with_syncnet_weights(clips, tmp_path, capsys):
    torch.manual_seed(0)
    torch.save(SyncNet().state_dict(), tmp_path / "syncnet_v2.model")
    good, more = str(clips / "good.mp4"), ["--syncnet-weights", str(tmp_path / "syncnet_v2.model")]
    capsys.readouterr()
    assert main(["score", good, good, *more, "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert set(scores) == {"psnr", "ssim", "lmd", "sync", "sync_video", "blinks_per_s"}
    for metric in ("sync", "sync_video"):
        assert scores[metric]["expert"] == "official SyncNet weights"
        # a single clip of 5 s: no interval
        assert scores[metric]["n"] == 1 and scores[metric]["ci_low"] is None
        assert scores[metric]["value"] > 0


@pytest.mark.parametrize("weights", [None, "syncnet_v2.model"])
def test_score_says_who_judged(weights, monkeypatch, capsys):
    rows = pd.DataFrame([dict(metric="sync", value=1, ci_low=0, ci_high=2, n=3)])
    monkeypatch.setattr("dfa.evaluation.protocol.score", lambda *_: rows)
    monkeypatch.setattr("dfa.evaluation.syncnet.load_syncnet", lambda path: path)
    assert main(["score", "a", "b", *(["--syncnet-weights", weights] if weights else [])]) == 0
    judge = "official SyncNet weights" if weights else "expert trained on synthetic actors"
    assert capsys.readouterr().out.endswith(f"3 clips  {judge}\n")


def test_captures_knows_its_actors(tmp_path, capsys):
    assert "subject_a" in fails(capsys, "captures", "nobody", "-o", tmp_path)


def test_help_gives_units_and_defaults(capsys):
    for command in ("track", "fit", "speak", "score", "export", "captures"):
        with pytest.raises(SystemExit) as stop:
            main([command, "--help"])
        assert stop.value.code == 0
        assert "default" in capsys.readouterr().out or command in ("track", "score")


def test_module_runs_as_a_command():
    done = subprocess.run([sys.executable, "-m", "dfa", "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    assert "speak" in done.stdout


@pytest.mark.slow
def test_a_video_in_a_talking_head_out(clips, tmp_path, capsys):
    """track, fit, speak and score on three seconds, with settings of no quality."""
    model, talk = tmp_path / "model", tmp_path / "talk.mp4"
    good, speech = str(clips / "good.mp4"), str(clips / "speech.wav")
    assert main(["track", good, "-o", str(tmp_path / "a.npz"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["frames"] == 75
    assert main(["fit", good, "-o", str(model), "--profile", "smoke"]) == 0
    assert "advised" in capsys.readouterr().err
    before = os.stat(model / "field.safetensors").st_mtime_ns
    assert main(["fit", good, "-o", str(model), "--profile", "smoke"]) == 0
    assert os.stat(model / "field.safetensors").st_mtime_ns == before  # nothing done twice
    fails(capsys, "speak", model, "--audio", clips / "silence.wav", "-o", talk)
    fails(capsys, "speak", model, "--audio", clips / "no_sound.mp4", "-o", talk)
    assert not talk.exists()
    assert main(["speak", str(model), "--audio", speech, "-o", str(talk), "--seed", "3"]) == 0
    assert media.frames_of(talk, None, 64).shape == (75, 64, 64, 3)
    assert np.abs(media.read_audio(talk)).max() > 0.01
    again = tmp_path / "again.mp4"
    assert main(["speak", str(model), "--audio", speech, "-o", str(again), "--seed", "3"]) == 0
    assert again.read_bytes() == talk.read_bytes()
    wide = ["speak", str(model), "--audio", speech, "-o", str(again), "--pose-from", good]
    assert main([*wide, "--size", "96"]) == 0
    assert media.frames_of(again, None, 96).shape == (75, 96, 96, 3)
    capsys.readouterr()
    assert main(["score", str(again), good, "--json"]) == 0
    scores = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(scores) == {"psnr", "ssim", "lmd", "sync", "blinks_per_s"}
    assert 5 < scores["psnr"]["value"] < 60


@pytest.mark.slow
def test_two_processes_fit_one_model(clips, tmp_path):
    """Under torchrun: tracked once, said once, written once, and it speaks."""
    model, talk = tmp_path / "model", tmp_path / "talk.mp4"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    fit = ["fit", str(clips / "good.mp4"), "-o", str(model), "--profile", "smoke", "--steps", "6"]
    done = subprocess.run(
        [*torchrun, "--nproc_per_node", "2", "-m", "dfa", *fit],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines().count("radiance field") == 1
    assert json.loads((model / "model.json").read_text())["steps"] == 6
    assert main(["speak", str(model), "--audio", str(clips / "speech.wav"), "-o", str(talk)]) == 0


def test_a_reader_that_has_gone_is_no_error():
    """`dfa origin … | head`: what nobody reads is not printed, and nothing is said of it."""
    command = [sys.executable, "-m", "dfa", "origin", "table2"]
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    with subprocess.Popen(command, cwd=Path(__file__).parents[1], **pipes) as done:
        done.stdout.close()
        said = done.stderr.read()
    assert (done.returncode, said) == (0, b"")
