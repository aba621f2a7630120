"""More voices from few: augmentation of the training audio.

An encoder that is trained on few voices works on others if it heard each in other rooms, with other
vocal tracts, at other rates.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.fft import irfft, next_fast_len, rfft, rfftfreq
from scipy.signal import resample_poly
from torch import Tensor

from ..media import SAMPLE_RATE, SAMPLES_PER_FRAME
from ..method.audio import mfcc


def change_rate(audio: np.ndarray, track: np.ndarray, rate: float) -> tuple[np.ndarray, np.ndarray]:
    """Play audio (n,) and its per-frame values `track` (T, D) `rate` times as fast.

    Pitch, formants and tempo change together, as on a tape. Returns (640 T',) and (T', D) float32.
    """
    percent = round(100 * rate)
    audio = resample_poly(audio, 100, percent).astype(np.float32)
    T = min(len(audio) // SAMPLES_PER_FRAME, len(track) * 100 // percent)
    middle = (np.arange(T) + 0.5) * percent / 100 - 0.5  # old time of new frame t
    columns = [np.interp(middle, np.arange(len(track)), x) for x in np.asarray(track).T]
    return audio[: T * SAMPLES_PER_FRAME], np.stack(columns, 1).astype(np.float32)


def disturb(audio: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Audio (n,) -> (n,) float32 with a random room, equaliser and noise.

    Room: in 60 % of the cases, with a reverberation of 0.08 to 0.4 s. Equaliser: standard deviation
    5 dB in each band. Noise: white to brown, 5 to 40 dB below the audio.
    """
    n = len(audio)
    size = next_fast_len(n + SAMPLE_RATE // 2, real=True)
    spectrum = rfft(audio, size)
    if rng.random() < 0.6:
        tail = int(rng.uniform(0.08, 0.4) * SAMPLE_RATE)
        room = rng.standard_normal(tail) * np.exp(-6.9 * np.arange(tail) / tail)  # -60 dB
        room *= rng.uniform(0.1, 0.8) / np.linalg.norm(room)
        room[0] = 1.0
        spectrum *= rfft(room, size)
    bands = np.log([40, 100, 200, 400, 800, 1600, 3200, 6400, 9000])  # Hz
    frequency = np.log(np.maximum(rfftfreq(size, 1 / SAMPLE_RATE), 40))
    spectrum *= 10 ** (np.interp(frequency, bands, rng.normal(0, 5, len(bands))) / 20)
    audio = irfft(spectrum, size)[:n]
    colour = np.maximum(rfftfreq(n, 1 / SAMPLE_RATE), 50) ** -rng.uniform(0, 1)
    noise = irfft(rfft(rng.standard_normal(n)) * colour, n)
    level = 10 ** (-rng.uniform(5, 40) / 20) * np.sqrt(np.mean(audio**2) / np.mean(noise**2))
    return (audio + level * noise).astype(np.float32)


def variants(
    audio: np.ndarray, track: np.ndarray, n: int, rng: np.random.Generator
) -> list[tuple[np.ndarray, np.ndarray]]:
    """`n` random versions of one audio (640 T,) and its per-frame values `track` (T, D).

    Each has another room, equaliser, noise and vocal tract; every second one has another rate (0.84
    to 1.2). Returns a list of pairs: MFCC (4T', 20) and track (T', D).
    """
    out = []
    for k in range(n):
        rate = rng.uniform(0.84, 1.2) if k % 2 else 1.0
        sound, frames = change_rate(audio, track, rate)
        warp = rng.uniform(0.88, 1.05)
        out.append((mfcc(disturb(sound, rng), len(frames), warp), frames))
    return out


def augmented(
    f_m: list[Tensor], audio: list[np.ndarray], seed: int, n: int = 6
) -> tuple[list[Tensor], list[Tensor]]:
    """Mouth codes (T, 32) and audio (640 T,) of many people, plus `n` random versions of each.

    Returns lists of codes (T', 32) and MFCC (4T', 20): for each person the original, then the
    versions (`variants`).
    """
    codes, sounds = [], []
    for i, (m, a) in enumerate(zip(f_m, audio, strict=True)):
        rng = np.random.default_rng([seed, i])
        pairs = [(mfcc(a, len(m)), m.numpy()), *variants(a, m.numpy(), n, rng)]
        sounds += [torch.from_numpy(a) for a, _ in pairs]
        codes += [torch.from_numpy(m) for _, m in pairs]
    return codes, sounds
