"""Audio features (section 4.1): MFCC at 10 ms steps, strictly aligned with the 25 fps video."""

from __future__ import annotations

import librosa
import numpy as np

from .media import FPS, SAMPLE_RATE

HOP = SAMPLE_RATE // 100  # the paper's 10 ms
PER_FRAME = SAMPLE_RATE // HOP // FPS  # 4 MFCC vectors to a video frame
N_MFCC = 20


def mfcc(audio: np.ndarray, n_frames: int | None = None) -> np.ndarray:
    """MFCC of a whole utterance, normalised over it.

    Args:
        audio: (n,) 16 kHz mono in [-1, 1].
        n_frames: video frames that belong to it; by default as many as the sound fills.

    Returns (4 * n_frames, 20) float32: vector 4 t is centred on the middle of video frame t. Each
    coefficient has mean 0 and variance 1 over the utterance, so that level, microphone and voice
    (whose effect is mostly additive in the cepstrum) fall out.
    """
    samples = SAMPLE_RATE // FPS
    if n_frames is None:
        n_frames = max(1, len(audio) // samples)
    audio = librosa.util.fix_length(np.asarray(audio, np.float32), size=n_frames * samples)
    # librosa centres vector k on sample k * HOP; half a video frame later is the frame's middle
    audio = np.concatenate([audio[samples // 2 :], np.zeros(samples // 2, np.float32)])
    audio = np.append(audio[:1], audio[1:] - 0.97 * audio[:-1])
    mel = librosa.feature.melspectrogram(
        y=audio,
        sr=SAMPLE_RATE,
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
