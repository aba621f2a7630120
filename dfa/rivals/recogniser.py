"""A small speech recogniser of DeepSpeech's form, for table 5's row of that name.

DeepSpeech (Hannun et al. 2014): dense layers over a few steps of the sound, one recurrent layer
both ways, a score for each of 28 characters and CTC's blank, 50 times a second. AD-NeRF conditions
its field on windows of 16 such steps; so does this row. DeepSpeech itself heard thousands of hours;
this one hears what E_a hears, and its error rate is printed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence

from ..datasets.adnerf import read_features
from ..media import FPS, InputError
from ..method.audio import N_MFCC, PER_FRAME, mfcc, variants
from ..recipe import Recipe, digest
from ..training import load, train

ALPHABET = " abcdefghijklmnopqrstuvwxyz'"  # DeepSpeech's; the blank comes after
BLANK = len(ALPHABET)
STEPS = 16  # of 20 ms, a window of AD-NeRF's
AROUND = 9  # MFCC vectors either way that one step sees


class SpeechRecogniser(nn.Module):
    """MFCC -> scores of 28 characters and blank, at 50 Hz."""

    def __init__(self, width: int = 96):
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
        """Utterances (n, 20) of any length -> scores (ceil(n / 2), 29), not normalised."""
        lengths = torch.tensor([(len(a) + 1) // 2 for a in mfccs])
        x = self.dense(pad_sequence(mfccs, batch_first=True).mT).mT
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        y, _ = pad_packed_sequence(self.recurrent(packed)[0], batch_first=True)
        return [row[:n] for row, n in zip(self.characters(y), lengths, strict=True)]


def utterances(
    audio: np.ndarray, spans: np.ndarray, texts: list[str], rng: np.random.Generator, n: int
) -> tuple[list[Tensor], list[str]]:
    """The sentences of a recording (640 T,), once as they are and `n` times disturbed
    (`audio.variants`): MFCC (m, 20) each, and what they say. spans (len(texts), 2) in seconds."""
    T = len(audio) // 640
    when = (np.arange(T, dtype=np.float32)[:, None] + 0.5) / FPS  # a disturbed sound may run faster
    sounds, said = [], []
    for c, moments in [(mfcc(audio, T), when), *variants(audio, when, n, rng)]:
        cuts = np.searchsorted(moments[:, 0], spans + [-0.1, 0.1]) * PER_FRAME
        whole = [
            k for k, (a, b) in enumerate(cuts) if b - a > 2 * len(texts[k])
        ]  # or CTC has no way
        sounds += [torch.from_numpy(c[slice(*cuts[k])]) for k in whole]
        said += [texts[k] for k in whole]
    return sounds, said


def encode(text: str) -> Tensor:
    """Text of ALPHABET's characters -> their indices."""
    return torch.tensor([ALPHABET.index(c) for c in text])


def ctc_loss(scores: list[Tensor], texts: list[str]) -> Tensor:
    """Connectionist temporal classification (Graves et al. 2006): minus the log probability of the
    texts under all alignments, per character. Scores (n, 29)."""
    return F.ctc_loss(
        pad_sequence(scores).log_softmax(-1),
        torch.cat([encode(t) for t in texts]),
        [len(s) for s in scores],
        [len(t) for t in texts],
        blank=BLANK,
    )


def transcribe(scores: Tensor) -> str:
    """The text of the likeliest alignment: repeats are one character, blanks none."""
    best = scores.argmax(-1)
    best = best[torch.cat([torch.ones(1, dtype=bool), best[1:] != best[:-1]])]
    return "".join(ALPHABET[int(i)] for i in best if i != BLANK)


def windows(scores: Tensor) -> Tensor:
    """Scores (2T, 29) at 50 Hz -> (T, 16, 29), as AD-NeRF cuts them: frame t sees the 16 steps
    from 8 before its beginning, 0.32 s; outside the utterance stand zeros."""
    padded = F.pad(scores, (0, 0, STEPS // 2, STEPS // 2))
    return padded.unfold(0, STEPS, 2)[: len(scores) // 2].mT.contiguous()


def read_aud(path: str | Path, n_frames: int) -> Tensor:
    """DeepSpeech features of one's own, AD-NeRF's aud.npy: (T, 16, 29), one window a frame.

    The first `n_frames` are returned. InputError where the file holds something else.
    """
    aud = read_features(path)
    if aud.ndim != 3 or aud.shape[1:] != (STEPS, BLANK + 1):
        raise InputError(f"{path} holds {aud.shape}: DeepSpeech windows are (T, 16, 29)")
    if len(aud) < n_frames:
        raise InputError(f"{path} has {len(aud)} windows for {n_frames} frames: make it again")
    return torch.from_numpy(aud[:n_frames].astype(np.float32))


@dataclass(frozen=True)
class RecogniserRecipe(Recipe):
    """The recogniser's training."""

    lr: float = 4e-3
    batch: int = 16  # utterances a step


def train_recogniser(
    sounds: list[Tensor], texts: list[str], recipe: RecogniserRecipe, path: Path, seed: int
) -> tuple[SpeechRecogniser, list[dict]]:
    """The recogniser on utterances, MFCC (n, 20), and what they say; and its history."""
    torch.manual_seed(seed)
    recogniser = SpeechRecogniser()

    def loss(g: torch.Generator) -> tuple[Tensor, dict]:
        i = torch.randint(len(sounds), (recipe.batch,), generator=g).tolist()
        return ctc_loss(recogniser([sounds[k] for k in i]), [texts[k] for k in i]), {}

    data, label = digest(*sounds, texts), "recogniser"
    history = train(recogniser, loss, recipe, path=path, seed=seed, data=data, label=label)
    return recogniser, history


def load_recogniser(path: str | Path) -> SpeechRecogniser:
    """The recogniser of a file of weights."""
    recogniser = SpeechRecogniser()
    load(recogniser, path)
    return recogniser
