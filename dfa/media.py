"""Video and sound in and out: 25 frames/s RGB, 16 kHz mono, files written whole or not at all."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass

import wave
from fractions import Fraction
from itertools import islice
from math import gcd

import av
import cv2
import numpy as np
from scipy.signal import resample_poly

FPS = 25
SAMPLE_RATE = 16_000
SAMPLES_PER_FRAME = SAMPLE_RATE // FPS  # audio sample 640 t belongs to the start of frame t
VIDEOS = (".mp4", ".mov", ".mkv", ".avi", ".webm", ".m4v", ".mpeg", ".mpg", ".wmv")
SILENCE = 1e-3  # a peak below this (-60 dBFS) is no voice


class InputError(Exception):
    """Something the user can put right; the message is one line that says what to do."""


# ------------------------------------------------------------------------------------ writing


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; renamed to it on success, removed on any failure.

    Raises InputError where the folder or the file cannot be written.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path} is a folder: give the name of a file to write")
    if not path.parent.is_dir():
        what = "is not a folder" if path.parent.exists() else "does not exist"
        raise InputError(f"cannot write {path}: {path.parent} {what}; choose another output")
    # The suffix stays last, because writers such as numpy's choose the format by it.
    part = path.with_name(f".{path.stem[:100]}.{os.getpid()}.part{path.suffix}")
    try:
        part.touch()  # fail before the work, not after it
        yield part
        os.replace(part, path)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise InputError(
            f"cannot write {path}: {reason}; choose another output or make room"
        ) from error
    finally:
        try:
            part.unlink(missing_ok=True)
        except OSError:
            pass  # the folder itself has gone or is a file


def check_output(path: str | Path) -> None:
    """Raise InputError if `path` cannot be written: for asking before long work."""
    try:
        with atomic(path):
            raise InterruptedError  # leave without the rename
    except InputError as error:
        if not isinstance(error.__cause__, InterruptedError):
            raise


def write_video(
    path: str | Path,
    frames: Iterable[np.ndarray],
    audio: np.ndarray | None = None,
    crf: int = 18,
    lossless: bool = False,
) -> None:
    """Write `frames` (each (H, W, 3) uint8 RGB, even sides) at 25 fps as an H.264 + AAC mp4.

    `audio` is (n,) mono in [-1, 1] at 16 kHz, cut or padded with silence to the frames' length.
    The frames may be a generator: they are encoded as they come. The bytes written depend on
    the arguments alone (one thread, no dates). `lossless` keeps every pixel, for measuring: `crf`
    then counts for nothing, and not every player shows it.
    """
    frames = iter(frames)
    first = next(frames, None)
    if first is None:
        raise InputError(f"cannot write {path}: there are no frames")
    height, width = first.shape[:2]
    if height % 2 or width % 2:
        raise InputError(f"cannot write {path}: H.264 needs even sides, not {width}x{height}")
    options = {"movflags": "+faststart", "fflags": "+bitexact"}
    with atomic(path) as part:
        with av.open(str(part.absolute()), "w", format="mp4", options=options) as container:
            codec, colours = ("libx264rgb", "rgb24") if lossless else ("libx264", "yuv420p")
            video = container.add_stream(codec, rate=FPS)
            video.width, video.height, video.pix_fmt = width, height, colours
            video.thread_count = 1
            # x264's macroblock tree works on 8 blocks of 16 pixels at a time; where they do not
            # fill the row it reads beyond, and the bytes differ from run to run.
            tree = "mbtree=1" if width % 128 == 0 else "mbtree=0"
            quality = {"qp": "0"} if lossless else {"crf": str(crf)}
            video.options = quality | {"flags": "+bitexact", "x264-params": tree}
            if audio is not None:
                sound = container.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
                sound.bit_rate = 64_000
                sound.options = {"flags": "+bitexact"}
            t, image = 0, first
            while image is not None:
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
                frame.pts, frame.time_base = t, Fraction(1, FPS)
                container.mux(video.encode(frame))
                if audio is not None:
                    piece = np.zeros((1, SAMPLES_PER_FRAME), np.float32)
                    start = t * SAMPLES_PER_FRAME
                    got = audio[start : start + SAMPLES_PER_FRAME]
                    piece[0, : len(got)] = np.clip(got, -1, 1)
                    chunk = av.AudioFrame.from_ndarray(piece, format="fltp", layout="mono")
                    chunk.sample_rate, chunk.pts = SAMPLE_RATE, start
                    chunk.time_base = Fraction(1, SAMPLE_RATE)
                    container.mux(sound.encode(chunk))
                t, image = t + 1, next(frames, None)
            container.mux(video.encode(None))
            if audio is not None:
                container.mux(sound.encode(None))


def write_audio(path: str | Path, audio: np.ndarray) -> None:
    """Write `audio` (n,) in [-1, 1] at 16 kHz, 16 bits, mono: as FLAC if `path` says so, or wav."""
    pcm = np.round(np.clip(audio, -1, 1) * 32767).astype("<i2")
    if Path(path).suffix == ".flac":
        with atomic(path) as part, av.open(str(part), "w", format="flac") as container:
            stream = container.add_stream("flac", rate=SAMPLE_RATE, layout="mono")
            frame = av.AudioFrame.from_ndarray(pcm[None], format="s16", layout="mono")
            frame.sample_rate = SAMPLE_RATE
            container.mux([*stream.encode(frame), *stream.encode(None)])
        return
    with atomic(path) as part, wave.open(str(part), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(pcm.tobytes())


# ------------------------------------------------------------------------------------ reading


@contextmanager
def _opened(path: str | Path) -> Iterator[av.container.InputContainer]:
    """Open a media file; every way in which it can be unreadable becomes an InputError."""
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path} does not exist: check the path")
    if path.is_dir():
        raise InputError(f"{path} is a folder: give one video or sound file")
    try:
        # An absolute path, so that a colon in a name is not taken for a protocol.
        with av.open(str(path.absolute())) as container:
            yield container
    except (av.error.FFmpegError, ValueError, OSError) as error:
        raise InputError(
            f"{path} cannot be decoded (not a media file, or cut short): "
            "export it again, as mp4 for instance"
        ) from error


def _video_stream(container: av.container.InputContainer) -> av.VideoStream | None:
    """The first stream that is a film, not a cover picture."""
    cover = av.stream.Disposition.attached_pic
    films = [s for s in container.streams.video if not s.disposition & cover]
    return films[0] if films else None


def _timed_frames(path: str | Path) -> Iterator[tuple[float, float, av.VideoFrame]]:
    """Decoded frames as (presentation time, duration, frame), times in seconds."""
    with _opened(path) as container:
        stream = _video_stream(container)
        if stream is None:
            raise InputError(f"{path} has no video stream: give a video that shows a face")
        stream.thread_type = "AUTO"
        usual = float(1 / (stream.average_rate or stream.guessed_rate or FPS))
        promised = float((stream.duration or 0) * stream.time_base)
        time, first = -usual, None
        for packet in container.demux(stream):
            if packet.is_corrupt:
                raise av.error.InvalidDataError(1, "corrupt packet", str(path))
            for frame in packet.decode():
                time = time + usual if frame.time is None else frame.time
                first = time if first is None else first
                duration = float((frame.duration or 0) * (frame.time_base or 0)) or usual
                yield time, duration, frame
        if first is not None and time + usual - first < 0.9 * promised - 0.2:
            raise InputError(
                f"{path} is cut short: {time + usual - first:.1f} s of {promised:.1f} s are there; "
                "copy or export it again"
            )


def iter_frames(path: str | Path) -> Iterator[np.ndarray]:
    """Yield the video's frames, (H, W, 3) uint8 RGB, upright, at 25 fps.

    Another or a varying frame rate is resampled in time: frame t is the one whose presentation
    time is nearest to t / 25 s after the first. Raises InputError where there is no video, or
    one that cannot be decoded to its end.
    """
    shown, start, before, end, t = None, 0.0, 0.0, 0.0, 0
    for time, duration, frame in _timed_frames(path):
        if shown is None:
            start = time
        elif time <= before:  # a broken time stamp: later frames cannot be shown earlier
            continue
        else:
            image = None
            while start + t / FPS < (before + time) / 2 - 1e-6:
                image = _upright(shown) if image is None else image
                yield image
                t += 1
        shown, before, end = frame, time, time + duration
    if shown is None:
        raise InputError(f"{path} has a video stream without frames: export it again")
    image = _upright(shown)
    while t < max(1, round((end - start) * FPS)):
        yield image
        t += 1


def _upright(frame: av.VideoFrame) -> np.ndarray:
    """RGB (H, W, 3) uint8, turned as the file's display matrix asks (phones film sideways)."""
    image = frame.to_ndarray(format="rgb24")
    return np.ascontiguousarray(np.rot90(image, round(frame.rotation / 90)))


