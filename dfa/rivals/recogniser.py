"""A small speech recogniser with the architecture of DeepSpeech, for the row DeepSpeech of table 5.

DeepSpeech (Hannun et al. 2014) has dense layers over a few steps of audio, one bidirectional
recurrent layer, and 50 times a second a score for each of 28 characters and for CTC's blank.
AD-NeRF conditions its field on windows of 16 such steps; so does this row. DeepSpeech was trained
on thousands of hours. This recogniser is trained on hours of synthetic speech, by `dfa weights`,
and notebook 07 prints its error rate.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence

from ..datasets.adnerf import read_features
from ..datasets.voices import variants
from ..media import FPS, InputError
from ..method.audio import N_MFCC, PER_FRAME, mfcc
from ..recipe import Recipe, digest
from ..training import WEIGHTS, load, pick_device, train

SHIPPED = WEIGHTS / "recogniser.safetensors"  # trained by `dfa weights`
ALPHABET = " abcdefghijklmnopqrstuvwxyz'"  # as in DeepSpeech
LETTERS = str.maketrans(  # those that Unicode does not split into a letter and an accent
    {"’": "'", "‘": "'", "ß": "ss", "æ": "ae", "œ": "oe", "ø": "o", "ł": "l", "đ": "d"}
)
BLANK = len(ALPHABET)  # index of CTC's blank, the last score
STEPS = 16  # steps of 20 ms in a window, as in AD-NeRF
AROUND = 9  # MFCC vectors (10 ms) before and after a step in its receptive field


class SpeechRecogniser(nn.Module):
    """MFCC at 100 Hz -> scores of 28 characters and blank at 50 Hz."""

    def __init__(self, width: int = 160):
        super().__init__()
        self.dense = nn.Sequential(
            nn.Conv1d(N_MFCC, width, 2 * AROUND + 1, stride=2, padding=AROUND),
            nn.BatchNorm1d(width),
            nn.ReLU(),
            nn.Conv1d(width, width, 1),
            nn.BatchNorm1d(width),
            nn.ReLU(),
            nn.Dropout(0.2),
        )
        self.recurrent = nn.LSTM(width, width, batch_first=True, bidirectional=True)
        self.characters = nn.Sequential(
            nn.Linear(2 * width, width), nn.ReLU(), nn.Dropout(0.2), nn.Linear(width, BLANK + 1)
        )

    def forward(self, mfccs: list[Tensor]) -> list[Tensor]:
        """MFCC (n, 20) of utterances of any length -> unnormalised scores (ceil(n / 2), 29)."""
        lengths = torch.tensor([(len(a) + 1) // 2 for a in mfccs])
        x = self.dense(pad_sequence(mfccs, batch_first=True).mT).mT
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        y, _ = pad_packed_sequence(self.recurrent(packed)[0], batch_first=True)
        return [row[:n] for row, n in zip(self.characters(y), lengths, strict=True)]


def utterances(
    audio: np.ndarray, spans: np.ndarray, texts: list[str], rng: np.random.Generator, n: int
) -> tuple[list[Tensor], list[str]]:
    """The sentences of a recording: once as they are, and `n` times augmented (`variants`).

    Args:
        audio: (640 T,). spans: (len(texts), 2), start and end of each sentence in seconds.
        texts: the sentences, in characters of ALPHABET.

    Returns MFCC (m, 20) of each utterance, and its text. Utterances too short for CTC are left out.
    """
    T = len(audio) // 640
    # the original time of each frame: augmented audio may run faster or slower
    times = (np.arange(T, dtype=np.float32)[:, None] + 0.5) / FPS  # (T, 1) seconds
    sounds, labels = [], []
    for c, moments in [(mfcc(audio, T), times), *variants(audio, times, n, rng)]:
        cuts = np.searchsorted(moments[:, 0], spans + [-0.1, 0.1]) * PER_FRAME
        # CTC needs a step, 2 MFCC vectors, for each character, and one between two equal ones
        steps = [len(s) + sum(map(str.__eq__, s, s[1:])) for s in texts]
        usable = [k for k, (a, b) in enumerate(cuts) if b - a > 2 * steps[k]]
        sounds += [torch.from_numpy(c[slice(*cuts[k])]) for k in usable]
        labels += [texts[k] for k in usable]
    return sounds, labels


def encode(text: str) -> Tensor:
    """Text -> the indices of its characters in ALPHABET, (n,). ValueError for other characters."""
    return torch.tensor([ALPHABET.index(c) for c in text])


def plain(text: str) -> str:
    """A written text in the characters of ALPHABET; accents and other signs are left out.

    Raises InputError if it has digits, which can be spoken in more than one way, or no letters.
    """
    folded = unicodedata.normalize("NFKD", text.lower().translate(LETTERS))
    if re.search(r"\d", folded):
        raise InputError(f"{text[:40]!r} has digits: write numbers as they are spoken")
    folded = "".join(c for c in folded if not unicodedata.combining(c))
    words = " ".join(re.findall("[a-z']+", folded))
    if not re.search("[a-z]", words):
        raise InputError(f"{text[:40]!r} has no words in Latin letters")
    return words


def ctc_loss(scores: list[Tensor], texts: list[str]) -> Tensor:
    """Connectionist temporal classification (Graves et al. 2006).

    Returns the negative log probability of the texts, summed over all alignments, in nats per
    character. scores: (n, 29) for each text, unnormalised.
    """
    return F.ctc_loss(
        pad_sequence(scores).log_softmax(-1),
        torch.cat([encode(t) for t in texts]).to(scores[0].device),
        [len(s) for s in scores],
        [len(t) for t in texts],
        blank=BLANK,
    )


def transcribe(scores: Tensor) -> str:
    """The text of the most likely alignment of scores (n, 29).

    Repeated characters are merged, then blanks are removed.
    """
    best = scores.argmax(-1)
    return "".join(ALPHABET[i] for i in best.unique_consecutive().tolist() if i != BLANK)


def windows(scores: Tensor) -> Tensor:
    """Scores (2T, 29) at 50 Hz -> the windows of AD-NeRF, (T, 16, 29).

    The window of frame t has 16 steps, 0.32 s; it starts 8 steps before the frame begins. Outside
    the utterance it is filled with zeros.
    """
    padded = F.pad(scores, (0, 0, STEPS // 2, STEPS // 2))
    return padded.unfold(0, STEPS, 2)[: len(scores) // 2].mT.contiguous()


def read_aud(path: str | Path, n_frames: int) -> Tensor:
    """Read real DeepSpeech features, the aud.npy of AD-NeRF: one window per frame.

    Returns the first `n_frames`, (n_frames, 16, 29). Raises InputError if the file cannot be read,
    has another shape or too few windows.
    """
    aud = read_features(path)
    if aud.ndim != 3 or aud.shape[1:] != (STEPS, BLANK + 1):
        raise InputError(f"{path} holds {aud.shape}: DeepSpeech windows are (T, 16, 29)")
    if len(aud) < n_frames:
        raise InputError(f"{path} has {len(aud)} windows for {n_frames} frames: make it again")
    return torch.from_numpy(aud[:n_frames].astype(np.float32))


@dataclass(frozen=True)
class RecogniserRecipe(Recipe):
    """Settings of the recogniser's training."""

    lr: float = 4e-3
    batch: int = 16  # utterances per step


