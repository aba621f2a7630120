"""Read and write video (RGB, 25 fps) and audio (mono, 16 kHz).

A file is written completely or not at all.
"""

from __future__ import annotations

import hashlib
import os
import wave
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from itertools import chain, islice
from math import gcd
from pathlib import Path

import av
import cv2
import numpy as np
from scipy.signal import resample_poly

FPS = 25
SAMPLE_RATE = 16_000
SAMPLES_PER_FRAME = SAMPLE_RATE // FPS  # 640; sample 640 t is at the start of frame t
SOUNDS = (".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".aac", ".aiff")
VIDEOS = (".mp4", ".mov", ".mkv", ".avi", ".webm", ".m4v", ".mpeg", ".mpg", ".wmv")
SILENCE = 1e-3  # peak amplitude (-60 dBFS); audio below it has no voice


class InputError(Exception):
    """An error that the user can correct; the message is one line that says how."""


def packaged(file: Path) -> Path:
    """The path of a file of this package. Raises InputError if it is missing."""
    if not file.exists():
        raise InputError(f"{file} is missing: it comes with the package (git checkout {file})")
    return file


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`: renamed to `path` on success, removed on failure.

    Raises InputError if the folder or the file cannot be written.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path} is a folder: give the name of a file to write")
    if not path.parent.is_dir():
        what = "is not a folder" if path.parent.exists() else "does not exist"
        raise InputError(f"cannot write {path}: {path.parent} {what}; choose another output")
    # Keep the suffix: writers such as numpy choose the format by it.
    part = path.with_name(f".{path.stem[:100]}.{os.getpid()}.part{path.suffix}")
    try:
        part.touch()  # fail before the work, not after it
        mode = part.stat().st_mode  # as the umask says: safetensors writes for the owner alone
        yield part
        part.chmod(mode)
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
            pass  # the folder is missing or a file


def write_text(path: str | Path, text: str) -> None:
    """Write a text file, whole or not at all. Raises InputError if it cannot be written."""
    with atomic(path) as part:
        part.write_text(text, "utf-8")


def check_output(path: str | Path, *inputs: str | Path | None) -> None:
    """Raise InputError if `path` cannot be written, or is one of `inputs`. For use before work."""
    try:
        if any(i and Path(i).exists() and Path(path).exists() and os.path.samefile(i, path)
               for i in inputs):  # fmt: skip
            raise InputError(f"{path} is an input: choose another output")
        with atomic(path):
            raise InterruptedError  # leave without the rename
    except (OSError, ValueError) as error:  # for example, the name is too long
        raise InputError(f"cannot write {path!r}: {error}; choose another output") from error
    except InputError as error:
        if not isinstance(error.__cause__, InterruptedError):
            raise


def write_video(
    path: str | Path, frames: Iterable[np.ndarray], audio: np.ndarray | None = None, crf: int = 18,
    lossless: bool = False,
) -> None:  # fmt: skip
    """Write `frames` (each (H, W, 3) uint8 RGB, even sides) at 25 fps as an H.264 + AAC mp4.

    Args:
        frames: may be a generator, they are encoded one by one.
        audio: (n,) mono in [-1, 1], 16 kHz; cut, or padded with silence, to their length.
        crf: quality of H.264, 0 to 51, lower is better; ignored if lossless.
        lossless: keep each pixel exactly, for measurements. Not every player can play it.

    The bytes depend only on the arguments (one thread, no dates). Raises InputError if there are no
    frames, a side is odd, or `path` cannot be written.
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
            # The macroblock tree of x264 works on 8 blocks of 16 pixels. If they do not fill the
            # row, it reads beyond the row, and the bytes differ from run to run.
            tree = "mbtree=1" if width % 128 == 0 else "mbtree=0"
            quality = {"qp": "0"} if lossless else {"crf": str(crf)}
            video.options = quality | {"flags": "+bitexact", "x264-params": tree}
            if audio is not None:
                sound = container.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
                sound.bit_rate = 64_000
                sound.options = {"flags": "+bitexact"}
            for t, image in enumerate(chain([first], frames)):
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
                frame.pts, frame.time_base = t, Fraction(1, FPS)
                container.mux(video.encode(frame))
                if audio is not None:
                    piece = np.zeros((1, SAMPLES_PER_FRAME), np.float32)
                    start = t * SAMPLES_PER_FRAME
                    samples = audio[start : start + SAMPLES_PER_FRAME]
                    piece[0, : len(samples)] = np.clip(samples, -1, 1)
                    chunk = av.AudioFrame.from_ndarray(piece, format="fltp", layout="mono")
                    chunk.sample_rate, chunk.pts = SAMPLE_RATE, start
                    chunk.time_base = Fraction(1, SAMPLE_RATE)
                    container.mux(sound.encode(chunk))
            container.mux(video.encode(None))
            if audio is not None:
                container.mux(sound.encode(None))


def read_levels(path: str | Path) -> np.ndarray:
    """The frames (n, H, W) uint16 of a grey video. Raises InputError as `iter_frames`."""
    return np.stack([f.to_ndarray(format="gray16le") for _, _, f in _timed_frames(path)])


def write_audio(path: str | Path, audio: np.ndarray) -> None:
    """Write `audio` (n,) in [-1, 1] as wav: 16 kHz, 16 bits, mono.

    Raises InputError if `path` cannot be written.
    """
    pcm = np.round(np.clip(audio, -1, 1) * 32767).astype("<i2")
    with atomic(path) as part, wave.open(str(part), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(pcm.tobytes())


@contextmanager
def _opened(path: str | Path) -> Iterator[av.container.InputContainer]:
    """Open a media file. Raises InputError if it cannot be read or decoded."""
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path} does not exist: check the path")
    if path.is_dir():
        raise InputError(f"{path} is a folder: give one video or sound file")
    try:
        # An absolute path: FFmpeg takes a colon in a relative name for a protocol.
        with av.open(str(path.absolute())) as container:
            yield container
    except PermissionError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except (av.error.FFmpegError, ValueError, OSError) as error:
        raise InputError(
            f"{path} cannot be decoded (not a media file, or cut short): "
            "export it again, for example as mp4"
        ) from error


def duration(path: str | Path) -> float:
    """Seconds that a media file says it lasts; 0 if it does not say."""
    with _opened(path) as container:
        return (container.duration or 0) / 1_000_000


def _video_stream(container: av.container.InputContainer) -> av.VideoStream | None:
    """The first video stream that is not a cover picture."""
    cover = av.stream.Disposition.attached_pic
    films = [s for s in container.streams.video if not s.disposition & cover]
    return films[0] if films else None


def _timed_frames(path: str | Path) -> Iterator[tuple[float, float, av.VideoFrame]]:
    """Yield decoded frames as (presentation time, duration, frame), times in seconds."""
    with _opened(path) as container:
        stream = _video_stream(container)
        if stream is None:
            raise InputError(f"{path} has no video stream: give a video that shows a face")
        stream.thread_type = "AUTO"
        default = float(1 / (stream.average_rate or stream.guessed_rate or FPS))
        expected = float((stream.duration or 0) * stream.time_base)
        time, first = -default, None
        for packet in container.demux(stream):
            if packet.is_corrupt:
                raise av.error.InvalidDataError(1, "corrupt packet", str(path))
            for frame in packet.decode():
                time = time + default if frame.time is None else frame.time
                first = time if first is None else first
                duration = float((frame.duration or 0) * (frame.time_base or 0)) or default
                yield time, duration, frame
        if first is not None and time + default - first < 0.9 * expected - 0.2:
            raise InputError(
                f"{path} is cut short: it has {time + default - first:.1f} s of {expected:.1f} s; "
                "copy or export it again"
            )


def iter_frames(path: str | Path) -> Iterator[np.ndarray]:
    """Yield the frames of a video, (H, W, 3) uint8 RGB, upright, at 25 fps.

    Other or varying frame rates are resampled in time: frame t is the source frame nearest to
    t / 25 s after the first one. Raises InputError if there is no video, or if it cannot be decoded
    to its end.
    """
    shown, start, before, end, t = None, 0.0, 0.0, 0.0, 0
    for time, duration, frame in _timed_frames(path):
        if shown is None:
            start = time
        elif time <= before:  # a wrong time stamp: times must increase
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
    """RGB (H, W, 3) uint8, rotated by the display matrix of the file (from phones, for example)."""
    image = frame.to_ndarray(format="rgb24")
    return np.ascontiguousarray(np.rot90(image, round(frame.rotation / 90)))


def read_audio(path: str | Path) -> np.ndarray:
    """Audio (n,) float32 in [-1, 1], mono, 16 kHz. Sample 0 is at the first video frame.

    Channels are averaged. Raises InputError if there is no sound track, or it cannot be decoded.
    """
    with _opened(path) as container:
        if not container.streams.audio:
            raise InputError(f"{path} has no sound track: give a recording with a voice")
        stream = container.streams.audio[0]
        film = _video_stream(container)
        zero = float(film.start_time * film.time_base) if film and film.start_time else 0.0
        if film is None:
            zero = None  # no video: start at the first sample
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
                    # Exact at the start; later, fill only gaps above 0.05 s.
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
    """Audio (n,) as of `read_audio`. Raises InputError also if all of it is silent."""
    audio = read_audio(path)
    if np.abs(audio).max() < SILENCE:
        raise InputError(f"{path} is silent: give a recording in which someone speaks")
    return audio


def video_of(folder: Path, stem: str) -> Path | None:
    """The video in `folder` named `stem` plus one of `VIDEOS`; None if there is none."""
    return next((p for s in VIDEOS if (p := folder / f"{stem}{s}").is_file()), None)


def frame_count(audio: np.ndarray) -> int:
    """Number of video frames, at least one, of audio (n,) at 16 kHz."""
    return max(1, round(len(audio) / SAMPLE_RATE * FPS))


def square(image: np.ndarray, crop: np.ndarray, size: int) -> np.ndarray:
    """Cut the square `crop` = (x0, y0, side), pixels, from `image` -> (size, size, 3)."""
    x0, y0, side = (int(c) for c in crop)
    cut = image[y0 : y0 + side, x0 : x0 + side]
    if side == size:
        return cut
    method = cv2.INTER_AREA if side > size else cv2.INTER_CUBIC
    return cv2.resize(cut, (size, size), interpolation=method)


def resized(frames: np.ndarray, size: int) -> np.ndarray:
    """Frames (T, S, S, 3) uint8 at another size: averaged, or enlarged (bicubic)."""
    return np.stack([square(frame, (0, 0, len(frame)), size) for frame in frames])


def iter_squares(
    path: str | Path, crop: np.ndarray | None, size: int, n: int | None = None
) -> Iterator[np.ndarray]:
    """Yield square frames of a video, all or the first `n`: (size, size, 3) uint8 RGB.

    crop: (x0, y0, side) in pixels, as in `Attributes`; None is the centred square. Raises
    InputError as `iter_frames`, but frames after the first `n` are not decoded.
    """
    for image in islice(iter_frames(path), n):
        if crop is None:
            height, width = image.shape[:2]
            side = min(height, width)
            crop = np.array([(width - side) // 2, (height - side) // 2, side])
        yield square(image, crop, size)


def frames_of(
    path: str | Path, crop: np.ndarray | None, size: int, n: int | None = None
) -> np.ndarray:
    """The frames of `iter_squares`: (T, size, size, 3) uint8 RGB."""
    return np.stack([*iter_squares(path, crop, size, n)])


def to_and_fro(x: np.ndarray, n: int) -> np.ndarray:
    """The first n items of a sequence (T, ...); if shorter, it goes back and forth: (n, ...)."""
    order = [*range(len(x)), *range(len(x) - 2, 0, -1)]
    return x[np.resize(order, n)]


def sha256(path: str | Path) -> str:
    """SHA-256 (hex) of the bytes of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
