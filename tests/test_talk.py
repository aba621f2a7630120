"""The networks that the package ships, on people they never saw."""

import numpy as np
import pytest
import torch

from dfa import captures, evaluate, media, sync, talk
from dfa.tracking import track

SECONDS = 6


@pytest.fixture(scope="module")
def seen():
    """Six seconds of a test subject, tracked: none of the shipped networks learnt from them."""
    attributes = track(captures.path("subject_b"), seconds=SECONDS, progress=False)
    audio = media.read_audio(captures.path("subject_b"))[: SECONDS * media.SAMPLE_RATE]
    return attributes, audio


def test_shipped_audio_encoder_hears_the_offset(seen):
    attributes, audio = seen
    corpus = talk.Corpus.load()
    f_a = corpus.f_a(audio, len(attributes.h))
    with torch.no_grad():
        f_m, _ = corpus.f_d.encode(torch.from_numpy(attributes.landmarks))
        mouth = corpus.sync.mouth(f_m[None])[0]
    for late in (-6, 0, 4):  # the mouth is ahead of its sound by so many frames
        d = sync.offset_distances(mouth.roll(-late, 0)[10:-10], f_a[10:-10])
        assert abs(sync.confidence(d)[1] - late) <= 1


def test_shipped_expert_prefers_the_true_offset(seen):
    attributes, audio = seen
    from dfa.evaluate import sync_distances

    frames = media.frames_of(captures.path("subject_b"), attributes.crop, 128)[: SECONDS * 25]
    distances = sync_distances(talk.load_expert(), frames, attributes.points, audio)
    confidence, offset = sync.confidence(distances)
    assert abs(offset) <= 1
    assert confidence > 0.5


def test_motion_can_be_sampled_for_anyone(seen):
    attributes, audio = seen
    corpus = talk.Corpus.load()
    x = corpus.personal(attributes)
    f_a = corpus.f_a(audio, len(x))
    a, b = (talk.sample_personal(corpus, corpus.cme, x, f_a, seed) for seed in (0, 1))
    assert a.shape == b.shape == x.shape
    assert not torch.allclose(a, b)
    # around the person's own place, within a head's reach
    assert (a[:, :6].mean(0) - x[:, :6].mean(0)).abs()[:3].max() < np.radians(15)
    assert a[:, :3].abs().max() < np.radians(45)


def test_sampled_eyes_stay_this_persons(seen):
    """A generator that learnt from many must not put other people's eyes into this face."""
    attributes, audio = seen
    corpus = talk.Corpus.load()
    x = corpus.personal(attributes)
    made = talk.sample_personal(corpus, corpus.cme, x, corpus.f_a(audio, len(x)), 0)
    off = (made[:, 6:].median(0).values - x[:, 6:].median(0).values).abs()
    assert (off < x[:, 6:].std(0)).all()


def test_sampled_eyes_blink_as_the_tracked_ones_open(seen):
    """Lid opening read from eye codes: the same moments as the tracker's eye-aspect ratio."""
    attributes, audio = seen
    corpus = talk.Corpus.load()
    opening = corpus.lid_opening(corpus.f_e(attributes))
    assert opening.shape == (len(attributes),)
    assert np.corrcoef(opening, attributes.ear)[0, 1] > 0.9
    made = talk.sample_personal(corpus, corpus.cme, corpus.personal(attributes), 1500, 0)
    half = (np.median(opening) + opening.min()) / 2
    onsets = evaluate.blink_onsets(corpus.lid_opening(made[:, 6:]), half)
    assert 0.1 < len(onsets) / 60 < 1.0  # a second, in a minute without sound


def test_poses_stay_within_a_persons_reach():
    own = torch.linspace(-1, 1, 201)[:, None].expand(-1, 6)  # 1 % to 99 %: -0.98 to 0.98
    h = torch.linspace(-3, 3, 601)[:, None].expand(-1, 6)
    near = talk.within_reach(h, own)
    inside = h.abs() <= 0.98
    torch.testing.assert_close(near[inside], h[inside])
    assert near.abs().max() <= 0.98 + 0.2 * 1.96 + 1e-5
    assert (near.diff(dim=0) >= 0).all() and (near.diff(dim=0) <= 0.0101).all()  # no step, no turn


def test_home_is_the_mean_pose_and_open_eyes():
    x = torch.randn(101, 14)
    around, home = talk.at_home(x)
    torch.testing.assert_close(around + home, x)
    torch.testing.assert_close(around[:, :6].mean(0), torch.zeros(6), atol=1e-5, rtol=0)
    assert ((around[:, 6:] > 0).sum(0) == 50).all()


def test_speech_without_pauses_is_heard_among_some():
    rng = np.random.default_rng(0)
    speech = rng.normal(0, 0.1, 100 * 640).astype(np.float32)
    heard, lead = talk.among_pauses(speech)
    np.testing.assert_array_equal(heard[lead * 640 : (lead + 100) * 640], speech)
    assert not heard[: lead * 640].any() and not heard[(lead + 100) * 640 :].any()
    assert 1 - len(speech) / len(heard) == pytest.approx(0.2, abs=0.02)
    speech[30 * 640 : 45 * 640] = 0  # it pauses by itself
    same, lead = talk.among_pauses(speech)
    assert lead == 0 and same is speech
    for short in (np.zeros(300, np.float32), np.zeros(64_000, np.float32)):  # nothing to hear
        assert len(talk.among_pauses(short)[0]) >= len(short)


def test_training_part_is_the_first_ten_elevenths():
    assert talk.training_part(1650) == 1500
