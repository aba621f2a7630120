"""The recordings of the captures: which frames are silence, which held vowels, which test."""

import numpy as np
import pytest
from conftest import speaker

from dfa import captures
from dfa.evaluation.tracker import quiet_and_held
from dfa.media import FPS, InputError, iter_frames, read_audio, write_video


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


def test_unseen_speech_is_in_three_languages():
    spoken = captures.sentences("subject_a", 100.0)
    assert len(spoken["own"]) > 6 * 16_000
    for language, name in (("zh", "corpus_02"), ("de", "corpus_05")):
        np.testing.assert_array_equal(
            spoken[language], read_audio(captures.unseen(name))[: 6 * 16_000]
        )
    with pytest.raises(InputError, match="'corpus_01' says nothing unseen: choose one of"):
        captures.unseen("corpus_01")


def test_the_shipped_views_are_of_the_second_recording():
    """The first camera is at rest: its pictures are the video's frames, its depth is the head's."""
    views = captures.views("subject_a")
    frames = list(iter_frames(captures.path("subject_a", second=True)))
    for i in (0, 11):
        apart = views["pictures"][i].astype(float) - frames[views["frame"][i]]
        assert np.sqrt((apart**2).mean()) < 8  # 8 bits: two compressions
        x, y, z = views["h"][i, 3:]
        column, row = (int(256 * (0.5 + 3.2 * v / z)) for v in (x, y))
        assert views["depth"][i, row, column] == pytest.approx(z, abs=0.05)
    assert views["depth"].shape == views["pictures"].shape[:3] == (108, 256, 256)


def test_damaged_files_of_a_capture_are_named(tmp_path, monkeypatch):
    names = (
        "subject_a.npz",
        "subject_a.mp4",
        *(f"subject_a_views.{x}" for x in ("npz", "mp4", "mkv")),
    )
    whole = {name: (captures.FOLDER / name).read_bytes() for name in names}
    monkeypatch.setattr(captures, "FOLDER", tmp_path)
    for name, content in whole.items():
        (tmp_path / name).write_bytes(content)
    for name, share, read in (
        ("subject_a.npz", 2, captures.truth),
        ("subject_a.npz", 10**9, captures.truth),
        ("subject_a_views.npz", 2, captures.views),
        ("subject_a_views.mkv", 1.5, captures.views),
    ):
        (tmp_path / name).write_bytes(whole[name][: int(len(whole[name]) / share)])
        with pytest.raises(InputError, match=f"{name} is damaged: get it again"):
            read("subject_a")
        (tmp_path / name).write_bytes(whole[name])
