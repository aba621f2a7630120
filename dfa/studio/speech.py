"""Synthetic speech with known phoneme times, by eSpeak NG (through ctypes), flite or Kokoro.

eSpeak NG synthesises from formants, flite's voices are statistical models of recorded people, and
Kokoro (voices.py) is a neural network. So what learns from the actors meets three kinds of voices.
"""

import ctypes
import io
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.io import wavfile
from scipy.signal import resample_poly

from ..media import SAMPLE_RATE

LEVEL_DB = -20.0  # dB relative to full scale: RMS level of the spoken parts
RATE, PITCH, RANGE = 1, 3, 4  # espeak_PARAMETER
LIST_TERMINATED, PHONEME = 0, 7  # espeak_EVENT_TYPE
SYNCHRONOUS, PHONEME_EVENTS, PHONEME_IPA = 2, 0x0001, 0x0002
CHARS_UTF8 = 1

# flite's phones in IPA, diphthongs and affricates as eSpeak NG writes them; a pause has no name.
FLITE_IPA = {"pau": ""} | dict(
    pair.split("=")
    for pair in (
        "aa=ɑː ae=æ ah=ʌ ao=ɔː aw=aʊ ax=ə ay=aɪ eh=ɛ er=ɜː ey=eɪ ih=ɪ iy=iː ow=oʊ oy=ɔɪ uh=ʊ uw=uː "
        "b=b ch=tʃ d=d dh=ð f=f g=ɡ hh=h jh=dʒ k=k l=l m=m n=n ng=ŋ p=p r=ɹ s=s sh=ʃ t=t th=θ v=v "
        "w=w y=j z=z zh=ʒ"
    ).split()
)
FLITE_VOWEL = re.compile("[aeiou]")  # its vowels, and no other phones, begin with these
CLOSURE, RELEASE = 0.042, 0.024  # s by which eSpeak's borders of stops come late: medians measured
VOICELESS, VOICED = set("ptk"), set("bdgɡ")
MARGIN = 0.02  # s kept before the first and after the last phone of a flite sentence
ALPHABET = set("abcdefghijklmnopqrstuvwxyz '")
UMLAUTS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss"})


class _Id(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("text", ctypes.c_char * 8)]


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),  # milliseconds
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Id),
    ]


_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)


@dataclass(frozen=True)
class Speech:
    """audio: (n,) float32 at 16 kHz; phones: (start, end, IPA) in seconds, in order of time;
    sentences: (start, end, text) of those that are spoken to their end."""

    audio: np.ndarray
    phones: list[tuple[float, float, str]]
    sentences: tuple[tuple[float, float, str], ...] = ()


class Espeak:
    """The eSpeak NG library. It has one voice and one callback per process."""

    def __init__(self) -> None:
        import espeakng_loader

        self.library = ctypes.cdll.LoadLibrary(espeakng_loader.get_library_path())
        data = espeakng_loader.get_data_path().encode()
        self.rate = self.library.espeak_Initialize(
            SYNCHRONOUS, 0, data, PHONEME_EVENTS | PHONEME_IPA
        )
        if self.rate <= 0:
            raise RuntimeError("eSpeak NG could not be initialised")
        self.library.espeak_ng_SetRandSeed(ctypes.c_long(0))  # or breath is seeded by the clock
        self.blocks: list[np.ndarray] = []
        self.events: list[tuple[float, str]] = []
        self.callback = _Callback(self._receive)  # kept, or ctypes would free it
        self.library.espeak_SetSynthCallback(self.callback)

    def _receive(self, wave, n, events) -> int:
        if wave and n > 0:
            self.blocks.append(np.ctypeslib.as_array(wave, (n,)).copy())
        i = 0
        while events[i].type != LIST_TERMINATED:
            if events[i].type == PHONEME:
                text = events[i].id.text.decode("utf-8", "ignore")
                self.events.append((events[i].audio_position / 1000, text))
            i += 1
        return 0

    def say(self, text: str, voice: str, rate: int, pitch: int, range: int) -> Speech:
        if self.library.espeak_SetVoiceByName(voice.encode()):
            raise ValueError(f"eSpeak NG has no voice {voice!r}")
        for parameter, value in ((RATE, rate), (PITCH, pitch), (RANGE, range)):
            self.library.espeak_SetParameter(parameter, value, 0)
        self.blocks.clear()
        self.events.clear()
        data = text.encode()
        self.library.espeak_Synth(data, len(data) + 1, 0, 0, 0, CHARS_UTF8, None, None)
        self.library.espeak_Synchronize()
        wave = np.concatenate(self.blocks).astype(np.float64) / 32768
        ends = [t for t, _ in self.events[1:]] + [len(wave) / self.rate]
        phones = [(t, e, s) for (t, s), e in zip(self.events, ends, strict=True) if e > t]
        return Speech(resample(wave, self.rate), on_the_sound(phones))


