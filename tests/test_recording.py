"""A recording and its parts."""

from functools import partial

import numpy as np
import pytest
import torch
from conftest import conditions, speaker

from dfa import recording
from dfa.media import InputError, to_and_fro, write_video
from dfa.method.field_training import FieldRecipe, train_field
from dfa.method.talking_head import Corpus
from dfa.recording import Attributes, Frames, Recording, check_room, training_frames
from dfa.training import metadata


def test_a_part_of_a_recording():
    whole = speaker()
    part = whole.part(10, 22)
    assert len(part) == 12
    np.testing.assert_array_equal(part.audio, whole.audio[6400 : 22 * 640])
    np.testing.assert_array_equal(part.attributes.points, whole.attributes.points[10:22])
    np.testing.assert_array_equal(part.attributes.F_id, whole.attributes.F_id)
    assert part.digest != whole.digest == whole.part(0).digest


def test_parts_know_the_whole():
    """Features of sound are computed over the whole, and cut."""
    whole = speaker(44)
    part = whole.part(10, 40).part(5, 15)
    assert part.whole is whole and (part.cut.start, part.cut.stop) == (15, 25)
    np.testing.assert_array_equal(part.frames, whole.frames[15:25])
    assert whole.whole is whole and (whole.cut.start, whole.cut.stop) == (0, 44)


def test_training_part_is_the_first_ten_elevenths():
    assert training_frames(1650) == 1500
    whole = speaker(44)
    assert (len(whole.training), len(whole.test)) == (40, 4)
    assert whole.test.cut == slice(40, 44) and whole.training.cut == slice(0, 40)
    assert whole.takes == (whole,)


def test_two_videos_are_joined_to_learn_from_one_and_test_with_the_other():
    first, second = speaker(20), speaker(12, seed=1)
    second.attributes.F_id = second.attributes.F_id + 1
    both = Recording.join(first, second)
    assert len(both) == len(both.frames) == 32 and len(both.audio) == 32 * 640
    for part, one, cut in (
        (both.training, first, slice(0, 20)), (both.test, second, slice(20, 32)),
    ):  # fmt: skip
        assert part.cut == cut and part.whole is both
        assert part.digest == one.digest
        assert part.attributes.F_id is first.attributes.F_id  # one person
        np.testing.assert_array_equal(part.attributes.h, one.attributes.h)
        np.testing.assert_array_equal(both.part(cut.start, cut.stop).frames, one.frames)
    assert [take.cut for take in both.takes] == [slice(0, 20), slice(20, 32)]
    assert both.test.part(2, 5).cut == slice(22, 25)
    assert len(both.training.training) == training_frames(20)  # of one video alone, as ever


def test_joined_videos_are_decoded_only_when_asked():
    asked, videos = [], []
    for T in (6, 4):
        r = speaker(T)
        decoding = partial(lambda r: asked.append(len(r)) or r.frames, r)
        videos.append(Recording("x", decoding, r.audio, r.attributes))
    both = Recording.join(*videos)
    test, _ = both.test, both.takes
    assert not asked
    assert len(test.frames) == 4 and asked == [4]
    assert both.frames is both.frames and asked == [4, 6, 4]
    assert len(both.training.frames) == 6 and asked == [4, 6, 4]  # taken from the whole
    short = Recording("x", videos[1].frames[:3], videos[1].audio, videos[1].attributes)
    with pytest.raises(InputError, match="the video has 3 frames, its attributes 4"):
        _ = Recording.join(videos[0], short).frames


def test_codes_of_joined_videos_are_those_of_each():
    corpus, videos = Corpus.load(), (speaker(60), speaker(40, seed=1))
    both = Recording.join(*videos)
    for part, alone in zip(both.takes, map(corpus.codes, videos), strict=True):
        for found, whole, one in zip(
            corpus.codes(part), corpus.codes(both), alone, strict=True
        ):  # fmt: skip
            assert torch.equal(found, one) and torch.equal(whole[part.cut], one)
    assert corpus.codes(both.test.part(3, 9)).x.equal(corpus.codes(videos[1]).x[3:9])


def test_frames_are_decoded_once_and_only_when_asked():
    r, asked = speaker(6), []
    frames = r.frames
    lazy = Recording("x", lambda: asked.append(1) or frames, r.audio, r.attributes)
    part = lazy.part(2, 4)
    assert not asked
    np.testing.assert_array_equal(part.frames, frames[2:4])
    assert lazy.frames is lazy.frames and asked == [1]


def test_attributes_come_back(tmp_path):
    a = speaker(5).attributes
    a.save(tmp_path / "a.npz")
    for name, value in vars(Attributes.load(tmp_path / "a.npz")).items():
        np.testing.assert_array_equal(value, getattr(a, name))
    with pytest.raises(InputError, match="make it with `dfa track"):
        Attributes.load(tmp_path / "none.npz")