def train_recogniser(
    sounds: list[Tensor], texts: list[str], recipe: RecogniserRecipe, path: Path, seed: int,
    device: str = "auto",
) -> tuple[SpeechRecogniser, list[dict]]:  # fmt: skip
    """Train the recogniser on utterances, MFCC (n, 20), and their texts.

    path: of the checkpoint; a finished training is loaded from it. Returns the recogniser, on the
    CPU, and the training's history.
    """
    torch.manual_seed(seed)
    where = pick_device(device)
    recogniser = SpeechRecogniser().to(where)

    def loss(g: torch.Generator) -> tuple[Tensor, dict]:
        i = torch.randint(len(sounds), (recipe.batch,), generator=g).tolist()
        heard = [sounds[k].to(where) for k in i]
        return ctc_loss(recogniser(heard), [texts[k] for k in i]), {}

    data, label = digest(*sounds, texts), "recogniser"
    history = train(recogniser, loss, recipe, path=path, seed=seed, data=data, label=label)
    return recogniser.cpu(), history


def load_recogniser(path: str | Path = SHIPPED) -> SpeechRecogniser:
    """The recogniser from a file of weights, by default the package's.

    Raises InputError if the file is missing or holds another model.
    """
    recogniser = SpeechRecogniser()
    load(recogniser, path)
    return recogniser
