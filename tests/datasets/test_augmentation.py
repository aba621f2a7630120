"""Augmented audio: other rooms, vocal tracts and rates, in time with what goes with it."""

import numpy as np
import pytest
import torch

from dfa.datasets import voices
from dfa.datasets.voices import augmented, change_rate, disturb, variants
from dfa.method.audio import N_MFCC, mfcc


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


def test_a_disturbance_is_a_room_an_equaliser_and_noise():
    """Of a click: what follows it, the tilt of its spectrum, and what is there before it."""
    click = np.zeros(32_000, np.float32)
    click[16_000:16_160] = np.random.default_rng(9).normal(0, 0.3, 160)
    rooms, tilts, below = [], [], []
    for k in range(60):
        out = disturb(click, np.random.default_rng(k))
        noise = (out[:15_000] ** 2).mean() * len(out) / (out**2).sum()  # per mean power of all
        below.append(-10 * np.log10(noise))
        rooms.append((out[16_400:18_000] ** 2).mean() / (out[:15_000] ** 2).mean())
        spectra = [np.abs(np.fft.rfft(x[16_000:16_160])) ** 2 for x in (out, click)]
        low, high = (10 * np.log10(np.divide(*(s[b].sum() for s in spectra)))
                     for b in (slice(3, 10), slice(40, 75)))  # fmt: skip
        tilts.append(low - high)
    # the noise is 5 to 40 dB below the sound, which is less than all of sound and noise
    assert 4 < np.min(below) < 12 and 33 < np.max(below) < 41
    assert 0.3 < np.mean(np.array(rooms) > 3) < 0.9  # a tail that is louder than the noise
    assert 3 < np.std(tilts) < 12


def test_variants_are_disturbed_and_of_other_vocal_tracts(monkeypatch):
    seen, heard = [], []
    monkeypatch.setattr(
        voices, "mfcc", lambda a, n, warp: (heard.append(a), seen.append(warp), n)[-1]
    )
    audio, track = tone(300), np.arange(50.0)[:, None]
    variants(audio, track, 6, np.random.default_rng(5))
    assert 0.88 <= min(seen) < 0.95 < 1 < max(seen) <= 1.05
    for every_second in heard[::2]:  # these keep their rate
        assert len(every_second) == len(audio) and np.abs(every_second - audio).max() > 1e-3


def test_variants_are_seeded_and_differ():
    audio, track = tone(300), np.arange(50.0)[:, None]
    one, again = (variants(audio, track, 3, np.random.default_rng(5)) for _ in range(2))
    for (c, t), (c2, _) in zip(one, again, strict=True):
        np.testing.assert_array_equal(c, c2)
        assert c.shape == (4 * len(t), N_MFCC)
    assert len(one[0][1]) == 50 and not np.allclose(one[0][0], one[2][0])


def test_augmented_has_each_original_first():
    rng = np.random.default_rng(0)
    audio = [rng.normal(0, 0.1, 640 * 30).astype(np.float32) for _ in range(2)]
    f_m = [torch.randn(30, 32) for _ in range(2)]
    codes, sounds = augmented(f_m, audio, 0, n=2)
    assert len(codes) == len(sounds) == 6
    for i in range(2):
        torch.testing.assert_close(codes[3 * i], f_m[i])
        np.testing.assert_array_equal(sounds[3 * i], mfcc(audio[i], 30))
