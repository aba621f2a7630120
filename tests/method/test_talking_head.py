"""The networks that the package ships, on people they never saw."""

import numpy as np
import pytest
import torch

from dfa import captures, media
from dfa.evaluation import expert, motion
from dfa.method import crossmodal, talking_head
from dfa.method.tracking import track

SECONDS = 6


@pytest.fixture(scope="module")
def seen():
    """Six seconds of a test subject, tracked: none of the shipped networks learnt from them."""
    attributes = track(captures.path("subject_b"), seconds=SECONDS, progress=False)
    audio = media.read_audio(captures.path("subject_b"))[: SECONDS * media.SAMPLE_RATE]
    return attributes, audio


def test_shipped_audio_encoder_hears_the_offset(seen):
    attributes, audio = seen
    corpus = talking_head.Corpus.load()
    f_a = corpus.f_a(audio, len(attributes.h))
    with torch.no_grad():
        f_m, _ = corpus.f_d.encode(torch.from_numpy(attributes.landmarks))
        mouth = corpus.sync.mouth(f_m[None])[0]
    for late in (-6, 0, 4):  # the mouth is ahead of its sound by so many frames
        d = expert.offset_distances(mouth.roll(-late, 0)[10:-10], f_a[10:-10])
        assert abs(expert.confidence(d)[1] - late) <= 1


def test_shipped_expert_prefers_the_true_offset(seen):
    attributes, audio = seen
    from dfa.evaluation.expert import sync_distances

    frames = media.frames_of(captures.path("subject_b"), attributes.crop, 128)[: SECONDS * 25]
    distances = sync_distances(expert.load_expert(), frames, attributes.points, audio)
    confidence, offset = expert.confidence(distances)
    assert abs(offset) <= 1
    assert confidence > 0.5


def test_motion_can_be_sampled_for_anyone(seen):
    attributes, audio = seen
    corpus = talking_head.Corpus.load()
    x = corpus.personal(attributes)
    f_a = corpus.f_a(audio, len(x))
    a, b = (crossmodal.sample_personal(corpus.vae, corpus.cme, x, f_a, seed) for seed in (0, 1))
    assert a.shape == b.shape == x.shape
    assert not torch.allclose(a, b)
    # around the person's own place, within a head's reach
    assert (a[:, :6].mean(0) - x[:, :6].mean(0)).abs()[:3].max() < np.radians(15)
    assert a[:, :3].abs().max() < np.radians(45)


def test_sampled_eyes_stay_this_persons(seen):
    """A generator that learnt from many must not put other people's eyes into this face."""
    attributes, audio = seen
    corpus = talking_head.Corpus.load()
    x = corpus.personal(attributes)
    made = crossmodal.sample_personal(corpus.vae, corpus.cme, x, corpus.f_a(audio, len(x)), 0)
    off = (made[:, 6:].median(0).values - x[:, 6:].median(0).values).abs()
    assert (off < x[:, 6:].std(0)).all()


def test_sampled_eyes_blink_as_the_tracked_ones_open(seen):
    """Lid opening read from eye codes: the same moments as the tracker's eye-aspect ratio."""
    attributes, audio = seen
    corpus = talking_head.Corpus.load()
    opening = motion.lid_opening(corpus.f_d, corpus.f_e(attributes))
    assert opening.shape == (len(attributes),)
    assert np.corrcoef(opening, attributes.ear)[0, 1] > 0.9
    made = crossmodal.sample_personal(corpus.vae, corpus.cme, corpus.personal(attributes), 1500, 0)
    half = (np.median(opening) + opening.min()) / 2
    onsets = motion.blink_onsets(motion.lid_opening(corpus.f_d, made[:, 6:]), half)
    assert 0.1 < len(onsets) / 60 < 1.0  # a second, in a minute without sound
