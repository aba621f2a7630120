"""MFCC: alignment and normalisation."""

import librosa
import numpy as np
import pytest

from dfa.method.audio import N_MFCC, PER_FRAME, change_rate, disturb, mfcc, variants


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


def tone(hz: float, seconds: float = 2.0) -> np.ndarray:
    return 0.3 * np.sin(2 * np.pi * hz * np.arange(int(16_000 * seconds)) / 16_000).astype("f4")


def pitch(audio: np.ndarray) -> float:
    spectrum = np.abs(np.fft.rfft(audio[4000:-4000] * np.hanning(len(audio) - 8000)))
    return float(np.argmax(spectrum) * 16_000 / (len(audio) - 8000))


def test_faster_is_higher_and_its_track_keeps_to_the_sound():
    audio = tone(500)
    audio[640 * 30 : 640 * 31] *= 3  # frame 30 is loud, and its track says so
    track = np.zeros((50, 2))
    track[30] = 1
    quick, frames = change_rate(audio, track, 1.25)
    assert quick.shape == (40 * 640,) and frames.shape == (40, 2)
    assert pitch(quick) == pytest.approx(625, rel=0.02)
    loudest = np.abs(quick).reshape(40, 640).max(1).argmax()
    assert loudest == pytest.approx(24, abs=1)
    assert frames[:, 0].argmax() == pytest.approx(loudest, abs=1)
    same, frames = change_rate(audio, track, 1.0)
    np.testing.assert_allclose(same, audio, atol=1e-5)
    np.testing.assert_allclose(frames, track)


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


def test_disturbed_sound_stays_where_it_was():
    """Room, equaliser and noise change how it sounds, not when."""
    click = np.zeros(32_000, np.float32)
    click[16_000:16_160] = 0.8
    for k in range(8):
        out = disturb(click, np.random.default_rng(k))
        assert out.shape == click.shape and np.isfinite(out).all()
        assert not np.allclose(out, click, atol=1e-3)
        power = np.convolve(out**2, np.ones(160), "same")
        assert abs(int(power.argmax()) - 16_080) < 400


def test_variants_are_seeded_and_differ():
    audio, track = tone(300), np.arange(50.0)[:, None]
    one, again = (variants(audio, track, 3, np.random.default_rng(5)) for _ in range(2))
    for (c, t), (c2, _) in zip(one, again, strict=True):
        np.testing.assert_array_equal(c, c2)
        assert c.shape == (4 * len(t), N_MFCC)
    assert len(one[0][1]) == 50 and not np.allclose(one[0][0], one[2][0])
