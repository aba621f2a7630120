"""MFCC: alignment and normalisation."""

import librosa
import numpy as np
import pytest
from scipy.signal import lfilter

from dfa import captures
from dfa.media import InputError, read_audio
from dfa.method import audio as audio_features
from dfa.method.audio import (
    AVERAGE,
    FLOOR,
    MEMORY,
    N_MFCC,
    PER_FRAME,
    PRIOR,
    mfcc,
    speech_moments,
)


def mel_power(audio):
    """librosa's mel power (40, windows) of a sound whose high frequencies are raised."""
    y = np.append(audio[:1], audio[1:] - 0.97 * audio[:-1])
    return librosa.feature.melspectrogram(
        y=y, sr=16000, n_fft=512, win_length=400, hop_length=160, n_mels=40, fmin=50, fmax=7600
    )


def test_a_click_is_heard_in_its_own_video_frame():
    for frame in (5, 17, 40):
        audio = np.random.default_rng(0).normal(size=50 * 640).astype(np.float32) * 1e-4
        audio[640 * frame + 320] = 0.9
        c = mfcc(audio)
        assert c.shape == (200, N_MFCC)
        loudest = np.argmax(np.abs(c[:, 0] - np.median(c[:, 0])))
        assert loudest / PER_FRAME == pytest.approx(frame, abs=0.5)


def test_level_and_channel_fall_out():
    audio = read_audio(captures.path("corpus_01"))[: 20 * 16_000]
    c = mfcc(audio)
    speech = c[:, 0] > -2
    np.testing.assert_allclose(c[speech].mean(0), 0, atol=0.35)
    np.testing.assert_allclose(c[speech].std(0), 1, atol=0.25)
    for gain in (0.25, 0.01):
        assert np.abs(mfcc(audio * gain) - c).mean() < 5e-3
    filtered = lfilter([1, 0.4], [1], audio).astype(np.float32)  # another microphone
    assert np.corrcoef(mfcc(filtered)[speech].ravel(), c[speech].ravel())[0, 1] > 0.98


def test_a_bang_changes_little_far_away():
    audio = read_audio(captures.path("subject_a"))[: 40 * 16_000]
    bang = audio.copy()
    bang[35 * 16_000 : 35 * 16_000 + 800] = np.random.default_rng(0).normal(0, 0.5, 800)
    assert np.abs(mfcc(bang) - mfcc(audio))[:2000].mean() < 0.05


@pytest.mark.parametrize(("seconds", "gain"), [(15, 0.3), (30, 0.2)])
def test_a_knock_does_not_make_quiet_speech_silence(seconds, gain):
    audio = read_audio(captures.path("subject_a"))[: seconds * 16_000] * np.float32(gain)
    knock, at = audio.copy(), seconds * 8_000
    knock[at : at + 800] = np.random.default_rng(0).normal(0, 0.5, 800).clip(-1, 1)
    beside = np.abs(np.arange(100 * seconds) - 50 * seconds) > 20
    clean, knocked = mfcc(audio)[beside], mfcc(knock)[beside]
    assert np.corrcoef(clean.ravel(), knocked.ravel())[0, 1] > 0.97
    one_word = np.zeros(seconds * 100) + 1e-9
    one_word[100:125] = 1.0  # a quarter of a second of speech in faint noise
    assert audio_features.speech_level(one_word) == pytest.approx(1.0)
    one_word[100:115] = 1e-9  # even a tenth, if the rest is faint
    assert audio_features.speech_level(one_word) == pytest.approx(1.0)


def test_a_sound_of_zeros_is_silence():
    silent = mfcc(np.zeros(3 * 16_000, np.float32))
    assert (silent[:, 0] < -3).all() and np.abs(silent - silent[0]).max() < 1e-6


def test_average_speech_is_that_of_the_corpus(monkeypatch):
    seen = []
    monkeypatch.setattr(
        audio_features, "speech_moments", lambda c, s: (seen.append(c[s]), 0 * c, 0 * c + 1)[1:]
    )
    for name in captures.CORPUS:
        mfcc(read_audio(captures.path(name)))
    c = np.concatenate(seen)
    np.testing.assert_allclose(c.mean(0), AVERAGE[:, 0], atol=0.2)
    np.testing.assert_allclose(c.std(0), AVERAGE[:, 1], atol=0.2)


@pytest.mark.parametrize("name", [*captures.TEST, *captures.CORPUS[:5]])
def test_features_depend_on_seconds_not_on_the_file(name):
    audio = read_audio(captures.path(name))[: 16 * 16_000]
    start, quiet = audio[: 5 * 16_000], np.zeros(60 * 16_000, np.float32)
    alone, longer = mfcc(start), mfcc(np.concatenate([start, quiet]))[:500]
    np.testing.assert_allclose(longer, alone, atol=2e-2)
    going_on = mfcc(audio)[:500]
    assert np.corrcoef(going_on.ravel(), alone.ravel())[0, 1] > 0.97