@pytest.mark.parametrize("damage", ["short", "flipped", "lengths"])
def test_damaged_attributes_are_refused(tmp_path, damage):
    a, path = speaker(50).attributes, tmp_path / "a.npz"
    if damage == "lengths":
        a.ear = a.ear[:-1]
    a.save(path)
    whole = bytearray(path.read_bytes())
    if damage == "short":
        del whole[len(whole) // 2 :]
    elif damage == "flipped":
        whole[len(whole) // 3] ^= 255
    path.write_bytes(whole)
    with pytest.raises(InputError, match="is not an output of `dfa track`: make it again"):
        Attributes.load(path)


def test_frames_and_attributes_are_of_one_video():
    r = speaker(6)
    other = Recording("x", r.frames[:5], r.audio, r.attributes)
    with pytest.raises(InputError, match="the video has 5 frames, its attributes 6"):
        _ = other.frames


@pytest.fixture
def in_file(tmp_path, monkeypatch):
    """A recording of 30 frames whose frames are kept in a file, and the same in memory."""
    kept, video = speaker(), tmp_path / "a.mp4"
    write_video(video, kept.frames, kept.audio, lossless=True)
    loaded = [Recording.load("x", video, kept.attributes, 32, kept.audio) for _ in range(2)]
    assert isinstance(loaded[1].frames, np.ndarray)
    monkeypatch.setattr(recording, "IN_MEMORY", 10 * 32 * 32 * 3)
    assert isinstance(loaded[0].frames, Frames)
    return loaded


def test_frames_in_a_file_are_those_in_memory(in_file):
    found, kept = (r.frames for r in in_file)
    assert (len(found), found.shape, found.dtype) == (len(kept), kept.shape, kept.dtype)
    np.testing.assert_array_equal(found, kept)
    for index in (3, -1, [2, 7, 2], np.array([5, -1]), np.arange(30) % 7 == 0, np.array([], int)):
        np.testing.assert_array_equal(found[index], kept[index])
    for cut in (slice(4, 20), slice(None, None, 5), slice(-2, 0, -1), slice(8, 8)):
        assert found[cut].shape == kept[cut].shape
        np.testing.assert_array_equal(found[cut], kept[cut])
        assert isinstance(found[cut], np.ndarray if len(kept[cut]) <= 10 else Frames)
    for index in ((slice(2, 25), slice(3, 9), 4), (7, 2), ([1, 2], slice(None, 5))):
        np.testing.assert_array_equal(found[index], kept[index])
    np.testing.assert_array_equal(to_and_fro(found, 70), to_and_fro(kept, 70))
    with pytest.raises(IndexError):
        found[30]


def test_joined_videos_are_kept_in_one_file(in_file):
    both = Recording.join(in_file[0], in_file[1])
    assert isinstance(both.frames, Frames) and both.frames.shape == (60, 32, 32, 3)
    for part, one in zip(both.takes, in_file, strict=True):
        np.testing.assert_array_equal(part.frames, one.frames)


def test_a_part_of_one_video_does_not_decode_the_other():
    def no_frames():
        raise AssertionError("decoded")

    first, second = speaker(20), speaker(12)
    first._frames = no_frames
    both = Recording.join(first, second)
    np.testing.assert_array_equal(both.test.frames, second.frames)
    np.testing.assert_array_equal(both.part(23, 30).frames, second.frames[3:10])
    with pytest.raises(AssertionError, match="decoded"):
        both.part(19, 22).frames  # noqa: B018


def test_a_part_across_the_border_of_two_videos_keeps_it():
    both = Recording.join(speaker(20), speaker(12))
    part = both.part(5, 30)
    assert (len(part.training), len(part.test)) == (15, 10)
    assert part.test.cut == slice(20, 30)
    np.testing.assert_array_equal(part.test.frames, both.frames[20:30])


def test_a_small_and_a_large_video_are_joined(in_file):
    """One of them in memory, the other in a file, both in one file."""
    both = Recording.join(in_file[1].part(0, 8), in_file[0])
    assert isinstance(both.frames, Frames)
    np.testing.assert_array_equal(both.training.frames, in_file[1].frames[:8])
    np.testing.assert_array_equal(both.test.frames, in_file[1].frames)


def test_parts_of_frames_in_a_file(in_file):
    one, other = in_file
    assert isinstance(one.training.frames, Frames)
    assert isinstance(one.test.frames, np.ndarray)  # so few are read
    assert (one.digest, one.training.digest, one.part(3, 25).digest) == (
        other.digest, other.training.digest, other.part(3, 25).digest,
    )  # fmt: skip


def test_a_field_learns_the_same_from_frames_in_a_file(in_file, tmp_path):
    weights = []
    for name, r in zip("ab", in_file, strict=True):
        examples = r.frames, r.attributes.points, conditions(30)
        path = tmp_path / f"{name}.safetensors"
        field, _ = train_field(*examples, FieldRecipe(3), path, 0, "cpu")
        weights.append(field.state_dict())
    assert metadata(tmp_path / "a.safetensors")["key"] == metadata(path)["key"]
    assert all((weights[0][k] == weights[1][k]).all() for k in weights[0])


def test_frames_that_fit_nowhere_are_refused_before_decoding(monkeypatch, tmp_path):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    check_room(100, 512)
    check_room(340, 512)  # in memory
    with pytest.raises(InputError, match=r"786432.0 GB, but .* set TMPDIR to a folder"):
        check_room(10**9, 512)
