"""Audio features (section 4.1): MFCC at 10 ms steps, strictly aligned with the 25 fps video."""

from __future__ import annotations

import librosa
import numpy as np
from scipy.signal import lfilter

from ..media import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME, InputError

HOP = SAMPLE_RATE // 100  # samples between MFCC vectors: 10 ms, as in the paper
PER_FRAME = SAMPLE_RATE // HOP // FPS  # MFCC vectors per video frame: 4
N_MFCC = 20  # coefficients per vector
FLOOR = 3e-5  # of the level, added to each mel band: faint noise beside speech is like silence
LOUD = 1e-2  # of the level: vectors with more power set the level
SPEECH = 10**-2.5  # of the level: a vector with more power is speech
SILENCE = 1e-5  # of the level: what is quieter is not speech beside a bang
BRIEF = 20  # vectors, 0.2 s: a sound as short as this is a bang
NOTHING = 1e-16  # power of digital silence
MEMORY = 500  # vectors, 5 s
PRIOR = 100  # vectors, 1 s
LIMIT = 5.0  # standard deviations
# Mean and standard deviation of each coefficient while people speak: of the sample captures' corpus
AVERAGE = np.array([
    [-24.2, 10.7], [2.0, 9.2], [2.1, 4.9], [3.4, 6.9], [-2.0, 5.1], [0.2, 3.7], [-0.3, 3.8],
    [-1.7, 3.3], [-0.6, 2.4], [-0.9, 2.2], [-0.1, 2.1], [-1.0, 1.7], [0.1, 1.7], [-0.3, 1.6],
    [0.1, 1.5], [-0.4, 1.4], [0.0, 1.4], [-0.2, 1.3], [-0.3, 1.2], [-0.2, 1.1],
])  # fmt: skip


def mfcc(audio: np.ndarray, n_frames: int | None = None, warp: float = 1.0) -> np.ndarray:
    """MFCC, normalised by the speech around them.

    Args:
        audio: (n,) 16 kHz mono in [-1, 1].
        n_frames: number of video frames T; by default as many as the audio fills.
        warp: moves a formant at f Hz to f / warp, like another vocal tract, without a change of
            tempo (Jaitly & Hinton 2013); at most 1.05.

    Returns (4T, 20) float32. Vector 4t is centred on the middle of video frame t. The power is
    divided by `speech_level`; each coefficient is centred and scaled by `speech_moments`. This
    removes most of the effect of level, microphone and voice, which is additive in the cepstrum.
    Silence before or after the speech changes nothing. Noise there does not move the normalisation
    if its power, after pre-emphasis, is 25 dB or more below the speech's; noise under the speech
    changes its vectors. Only the level is of the whole sound: speech far below it counts as
    silence, and louder noise counts as speech.
    Raises InputError if a sample is not a number, or if there is more than one channel.
    """
    if np.ndim(audio) != 1:
        raise InputError(f"a sound of the shape {np.shape(audio)}: give one channel")
    if not np.isfinite(audio).all():
        raise InputError("the sound has samples that are not numbers: write it again")
    samples = SAMPLES_PER_FRAME
    if n_frames is None:
        n_frames = max(1, len(audio) // samples)
    audio = librosa.util.fix_length(np.asarray(audio, np.float32), size=n_frames * samples)
    # librosa centres vector k on sample k * HOP: move it to the middle of the video frame
    audio = np.concatenate([audio[samples // 2 :], np.zeros(samples // 2, np.float32)])
    audio = np.append(audio[:1], audio[1:] - 0.97 * audio[:-1])  # pre-emphasis
    mel = librosa.feature.melspectrogram(  # sr only moves the mel filters; sizes in samples
        y=audio, sr=SAMPLE_RATE / warp, n_fft=512, win_length=400, hop_length=HOP,
        n_mels=40, fmin=50, fmax=7600,
    )[:, : PER_FRAME * n_frames]  # fmt: skip
    power = np.maximum(mel.mean(0), NOTHING)  # (4T,)
    level = speech_level(power)
    c = librosa.feature.mfcc(S=np.log(mel / level + FLOOR), n_mfcc=N_MFCC).T  # (4T, 20)
    mean, std = speech_moments(c, power > max(level * SPEECH, NOTHING))
    return np.clip((c - mean) / std, -LIMIT, LIMIT).astype(np.float32)


def around(x: np.ndarray) -> np.ndarray:
    """(n, ...) sums of x (n, ...) with weights that fall to 1/e in MEMORY vectors to both sides."""
    decay = np.exp(-1 / MEMORY)
    before, after = (lfilter([1], [1, -decay], side, axis=0) for side in (x, x[::-1]))
    return before + after[::-1] - x


def speech_level(power: np.ndarray) -> float:
    """The level of the speech in a sound, from the power of its vectors (n,).

    It is the mean of log power over the vectors that are at most 20 dB below it, weighted by the
    square root of power, so silence does not count, however long. If these vectors are a bang
    alone, it is the level of the rest.
    """
    level = np.average(power, weights=np.sqrt(power))
    for _ in range(3):  # from above: what is quiet is left out before it counts
        heard = power[power > level * LOUD]
        level = np.exp(np.average(np.log(heard), weights=np.sqrt(heard)))
    rest = power[power <= level * LOUD]
    brief = len(power) - len(rest) <= BRIEF and len(rest) > 0
    if brief and (quieter := speech_level(rest)) > level * SILENCE:
        return quieter
    return float(level)


def speech_moments(c: np.ndarray, speech: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (n, 20) of the speech around each vector of c (n, 20).

    speech: (n,) whether somebody speaks. PRIOR vectors of average speech are added, so that both
    exist everywhere.
    """
    near = speech[:, None].astype(float)
    average, variance = AVERAGE[:, 0], AVERAGE[:, 1] ** 2
    weight = around(near) + PRIOR
    mean = (around(near * c) + PRIOR * average) / weight
    square = (around(near * c**2) + PRIOR * (variance + average**2)) / weight
    return mean, np.sqrt(np.maximum(square - mean**2, 1e-4))
