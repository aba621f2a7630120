"""ATVG: eq. 6, the recurrent net, components, and that it hears sound and nothing else."""

import numpy as np
import pytest
import torch
from conftest import speaker

from dfa.rivals import atvg, crops
from dfa.rivals.atvg import ATVG, LANDMARKS, ConvGRU, VGNet


@pytest.fixture(scope="module")
def corpus():
    return [speaker(60, 64, seed) for seed in (1, 2, 3)]


@pytest.fixture(scope="module")
def fitted(tmp_path_factory, corpus):
    method = ATVG(tmp_path_factory.mktemp("atvg"), 0.002, device="cpu")
    method.fit(corpus, speaker(40, 64))
    return method


def test_attention_keeps_or_replaces_the_example():
    colour, example = torch.rand(2, 1, 3, 4, 4)
    none, all_ = torch.zeros(1, 1, 4, 4), torch.ones(1, 1, 4, 4)
    assert torch.equal(atvg.blend(colour, none, example), example)
    torch.testing.assert_close(atvg.blend(colour, all_, example), colour)
    some = torch.rand(1, 1, 4, 4)
    wanted = some * colour + (1 - some) * example
    torch.testing.assert_close(atvg.blend(colour, some, example), wanted)


def test_on_one_pixel_the_recurrent_net_is_torchs():
    torch.manual_seed(0)
    ours, theirs = ConvGRU(3, 4), torch.nn.GRUCell(3, 4)
    z, r = ours.gates.weight[:, :, 1, 1].chunk(2)
    n = ours.candidate.weight[:, :, 1, 1]
    with torch.no_grad():
        for m in (ours.gates, ours.candidate):
            m.bias.zero_()
        theirs.bias_ih.zero_(), theirs.bias_hh.zero_()
        # torch keeps h where its gate is 1, and resets after the product: no reset here
        theirs.weight_ih.copy_(torch.cat([0 * r[:, :3], -z[:, :3], n[:, :3]]))
        theirs.weight_hh.copy_(torch.cat([0 * r[:, 3:], -z[:, 3:], n[:, 3:]]))
        ours.gates.weight[4:] = 0
        x, h = torch.randn(2, 3), torch.randn(2, 4)
        torch.testing.assert_close(ours(x[..., None, None], h[..., None, None])[..., 0, 0],
                                   theirs(x, h), atol=1e-5, rtol=1e-4)  # fmt: skip


def test_wanted_lines_that_are_the_examples_move_nothing():
    """The network is driven by how landmarks differ: the same ones anywhere give the same."""
    torch.manual_seed(0)
    net = VGNet().eval()
    example = torch.rand(1, 3, 32, 32)
    one, two = torch.rand(2, 1, 3, 32, 32)
    with torch.no_grad():
        first = net(example, one, one[:, None])[0]
        torch.testing.assert_close(net(example, two, two[:, None])[0], first)
        assert (net(example, one, two[:, None])[0] - first).abs().max() > 1e-3


def test_components_give_landmarks_back(fitted, corpus):
    landmarks = corpus[0].attributes.landmarks
    points = fitted.points(fitted.components(landmarks))
    assert np.abs(points - crops.canonical(landmarks)).max() < 0.5 / 32


def test_an_examples_own_landmarks_are_its_tracked_points(fitted):
    faces = crops.Faces(fitted.subject)
    p = fitted.points(fitted.components(fitted.subject.attributes.landmarks))
    drawn = atvg.draw_landmarks(faces.points, faces.side) / np.float32(255)
    np.testing.assert_allclose(fitted.lines(p, faces, 0), drawn, atol=1e-6)


def test_it_reads_as_in_table_1(fitted):
    assert fitted.aspects() == dict(
        target="arbitrary", audio_feature="not sync", framework="GAN", personalized=None,
        face_model="2D landmarks",
    )  # fmt: skip


@pytest.mark.parametrize("T", [1, 23])
def test_frames_follow_the_sound_and_nothing_but_it(fitted, T):
    audio = speaker(T, 64, 9).audio
    alone = np.stack(list(fitted.render(audio)))
    assert alone.shape == (T, 64, 64, 3) and alone.dtype == np.uint8
    other = speaker(9, 64, 4)
    np.testing.assert_array_equal(alone, np.stack(list(fitted.render(audio, other, other))))
    still = fitted.subject.frames[0]
    changed = (alone != still).any((0, 3))
    assert changed.any() and not changed[:4].any() and not changed[:, :4].any()


def test_another_subject_needs_no_training(fitted, corpus, capsys):
    again = ATVG(fitted.folder, 0.002, device="cpu")
    again.fit(corpus, speaker(40, 64, 5))
    assert capsys.readouterr().out.count("already trained") == 2
    for p, q in zip(again.vg.parameters(), fitted.vg.parameters(), strict=True):
        assert torch.equal(p, q)


def test_sound_to_landmarks_is_learnt(tmp_path, corpus):
    method = ATVG(tmp_path, 60 / LANDMARKS.steps, device="cpu")
    method._fit_pictures = lambda *_: None
    method.fit(corpus, speaker(4, 64))
    curve = [point["loss"] for point in method.curves["landmarks"]]
    assert np.mean(curve[-5:]) < 0.5 * np.mean(curve[:3])
