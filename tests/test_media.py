"""Video and sound in and out: what was written comes back, and what cannot be is one line."""

import subprocess
import sys
import wave
from fractions import Fraction

import av
import numpy as np
import pytest

from dfa import media
from dfa.media import InputError


def moving_frames(n: int, height: int = 64, width: int = 96) -> list[np.ndarray]:
    y, x = np.mgrid[:height, :width]
    return [
        np.stack([128 + 90 * np.sin((x + 2 * t) / 11), 255 * y / height, 255 * x / width], -1)
        .round()
        .astype(np.uint8)
        for t in range(n)
    ]


def chirp(n: int) -> np.ndarray:
    t = np.arange(n) / media.SAMPLE_RATE
    return (0.5 * np.sin(2 * np.pi * (200 + 300 * t) * t)).astype(np.float32)


def grey_video(path, times: list[Fraction], levels: list[int], audio: np.ndarray | None = None):
    """A video whose frames are flat greys shown at given times (s), made by PyAV alone."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width = stream.height = 64
        stream.pix_fmt, stream.time_base = "yuv420p", Fraction(1, 3000)
        stream.options = {"crf": "1"}
        for time, level in zip(times, levels, strict=True):
            image = np.full((64, 64, 3), level, np.uint8)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = round(time * 3000), Fraction(1, 3000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def levels_of(path) -> np.ndarray:
    return np.array([frame.mean() for frame in media.iter_frames(path)])


def test_video_comes_back(tmp_path):
    frames, audio = moving_frames(40), chirp(40 * 640)
    media.write_video(tmp_path / "a.mp4", iter(frames), audio)
    back = np.stack(list(media.iter_frames(tmp_path / "a.mp4")))
    assert back.shape == (40, 64, 96, 3) and back.dtype == np.uint8
    assert np.abs(back.astype(float) - frames).mean() < 4
    heard = media.read_audio(tmp_path / "a.mp4")
    assert heard.dtype == np.float32 and abs(len(heard) - len(audio)) <= 1024
    # In step to the sample: a shift by one would already halve the loss of correlation's lead.
    at = [np.corrcoef(np.roll(heard[: len(audio)], s), audio)[0, 1] for s in (-1, 0, 1)]
    assert at[1] > 0.98 and at[1] == max(at)


@pytest.mark.parametrize("n", [100, 20_000, 40_000])
def test_sound_lasts_as_long_as_the_frames(tmp_path, n):
    media.write_video(tmp_path / "a.mp4", moving_frames(30), chirp(n))
    heard = media.read_audio(tmp_path / "a.mp4")
    assert 30 * 640 <= len(heard) < 30 * 640 + 1024  # AAC's frames have 1024 samples
    assert np.abs(heard[n + 2000 :]).max(initial=0) < 1e-2


@pytest.mark.parametrize("side", [64, 112, 128, 256])
def test_same_arguments_same_bytes(tmp_path, side):
    written = set()
    for _ in range(6):
        media.write_video(tmp_path / "a.mp4", moving_frames(14, side, side), chirp(14 * 640))
        written.add((tmp_path / "a.mp4").read_bytes())
    assert len(written) == 1


def test_30_frames_a_second_become_25(tmp_path):
    times = [Fraction(i, 30) for i in range(60)]
    grey_video(tmp_path / "a.mp4", times, [4 * i for i in range(60)])
    shown = levels_of(tmp_path / "a.mp4")
    assert len(shown) == 50
    nearest = [min(range(60), key=lambda i: abs(i / 30 - t / 25)) for t in range(50)]
    ties = [abs(t * 1.2 % 1 - 0.5) < 1e-9 for t in range(50)]  # either neighbour is nearest
    off = np.abs(shown / 4 - nearest)
    assert off[~np.array(ties)].max() < 0.6 and off.max() < 1.6


def test_uneven_frame_times(tmp_path):
    times = [Fraction(t, 100) for t in (0, 4, 20, 24, 28, 60)]  # a recorder that drops frames
    grey_video(tmp_path / "a.mp4", times, [0, 40, 80, 120, 160, 200])
    shown = levels_of(tmp_path / "a.mp4")
    seconds = [float(t) for t in times]
    expected = [40 * int(np.abs(np.subtract(seconds, k / 25)).argmin()) for k in range(16)]
    assert np.abs(shown[:16] - expected)[[0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 13, 15]].max() < 3


def test_other_rates_and_channels(tmp_path):
    rate, seconds = 44_100, 2
    t = np.arange(rate * seconds) / rate
    left, right = 0.6 * np.sin(2 * np.pi * 440 * t), np.zeros_like(t)
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((np.stack([left, right], 1) * 32767).astype("<i2").tobytes())
    heard = media.read_audio(tmp_path / "a.wav")
    assert abs(len(heard) - 16_000 * seconds) <= 1
    truth = 0.3 * np.sin(2 * np.pi * 440 * np.arange(len(heard)) / 16_000)  # mean of channels
    assert np.abs(heard - truth)[200:-200].max() < 2e-3


def test_wav_comes_back(tmp_path):
    media.write_audio(tmp_path / "a.wav", chirp(5000))
    assert np.abs(media.read_audio(tmp_path / "a.wav") - chirp(5000)).max() < 1e-4


def test_phones_film_sideways(tmp_path):
    frames = moving_frames(3)
    media.write_video(tmp_path / "a.mp4", frames)
    # The display matrix in `tkhd`: identity -> a quarter turn clockwise (ISO 14496-12, 8.3.2).
    data = bytearray((tmp_path / "a.mp4").read_bytes())
    at = data.index(b"tkhd") + 4 + 40
    for i, v in enumerate([0, 0x10000, 0, -0x10000, 0, 0, 64 << 16, 0, 1 << 30]):
        data[at + 4 * i : at + 4 * i + 4] = int(v).to_bytes(4, "big", signed=True)
    (tmp_path / "b.mp4").write_bytes(data)
    upright = next(iter(media.iter_frames(tmp_path / "b.mp4")))
    assert upright.shape == (96, 64, 3)
    assert np.abs(upright.astype(float) - np.rot90(frames[0], -1)).mean() < 5


def test_frames_of_averages_the_crop(tmp_path):
    frames = moving_frames(4)
    media.write_video(tmp_path / "a.mp4", frames)
    small = media.frames_of(tmp_path / "a.mp4", np.array([16, 0, 64]), 16)
    assert small.shape == (4, 16, 16, 3)
    block = np.stack(list(media.iter_frames(tmp_path / "a.mp4")))[:, :, 16:80]
    block = block.reshape(4, 16, 4, 16, 4, 3).mean((2, 4))
    assert np.abs(small - block).max() <= 1
    assert media.frames_of(tmp_path / "a.mp4", None, 32).shape == (4, 32, 32, 3)


# ------------------------------------------------------------------------------- bad inputs


def said(error: pytest.ExceptionInfo) -> str:
    message = str(error.value)
    assert "\n" not in message and len(message) < 300
    return message


def test_bad_videos(tmp_path):
    media.write_video(tmp_path / "good.mp4", moving_frames(60))
    good = (tmp_path / "good.mp4").read_bytes()
    (tmp_path / "text.mp4").write_text("this is no film")
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "cut.mp4").write_bytes(good[: len(good) // 2])
    (tmp_path / "head.mp4").write_bytes(good[:200])
    media.write_audio(tmp_path / "sound.wav", chirp(20_000))
    for name, says in [
        ("nowhere.mp4", "does not exist"),
        ("text.mp4", "cannot be decoded"),
        ("empty.mp4", "cannot be decoded"),
        ("cut.mp4", "cut short"),
        ("head.mp4", "no video stream"),
        ("sound.wav", "no video stream"),
        ("", "folder"),
    ]:
        with pytest.raises(InputError) as error:
            list(media.iter_frames(tmp_path / name))
        assert says in said(error), name


def test_bad_sound(tmp_path):
    media.write_video(tmp_path / "mute.mp4", moving_frames(10))
    media.write_video(tmp_path / "silent.mp4", moving_frames(10), np.zeros(6400, np.float32))
    (tmp_path / "text.wav").write_text("la la la")
    assert np.abs(media.read_audio(tmp_path / "silent.mp4")).max() < 1e-3
    for name, says in [
        ("mute.mp4", "no sound track"),
        ("silent.mp4", "silent"),
        ("text.wav", "cannot be decoded"),
        ("nowhere.wav", "does not exist"),
    ]:
        with pytest.raises(InputError) as error:
            media.read_voice(tmp_path / name)
        assert says in said(error), name


def test_outputs_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    for path in (tmp_path / "file" / "a.mp4", tmp_path / "no" / "a.mp4", tmp_path):
        for write in (
            media.check_output,
            lambda p: media.write_video(p, moving_frames(2)),
            lambda p: media.write_audio(p, chirp(100)),
        ):
            with pytest.raises(InputError) as error:
                write(path)
            said(error)
    with pytest.raises(InputError):
        media.write_video(tmp_path / "a.mp4", [])
    with pytest.raises(InputError):
        media.write_video(tmp_path / "a.mp4", moving_frames(2, 63))
    for name in ("a" * 300 + ".mp4", "a\0.mp4"):
        with pytest.raises(InputError, match="cannot write"):
            media.check_output(tmp_path / name)
    with pytest.raises(InputError, match="is an input"):
        media.check_output(tmp_path / "file", None, tmp_path / "none", tmp_path / "." / "file")
    media.check_output(tmp_path / "a.mp4", tmp_path / "file")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_failure_leaves_the_old_file(tmp_path):
    def frames():
        yield from moving_frames(5)
        raise RuntimeError("the renderer died")

    (tmp_path / "a.mp4").write_bytes(b"old")
    with pytest.raises(RuntimeError):
        media.write_video(tmp_path / "a.mp4", frames())
    assert (tmp_path / "a.mp4").read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]


def test_no_room(tmp_path):
    """A disk that fills up, as a limit on the size of files: one line, and nothing left over."""
    code = (
        "import resource, sys, numpy as np\n"
        "from dfa import media\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))\n"
        "noise = np.random.default_rng(0).integers(0, 255, (60, 128, 128, 3), dtype=np.uint8)\n"
        "for write in (lambda: media.write_video(sys.argv[1] + '/a.mp4', noise),\n"
        "              lambda: media.write_audio(sys.argv[1] + '/a.wav', np.zeros(90_000))):\n"
        "    try:\n"
        "        write()\n"
        "    except media.InputError as error:\n"
        "        print('said', error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.decode().count("said cannot write") == 2
    assert list(tmp_path.iterdir()) == []
