"""The recordings of the captures: which frames are silence, which held vowels, which test."""

import numpy as np
import pytest
from conftest import speaker

from dfa import captures
from dfa.evaluation.tracker import quiet_and_held
from dfa.media import FPS, InputError, read_audio, write_video


def test_quiet_frames_are_silent_and_held_vowels_are_loud():
    for name in ("subject_a", "corpus_02"):
        audio = read_audio(captures.path(name))
        T = len(audio) // 640
        level = 20 * np.log10(np.sqrt((audio[: 640 * T].reshape(T, 640) ** 2).mean(1)) + 1e-6)
        quiet, held = quiet_and_held(name, T)
        assert quiet.shape == held.shape == (T,)
        assert not (quiet & held).any()
        assert quiet.sum() > FPS and held.sum() > FPS
        assert np.percentile(level[quiet], 90) < np.percentile(level[held], 10) - 20


def test_silence_in_the_second_recording_is_another():
    first, second = (quiet_and_held("subject_a", 500, second=x)[0] for x in (False, True))
    assert second.sum() > FPS and (first != second).sum() > FPS


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """A folder of captures, and what notebook 01 leaves: 30 and 20 frames of subject_a."""
    monkeypatch.setattr(captures, "FOLDER", tmp_path)
    for name, T in (("subject_a", 30), ("subject_a.test", 20), ("corpus_01", 44)):
        made = speaker(T, seed=T)
        write_video(tmp_path / f"{name}.mp4", made.frames, made.audio, lossless=True)
        (tmp_path / name).mkdir()
        made.attributes.save(tmp_path / name / "attributes.npz")
    return tmp_path


def test_a_test_subject_has_one_recording_of_two_videos(runs):
    whole = captures.recording("subject_a", runs, 32)
    assert whole.name == "subject_a" and [len(take) for take in whole.takes] == [30, 20]
    for part, T in ((whole.training, 30), (whole.test, 20)):
        made = speaker(T, seed=T)
        np.testing.assert_array_equal(part.frames, made.frames)
        np.testing.assert_array_equal(part.attributes.h, made.attributes.h)
        assert part.name == "subject_a"


def test_a_corpus_subject_has_one_video(runs):
    whole = captures.recording("corpus_01", runs, 32)
    assert whole.takes == (whole,) and (len(whole.training), len(whole.test)) == (40, 4)


def test_the_files_of_all_recordings(runs):
    names = ("corpus_01", "subject_a")
    files = ["corpus_01", "subject_a", "subject_a.test"]
    assert captures.videos(names) == [runs / f"{name}.mp4" for name in files]
    assert captures.tracks(names, runs) == [runs / name / "attributes.npz" for name in files]
    (runs / "subject_a.test.mp4").unlink()
    with pytest.raises(InputError, match="subject_a.test.mp4 is missing: it comes with"):
        captures.recording("subject_a", runs, 32)
