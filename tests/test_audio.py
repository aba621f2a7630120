"""MFCC: alignment and normalisation."""

import librosa
import numpy as np
import pytest

from dfa.audio import N_MFCC, PER_FRAME, mfcc


def test_a_click_is_heard_in_its_own_video_frame():
    for frame in (5, 17, 40):
        audio = np.random.default_rng(0).normal(size=50 * 640).astype(np.float32) * 1e-4
        audio[640 * frame + 320] = 0.9
        c = mfcc(audio)
        assert c.shape == (200, N_MFCC)
        loudest = np.argmax(np.abs(c[:, 0] - np.median(c[:, 0])))
        assert loudest / PER_FRAME == pytest.approx(frame, abs=0.5)


def test_level_and_utterance_statistics_fall_out():
    rng = np.random.default_rng(1)
    audio = rng.normal(size=30 * 640).astype(np.float32) * np.repeat(
        rng.uniform(0.02, 0.3, 30), 640
    )
    c = mfcc(audio)
    np.testing.assert_allclose(c.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(c.std(0), 1, atol=1e-3)
    np.testing.assert_allclose(mfcc(audio * 0.25), c, atol=2e-3)


def test_cepstrum_is_librosas():
    audio = librosa.chirp(fmin=100, fmax=4000, sr=16000, duration=2.0).astype(np.float32) * 0.3
    shifted = np.append(audio[320:], np.zeros(320, np.float32))
    y = np.append(shifted[:1], shifted[1:] - 0.97 * shifted[:-1])
    mel = librosa.feature.melspectrogram(
        y=y, sr=16000, n_fft=512, win_length=400, hop_length=160, n_mels=40, fmin=50, fmax=7600
    )[:, :200]
    ours = mfcc(audio)
    theirs = librosa.feature.mfcc(S=np.log(mel + 1e-6 * mel.max()), n_mfcc=20).T
    for k in range(20):
        assert np.corrcoef(ours[:, k], theirs[:, k])[0, 1] > 0.999


def test_length_is_what_is_asked():
    assert mfcc(np.zeros(1000, np.float32) + 0.1, 25).shape == (100, 20)
