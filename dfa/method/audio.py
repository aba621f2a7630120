"""Audio features (section 4.1): MFCC at 10 ms steps, strictly aligned with the 25 fps video.

And what is done to the training sounds, so that an encoder that heard few voices hears any.
"""

from __future__ import annotations

import librosa
import numpy as np
from scipy.fft import irfft, next_fast_len, rfft, rfftfreq
from scipy.signal import resample_poly

from ..media import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME

HOP = SAMPLE_RATE // 100  # the paper's 10 ms
PER_FRAME = SAMPLE_RATE // HOP // FPS  # 4 MFCC vectors to a video frame
N_MFCC = 20


def mfcc(audio: np.ndarray, n_frames: int | None = None, warp: float = 1.0) -> np.ndarray:
    """MFCC of a whole utterance, normalised over it.

    Args:
        audio: (n,) 16 kHz mono in [-1, 1].
        n_frames: video frames that belong to it; by default as many as the sound fills.
        warp: a formant at f is heard at f / warp, as another vocal tract's, and time stays (Jaitly
            & Hinton 2013); 1.05 at most.

    Returns (4 * n_frames, 20) float32: vector 4 t is centred on the middle of video frame t. Each
    coefficient has mean 0 and variance 1 over the utterance, so that level, microphone and voice
    (whose effect is mostly additive in the cepstrum) fall out.
    """
    samples = SAMPLES_PER_FRAME
    if n_frames is None:
        n_frames = max(1, len(audio) // samples)
    audio = librosa.util.fix_length(np.asarray(audio, np.float32), size=n_frames * samples)
    # librosa centres vector k on sample k * HOP; half a video frame later is the frame's middle
    audio = np.concatenate([audio[samples // 2 :], np.zeros(samples // 2, np.float32)])
    audio = np.append(audio[:1], audio[1:] - 0.97 * audio[:-1])
    mel = librosa.feature.melspectrogram(
        y=audio,
        sr=SAMPLE_RATE / warp,  # only tells the filters where a bin lies
        n_fft=512,
        win_length=400,
        hop_length=HOP,
        n_mels=40,
        fmin=50,
        fmax=7600,
    )[:, : PER_FRAME * n_frames]
    # a floor relative to the loudest moment: silence and faint noise look alike
    log_mel = np.log(mel + 1e-6 * max(float(mel.max()), 1e-4))
    c = librosa.feature.mfcc(S=log_mel, n_mfcc=N_MFCC).T  # (4T, 20)
    return ((c - c.mean(0)) / np.maximum(c.std(0), 1e-2)).astype(np.float32)


def faster(audio: np.ndarray, track: np.ndarray, rate: float) -> tuple[np.ndarray, np.ndarray]:
    """Sound (n,) and what goes with its frames (T, D), both `rate` times as fast: pitch, formants
    and tempo change together, as on a tape. Returns (640 T',), (T', D)."""
    percent = round(100 * rate)
    audio = resample_poly(audio, 100, percent).astype(np.float32)
    T = min(len(audio) // SAMPLES_PER_FRAME, len(track) * 100 // percent)
    middle = (np.arange(T) + 0.5) * percent / 100 - 0.5  # where frame t of the new was in the old
    columns = [np.interp(middle, np.arange(len(track)), x) for x in np.asarray(track).T]
    return audio[: T * SAMPLES_PER_FRAME], np.stack(columns, 1).astype(np.float32)


def disturb(audio: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The sound (n,) as heard in a random room (60 % of the time, reverberation of 0.08 to 0.4 s),
    through a random equaliser (5 dB a band) and noise (5 to 40 dB below it, white to brown)."""
    n = len(audio)
    size = next_fast_len(n + SAMPLE_RATE // 2, real=True)
    spectrum = rfft(audio, size)
    if rng.random() < 0.6:
        tail = int(rng.uniform(0.08, 0.4) * SAMPLE_RATE)
        room = rng.standard_normal(tail) * np.exp(-6.9 * np.arange(tail) / tail)  # -60 dB
        room *= rng.uniform(0.1, 0.8) / np.linalg.norm(room)
        room[0] = 1.0
        spectrum *= rfft(room, size)
    bands = np.log([40, 100, 200, 400, 800, 1600, 3200, 6400, 9000])
    pitch = np.log(np.maximum(rfftfreq(size, 1 / SAMPLE_RATE), 40))
    spectrum *= 10 ** (np.interp(pitch, bands, rng.normal(0, 5, len(bands))) / 20)
    audio = irfft(spectrum, size)[:n]
    colour = np.maximum(rfftfreq(n, 1 / SAMPLE_RATE), 50) ** -rng.uniform(0, 1)
    noise = irfft(rfft(rng.standard_normal(n)) * colour, n)
    level = 10 ** (-rng.uniform(5, 40) / 20) * np.sqrt(np.mean(audio**2) / np.mean(noise**2))
    return (audio + level * noise).astype(np.float32)


def variants(
    audio: np.ndarray, track: np.ndarray, n: int, rng: np.random.Generator
) -> list[tuple[np.ndarray, np.ndarray]]:
    """n disturbed versions of a sound (n,) and its track (T, D), half of them at another rate
    (0.84 to 1.2), all with formants of another vocal tract: MFCC (4T', 20) and track (T', D)."""
    out = []
    for k in range(n):
        rate = rng.uniform(0.84, 1.2) if k % 2 else 1.0
        sound, frames = faster(audio, track, rate)
        warp = rng.uniform(0.88, 1.05)
        out.append((mfcc(disturb(sound, rng), len(frames), warp), frames))
    return out
