"""A recording and its parts."""

import numpy as np
import pytest
from conftest import speaker

from dfa.media import InputError
from dfa.recording import Attributes, Recording, training_frames


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
    # at least so many frames to test with, though they were learnt from
    assert [len(whole.test_of(n)) for n in (2, 4, 10, 99)] == [4, 4, 10, 44]


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
