"""The recogniser of table 5: CTC, transcripts, windows as AD-NeRF cuts them, files of one's own."""

from itertools import product

import numpy as np
import pytest
import torch

from dfa.media import InputError
from dfa.rivals import recogniser


def collapse(path: tuple[int, ...]) -> str:
    """What an alignment says: repeats are one, blanks none."""
    kept = [c for i, c in enumerate(path) if i == 0 or path[i - 1] != c]
    return "".join(recogniser.ALPHABET[c] for c in kept if c != recogniser.BLANK)


def test_ctc_sums_over_all_alignments():
    scores = torch.randn(5, 29, generator=torch.Generator().manual_seed(0)).double()
    log_p = scores.log_softmax(-1)
    a, b = recogniser.encode("ab").tolist()
    paths = [q for q in product((a, b, recogniser.BLANK), repeat=5) if collapse(q) == "ab"]
    total = sum(log_p[range(5), q].sum().exp() for q in paths)
    # per character, as torch takes the mean
    assert float(recogniser.ctc_loss([scores], ["ab"])) == pytest.approx(-float(total.log()) / 2)


def test_transcribe_takes_the_likeliest_alignment():
    for path in [(3, 3, 28, 3, 7), (28, 28, 28), (0, 5, 5, 0, 28)]:
        scores = torch.nn.functional.one_hot(torch.tensor(path), 29).float()
        assert recogniser.transcribe(scores) == collapse(path)


def test_a_batch_is_its_utterances():
    """Padding to the longest must not be heard."""
    model = recogniser.SpeechRecogniser(16).eval()
    long, short = torch.randn(201, 20), torch.randn(79, 20)
    with torch.no_grad():
        scores, alone = model([long, short]), model([short])[0]
    assert [len(s) for s in scores] == [101, 40]
    torch.testing.assert_close(scores[0], model([long])[0].detach(), atol=1e-5, rtol=1e-4)
    # only the dense layer's reach past the end, zeros alone and zeros here, is the same too
    torch.testing.assert_close(scores[1], alone, atol=1e-5, rtol=1e-4)


def test_windows_are_ad_nerfs():
    """Their loop: eight zeros before and after, 16 steps from every second one."""
    scores = torch.randn(50, 29)
    padded = np.concatenate([np.zeros((8, 29)), scores.numpy(), np.zeros((8, 29))])
    theirs = np.stack([padded[i : i + 16] for i in range(0, len(padded) - 16, 2)])
    ours = recogniser.windows(scores)
    assert ours.shape == (25, 16, 29)
    np.testing.assert_allclose(ours.numpy(), theirs[:25], rtol=1e-6)


def test_sentences_are_cut_where_they_are_spoken():
    audio = np.full(100 * 640, 1e-3, np.float32) * np.random.default_rng(0).normal(size=64_000)
    audio[24_000:40_000] *= 300  # 1.5 s to 2.5 s
    spans, rng = np.array([[1.5, 2.5]], np.float32), np.random.default_rng(1)
    sounds, texts = recogniser.utterances(audio.astype(np.float32), spans, ["hello"], rng, n=3)
    assert texts == ["hello"] * 4
    assert len(sounds[0]) == pytest.approx(120, abs=8)
    for c in sounds:  # speech between two margins: the middle is loud, the ends are not
        assert c[len(c) // 2, 0] > c[:4, 0].max() and c[len(c) // 2, 0] > c[-4:, 0].max()
    assert recogniser.utterances(audio.astype(np.float32), spans, ["a" * 99], None, n=0) == ([], [])
    for text, fits in (("ab" * 29, True), ("aabb" * 14, False)):  # 60 steps, a blank between twins
        found = recogniser.utterances(audio.astype(np.float32), spans, [text], None, n=0)
        assert bool(found[1]) is fits


def test_ones_own_deepspeech_features(tmp_path):
    aud = np.random.default_rng(0).normal(size=(30, 16, 29))
    np.save(tmp_path / "aud.npy", aud)
    read = recogniser.read_aud(tmp_path / "aud.npy", 25)
    np.testing.assert_allclose(read.numpy(), aud[:25], rtol=1e-6)
    with pytest.raises(InputError, match="30 windows for 31 frames"):
        recogniser.read_aud(tmp_path / "aud.npy", 31)
    np.save(tmp_path / "flat.npy", aud[:, 0])
    with pytest.raises(InputError, match=r"\(T, 16, 29\)"):
        recogniser.read_aud(tmp_path / "flat.npy", 5)
    (tmp_path / "no.npy").write_bytes(b"RIFF")
    for name in ("no.npy", "missing.npy"):
        with pytest.raises(InputError, match="is no array of sound features"):
            recogniser.read_aud(tmp_path / name, 5)


@pytest.mark.parametrize(
    "text, said",
    [
        ("Don’t stop, now!", "don't stop now"),
        ("Café naïve:\nÜber", "cafe naive uber"),
        ("Three of them", "three of them"),
        ("Straße, Søren; don‘t", "strasse soren don't"),
    ],
)
def test_a_written_text_becomes_characters(text, said):
    assert recogniser.plain(text) == said and len(recogniser.encode(said)) == len(said)


@pytest.mark.parametrize(
    "text, why", [("paid 5 pounds", "digits"), ("你好", "no words"), ("' '", "no words")]
)
def test_a_text_that_has_no_single_reading_is_refused(text, why):
    with pytest.raises(InputError, match=why):
        recogniser.plain(text)