def on_the_sound(phones: list[tuple[float, float, str]]) -> list[tuple[float, float, str]]:
    """eSpeak's phones with the borders of its stops where one hears them.

    It counts the silence of p, t, k to the phone before, and the vowel's first moments to b, d, g.
    """
    moved = list(phones)
    for i, ((a, b, p), (c, d, q)) in enumerate(zip(phones, phones[1:], strict=False)):
        late = CLOSURE * (q.strip("ˈˌ")[:1] in VOICELESS and not is_pause(p))
        late = late or RELEASE * (p.strip("ˈˌ")[:1] in VOICED)
        border = c - min(late, (b - a) / 2)
        moved[i], moved[i + 1] = (moved[i][0], border, p), (border, d, q)
    return moved


def resample(wave: np.ndarray, rate: int) -> np.ndarray:
    """(n,) float32 at 16 kHz of a wave at `rate`."""
    common = np.gcd(SAMPLE_RATE, rate)
    return resample_poly(wave, SAMPLE_RATE // common, rate // common).astype(np.float32)


def stressed(phones: list[tuple[float, float, str]]) -> list[tuple[float, float, str]]:
    """flite's phones, with stress marks.

    flite does not report stress, but stressed vowels are longer. So a vowel that is longer than its
    neighbouring vowels is marked, except a schwa; pauses separate neighbours. About one vowel in
    three is marked, as by eSpeak NG.
    """
    vowels = [i for i, p in enumerate(phones) if p[2] == "pau" or FLITE_VOWEL.match(p[2])]
    durations = [0 if phones[i][2] == "pau" else phones[i][1] - phones[i][0] for i in vowels]
    peaks = {
        i
        for i, a, b, c in zip(vowels, [0, *durations], durations, [*durations[1:], 0], strict=False)
        if b > max(a, c) and phones[i][2] != "ax"
    }
    return [(a, b, "ˈ" * (i in peaks) + FLITE_IPA[s]) for i, (a, b, s) in enumerate(phones)]


def trimmed(audio: np.ndarray, phones: list[tuple[float, float, str]]) -> Speech:
    """A sentence without the noise before its first and after its last phone, and its pauses."""
    spoken = [p for p in phones if not is_pause(p[2])]
    first = round(max(spoken[0][0] - MARGIN, 0) * SAMPLE_RATE)
    last = round((spoken[-1][1] + MARGIN) * SAMPLE_RATE)
    zero = first / SAMPLE_RATE
    return Speech(audio[first:last], [(a - zero, b - zero, s) for a, b, s in spoken])


def say_by_flite(text: str, flite: str, stretch: float = 1.0) -> Speech:
    """A sentence in one of flite's voices, its durations times `stretch`."""
    with tempfile.TemporaryDirectory() as folder:
        file = f"{folder}/said.wav"
        options = ["-voice", flite, "--setf", f"duration_stretch={stretch}", "-psdur"]
        listed = subprocess.check_output(["flite", *options, "-t", text, "-o", file], text=True)
        rate, wave = wavfile.read(file)
    names, ends = zip(*(phone.split(":") for phone in listed.split()), strict=True)
    ends = [float(end) for end in ends]
    phones = stressed(list(zip([0.0, *ends], ends, names, strict=False)))
    return trimmed(resample(wave / 32768, rate), phones)


def say_all(sentences: list[str], voice: dict) -> Iterable[Speech]:
    """Synthesise each sentence with Kokoro, flite or eSpeak NG; eSpeak NG runs in a new process.

    The state of eSpeak's flutter and noise continues from the last utterance, even after a new
    initialisation. Only a new process gives the same audio again.
    """
    if "kokoro" in voice:
        from .voices import say_by_kokoro

        return (say_by_kokoro(sentence, **voice) for sentence in sentences)  # slow: as needed
    if "flite" in voice:
        return [say_by_flite(sentence, **voice) for sentence in sentences]
    root = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-m", "dfa.studio.speech"],
        input=json.dumps({"sentences": sentences, "voice": voice}).encode(),
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path},
        check=True,
    )
    with np.load(io.BytesIO(done.stdout), allow_pickle=False) as data:
        return [
            Speech(
                data[f"audio_{i}"],
                [
                    (float(a), float(b), str(name))
                    for (a, b), name in zip(data[f"times_{i}"], data[f"names_{i}"], strict=True)
                ],
            )
            for i in range(len(sentences))
        ]