@pytest.mark.parametrize("below", [25, 30, 40])
def test_a_minute_of_faint_noise_behind_changes_nothing(below):
    """`below` dB under the loudness of the speech: the hum of a room is silence, however long."""
    rng = np.random.default_rng(0)
    for name in ("subject_a", "corpus_02"):
        start = read_audio(captures.path(name))[: 5 * 16_000]
        noise = rng.normal(0, 1, 60 * 16_000).astype(np.float32)

        def level(x):  # of power, as `mfcc` sees it
            return 10 * np.log10(audio_features.speech_level(mel_power(x).mean(0)))

        noise *= 10 ** ((level(start) - below - 1 - level(noise)) / 20)
        alone, longer = mfcc(start), mfcc(np.concatenate([start, noise]))[:500]
        assert np.corrcoef(alone[:480].ravel(), longer[:480].ravel())[0, 1] > 0.98


def test_a_sound_of_two_channels_is_refused():
    with pytest.raises(InputError, match=r"shape \(16000, 2\): give one channel"):
        mfcc(np.zeros((16_000, 2), np.float32))


def test_a_sound_that_is_not_numbers_is_refused():
    for bad in (np.nan, np.inf):
        with pytest.raises(InputError, match="not numbers"):
            mfcc(np.array([0.1, bad, 0.2] * 400, np.float32))


def test_digital_silence_and_faint_noise_sound_alike():
    audio = read_audio(captures.path("subject_a"))[: 5 * 16_000]
    noise = np.random.default_rng(0).normal(0, 10 ** (-65 / 20), len(audio)).astype(np.float32)
    silent, noisy = (mfcc(np.concatenate([audio, x]))[550:1000] for x in (0 * noise, noise))
    assert np.abs(silent - noisy).mean() < 0.4  # standard deviations of speech
    assert (silent[:, 0] < -2).all() and (noisy[:, 0] < -2).all()


def test_moments_are_weighted_means_of_the_speech_around():
    rng = np.random.default_rng(0)
    c, speech = rng.normal(3, 2, (900, N_MFCC)), rng.random(900) < 0.6
    mean, std = speech_moments(c, speech)
    t = 400
    w = speech * np.exp(-np.abs(np.arange(900) - t) / MEMORY)
    values = np.concatenate([c, AVERAGE[:, :1].T, AVERAGE[:, :1].T])
    spread = np.concatenate([0 * c, AVERAGE[:, 1:].T ** 2, AVERAGE[:, 1:].T ** 2])
    w = np.append(w, [PRIOR / 2, PRIOR / 2])
    m = np.average(values, 0, w)
    v = np.average((values - m) ** 2 + spread, 0, w)
    np.testing.assert_allclose(mean[t], m, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(std[t], np.sqrt(v), rtol=1e-6)


def test_cepstrum_is_librosas():
    audio = librosa.chirp(fmin=100, fmax=4000, sr=16000, duration=2.0).astype(np.float32) * 0.3
    shifted = np.append(audio[320:], np.zeros(320, np.float32))
    mel = mel_power(shifted)[:, :200]
    ours = mfcc(audio)
    power = mel.mean(0)
    level = power.max()
    for _ in range(20):  # the level of what is at most 20 dB below it
        heard = power > level / 100
        level = np.exp(np.average(np.log(power[heard]), weights=np.sqrt(power[heard])))
    theirs = librosa.feature.mfcc(S=np.log(mel / level + FLOOR), n_mfcc=20).T
    mean, std = speech_moments(theirs, power > level / 10**2.5)
    np.testing.assert_allclose(ours, np.clip((theirs - mean) / std, -5, 5), atol=2e-3)


def test_length_is_what_is_asked():
    assert mfcc(np.zeros(1000, np.float32) + 0.1, 25).shape == (100, 20)


def test_warp_hears_another_vocal_tract():
    """Noise with a formant at 1000 Hz, heard with warp 0.8, is noise with a formant at 1250 Hz."""
    noise = np.fft.rfft(np.random.default_rng(0).normal(size=48_000))
    hz = np.fft.rfftfreq(48_000, 1 / 16_000)
    hop = np.arange(48_000) // 4800 % 2  # now one formant, now another: MFCC lose the mean

    def babble(*formants: float) -> np.ndarray:
        sounds = [np.fft.irfft(noise / (1 + ((hz - f) / 100) ** 2)) for f in formants]
        return np.where(hop, *sounds).astype(np.float32)

    low, high = babble(1000, 2000), babble(1250, 2500)
    plain, warped = mfcc(high)[:, 1:6], mfcc(low, warp=0.8)[:, 1:6]
    alike = np.corrcoef(plain.ravel(), warped.ravel())[0, 1]
    assert alike > 0.9
    assert alike > np.corrcoef(plain.ravel(), mfcc(low)[:, 1:6].ravel())[0, 1] + 0.05
