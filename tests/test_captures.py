"""Which frames are silence, and which held vowels."""

import numpy as np

from dfa import captures
from dfa.evaluation.tracker import quiet_and_held
from dfa.media import FPS, read_audio


def test_quiet_frames_are_silent_and_held_vowels_are_loud():
    for name in ("subject_a", "corpus_02"):
        audio = read_audio(captures.path(name))
        T = len(audio) // 640
        level = 20 * np.log10(np.sqrt((audio[: 640 * T].reshape(T, 640) ** 2).mean(1)) + 1e-6)
        quiet, held = quiet_and_held(name, T)
        assert quiet.shape == held.shape == (T,)
        assert not (quiet & held).any()
        assert quiet.sum() > FPS and held.sum() > FPS
        assert np.percentile(level[quiet], 90) < np.percentile(level[held], 10) - 20