def main() -> None:
    """The child of `say_all`: JSON in, npz out."""
    request = json.load(sys.stdin)
    espeak, arrays = Espeak(), {}
    for i, sentence in enumerate(request["sentences"]):
        said = espeak.say(sentence, **request["voice"])
        arrays[f"audio_{i}"] = said.audio
        arrays[f"times_{i}"] = np.array([p[:2] for p in said.phones])
        arrays[f"names_{i}"] = np.array([p[2] for p in said.phones], dtype="U8")
    packed = io.BytesIO()
    np.savez(packed, **arrays)
    sys.stdout.buffer.write(packed.getvalue())


def is_pause(phone: str) -> bool:
    """Whether a phone is a silence: eSpeak writes its name with underscores and marks only."""
    return not phone.strip(" _:|;ˈˌ")


def letters(text: str) -> str:
    """A sentence in the recogniser's characters: a to z, space and apostrophe.

    Umlauts become ae, oe, ue, ss; Mandarin becomes pinyin without tones, a space between
    syllables, v for ü.
    """
    if re.search("[\u4e00-\u9fff]", text):
        from pypinyin import lazy_pinyin

        text = " ".join(lazy_pinyin(text))
    plain = re.sub(r"[^\w']+", " ", text.lower().translate(UMLAUTS)).strip()
    if unknown := set(plain) - ALPHABET:
        raise ValueError(f"no letters for {' '.join(sorted(unknown))} in {text!r}")
    return plain


def speak(
    sentences: list[str], seconds: float, rng: np.random.Generator, **voice: str | float
) -> Speech:
    """Speak the sentences with silent pauses between them, cut to `seconds`.

    voice: eSpeak NG's voice name, rate (words a minute), pitch and range (0 to 99); or flite's
    voice name as `flite`, and stretch, a factor on its durations; or `kokoro` and what else
    `voices.say_by_kokoro` takes.
    Pauses are 0.3 to 0.9 s, one in six about 1 s, after a lead-in of half a second.
    """
    audio = np.zeros(round(seconds * SAMPLE_RATE), np.float32)
    phones: list[tuple[float, float, str]] = []
    spans: list[tuple[float, float, str]] = []
    clock = 0.5
    for sentence, said in zip(sentences, say_all(sentences, voice), strict=True):
        voiced = np.flatnonzero(np.abs(said.audio) > 1e-3)
        length = (voiced[-1] + 1) / SAMPLE_RATE  # eSpeak appends silence of its own
        start = round(clock * SAMPLE_RATE)
        piece = said.audio[: voiced[-1] + 1][: max(len(audio) - start, 0)]
        audio[start : start + len(piece)] = piece
        spoken = [
            (start / SAMPLE_RATE + a, start / SAMPLE_RATE + min(b, length), s)
            for a, b, s in said.phones
            if not is_pause(s) and a < length
        ]
        phones += spoken
        spans.append((spoken[0][0], spoken[-1][1], sentence))
        clock = start / SAMPLE_RATE + length
        clock += rng.uniform(0.9, 1.1) if rng.random() < 1 / 6 else rng.uniform(0.3, 0.9)
        if clock > seconds:
            break
    loud = np.abs(audio) > 1e-3
    audio *= 10 ** (LEVEL_DB / 20) / np.sqrt(np.mean(audio[loud] ** 2))
    audio *= min(1, 0.95 / np.abs(audio).max())
    phones = [(a, min(b, seconds), s) for a, b, s in phones if a < seconds]
    return Speech(audio, phones, tuple(s for s in spans if s[1] <= seconds))


if __name__ == "__main__":
    main()