def read_audio(path: str | Path) -> np.ndarray:
    """The sound as (n,) float32 in [-1, 1], mono, 16 kHz; sample 0 is at the video's first frame.

    Channels are averaged. Raises InputError where there is no sound track.
    """
    with _opened(path) as container:
        if not container.streams.audio:
            raise InputError(f"{path} has no sound track: give a recording with a voice")
        stream = container.streams.audio[0]
        film = _video_stream(container)
        zero = float(film.start_time * film.time_base) if film and film.start_time else 0.0
        if film is None:
            zero = None  # a sound file starts where it starts
        to_float = av.AudioResampler(format="fltp")
        pieces, rate, n = [], 0, 0
        for decoded in container.decode(stream):
            for frame in to_float.resample(decoded):
                piece = frame.to_ndarray().mean(0)  # (channels, n) -> (n,)
                rate = frame.sample_rate
                if frame.time is not None:
                    zero = frame.time if zero is None else zero
                    late = round((frame.time - zero) * rate) - n
                    if n == 0 and late < 0:
                        piece = piece[-late:]
                        if not len(piece):
                            continue
                    # The start is placed to the sample; later, only real gaps are filled.
                    elif late > (0 if n == 0 else 0.05 * rate):
                        pieces.append(np.zeros(late, np.float32))
                        n += late
                pieces.append(piece)
                n += len(piece)
    if not n:
        raise InputError(f"{path} has a sound track without samples: export it again")
    common = gcd(rate, SAMPLE_RATE)
    sound = np.concatenate(pieces).astype(np.float32)
    if rate != SAMPLE_RATE:
        sound = resample_poly(sound, SAMPLE_RATE // common, rate // common)
    return np.clip(sound, -1, 1).astype(np.float32)


def read_voice(path: str | Path) -> np.ndarray:
    """`read_audio`, and an InputError where the sound is silent throughout."""
    audio = read_audio(path)
    if np.abs(audio).max() < SILENCE:
        raise InputError(f"{path} is silent: give a recording in which someone speaks")
    return audio


def video_of(folder: Path, stem: str) -> Path | None:
    """The video of that name in a folder, whatever its kind."""
    return next((p for s in VIDEOS if (p := folder / f"{stem}{s}").is_file()), None)


def frame_count(audio: np.ndarray) -> int:
    """Video frames that a sound (n,) fills, at least one."""
    return max(1, round(len(audio) / SAMPLE_RATE * FPS))


def square(image: np.ndarray, crop: np.ndarray, size: int) -> np.ndarray:
    """The square `crop` = (x0, y0, side) in pixels of `image`, resized to (size, size, 3)."""
    x0, y0, side = (int(c) for c in crop)
    cut = image[y0 : y0 + side, x0 : x0 + side]
    if side == size:
        return cut
    how = cv2.INTER_AREA if side > size else cv2.INTER_CUBIC
    return cv2.resize(cut, (size, size), interpolation=how)


def frames_of(
    path: str | Path, crop: np.ndarray | None, size: int, n: int | None = None
) -> np.ndarray:
    """All frames of a video's square crop, or the first `n`, resized: (T, size, size, 3) uint8 RGB.

    `crop` is (x0, y0, side) in pixels, as in `tracking.Attributes`; None is the centred square.
    What comes after the first `n` frames is not decoded, so not found damaged either.
    """
    frames = []
    for image in islice(iter_frames(path), n):
        if crop is None:
            height, width = image.shape[:2]
            side = min(height, width)
            crop = np.array([(width - side) // 2, (height - side) // 2, side])
        frames.append(square(image, crop, size))
    return np.stack(frames)


def to_and_fro(x: np.ndarray, n: int) -> np.ndarray:
    """The first n of a sequence (T, ...), which goes back and forth if it is shorter."""
    turn = np.concatenate([x, x[-2:0:-1]]) if len(x) > 2 else x
    return turn[np.arange(n) % len(turn)]


def sha256(path: str | Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
