"""What the methods of table 2 share, and the two whose parts were there: AD-NeRF and ours."""

from itertools import islice

import numpy as np
import pytest
import torch
from conftest import speaker
from torch import nn

from dfa import media
from dfa.evaluation import paper
from dfa.method.face import in_image, project
from dfa.method.fast_field import FastField
from dfa.method.sync import SyncModel
from dfa.rivals import adnerf, parts
from dfa.rivals.adnerf import ADNeRF, torso_mask
from dfa.rivals.method import Method
from dfa.rivals.recogniser import SpeechRecogniser, windows


def test_landmarks_in_the_image_are_eq_1_projected():
    r = speaker(3)
    R = torch.eye(3)
    still = in_image(np.float32([[0, 0, 0, 0.1, 0, 1.5]]), r.attributes.landmarks[:1])
    by_hand = project(torch.from_numpy(r.attributes.landmarks[0]) @ R + torch.tensor([0.1, 0, 1.5]))
    np.testing.assert_allclose(still[0], by_hand, atol=1e-6)


class Nobody(Method):
    """A method that does nothing."""

    name, learns_from, takes = "Nobody", "corpus", ()

    def fit(self, corpus, subject):
        self.frame = subject.frames[0]

    def render(self, audio, pose=None, eyes=None):
        yield from [self.frame] * (len(audio) // 640)


@pytest.mark.parametrize(
    "networks, framework, feature",
    [
        ([parts.PatchDiscriminator(3)], "GAN", "not sync"),
        ([nn.Sequential(parts.PatchDiscriminator(3), SyncModel())], "GAN", "sync"),
        ([FastField(size=16), parts.PatchDiscriminator(3)], "NeRF", "not sync"),
        ([nn.Linear(1, 1)], None, "not sync"),
    ],
)
def test_aspects_are_read_off_the_networks(tmp_path, networks, framework, feature):
    method = Nobody(tmp_path)
    for k, network in enumerate(networks):
        setattr(method, f"network_{k}", network)
    aspects = method.aspects()
    assert aspects["framework"] == framework and aspects["audio_feature"] == feature
    assert aspects["target"] == "arbitrary" and aspects["personalized"] is None
    assert set(aspects) == set(paper.reported_aspects()["ATVG"])


def test_adversarial_losses_reach_only_whom_they_should():
    torch.manual_seed(0)
    judge, real = parts.PatchDiscriminator(3, 8), torch.rand(2, 3, 32, 32)
    fake = torch.rand(2, 3, 32, 32, requires_grad=True)
    fools, tells = parts.adversarial(judge, real, fake)
    with torch.no_grad():
        d_real, d_fake = judge(real), judge(fake)
    assert fools.item() == pytest.approx(float(((d_fake - 1) ** 2).mean()), rel=1e-5)
    by_hand = 0.5 * ((d_real - 1) ** 2).mean() + 0.5 * (d_fake**2).mean()
    assert tells.item() == pytest.approx(float(by_hand), rel=1e-5)
    fools.backward()
    assert fake.grad.abs().sum() > 0
    assert all(w.grad is None for w in judge.parameters())
    fake.grad = None
    tells.backward()
    assert fake.grad is None
    assert all(w.grad.abs().sum() > 0 for w in judge.parameters())


def test_windows_and_turns():
    x = torch.arange(5.0)[:, None]
    assert parts.windows_around(x, 2, 1)[0, :, 0].tolist() == [0, 0, 0, 1]
    assert parts.windows_around(x, 2, 1)[4, :, 0].tolist() == [2, 3, 4, 4]
    assert media.to_and_fro(np.arange(4), 9).tolist() == [0, 1, 2, 3, 2, 1, 0, 1, 2]
    assert media.to_and_fro(np.arange(1), 3).tolist() == [0, 0, 0]


def test_mel_is_centred_on_frames():
    """A click in the middle of frame 5 is loudest in the vector that stands for it."""
    audio = np.zeros(640 * 12, np.float32)
    audio[640 * 5 + 320] = 1
    power = parts.mel(audio, 12).mean(1)
    assert len(power) == 48 and power.argmax() == 4 * 5 + 2


def test_u_net_keeps_the_size():
    net = parts.UNet(4, 2, 8, levels=3)
    assert net(torch.rand(1, 4, 64, 64)).shape == (1, 2, 64, 64)


def test_torso_is_below_the_jaw():
    points = speaker(2).attributes.points
    mask = torso_mask(points, 64)[0]
    x, y = points[0, 8] * 64
    assert mask[int(y) + 4, int(x)] and not mask[int(y) - 4, int(x)]
    assert mask[63].all() and not mask[0].any()


def test_audio_net_sees_the_windows_that_ad_nerf_cuts():
    scores = torch.randn(60, 29)  # 30 frames
    told = parts.windows_around(scores.reshape(30, 58), adnerf.AROUND, adnerf.AROUND)[12]
    steps = told.reshape(30, 29).unfold(0, 16, 2).mT  # (8, 16, 29)
    torch.testing.assert_close(steps, windows(scores)[12 - 3 : 12 + 5])
    weights = adnerf.AudioNet().attention(torch.randn(3, 16, 8))
    torch.testing.assert_close(weights.sum(1), torch.ones(3))


@pytest.fixture(scope="module")
def ad_nerf(tmp_path_factory):
    torch.manual_seed(0)
    method = ADNeRF(tmp_path_factory.mktemp("adnerf"), 0.004, recogniser=SpeechRecogniser())
    method.fit([], speaker())
    return method


def test_ad_nerf_has_two_fields_and_no_eyes(ad_nerf):
    assert ad_nerf.aspects() == paper.reported_aspects()["AD-NeRF"]
    audio, pose = speaker(seed=1).audio[: 640 * 12], speaker(8, seed=2)
    frames = np.stack(list(ad_nerf.render(audio, pose)))
    assert frames.shape == (12, 32, 32, 3) and frames.dtype == np.uint8
    blind = np.stack(list(ad_nerf.render(audio, pose, speaker(12, seed=3))))
    np.testing.assert_array_equal(frames, blind)
    assert next(iter(ad_nerf.render(audio, size=64))).shape == (64, 64, 3)


def test_ad_nerfs_torso_stands_where_the_head_turns(ad_nerf):
    depth, rays = torch.full((2, 1, 1), 1.2), torch.tensor([[[0.02, 0.03, 1.0]]])
    h = torch.tensor([[0, 0, 0, 0, 0, 1.2], [0, 0.2, 0, 0.01, 0, 1.2]])
    torso = ad_nerf.torso.canonical(depth, rays, h, h)
    torch.testing.assert_close(torso[0], torso[1])
    assert ad_nerf.torso.of_head.min() == 1 and ad_nerf.head.of_head.min() == 0  # colours do move
    head = ad_nerf.head.canonical(depth, rays, h, h)
    assert (head[0] - head[1]).abs().max() > 0.01
    # a point of the head keeps its place in the head's space
    x = torch.tensor([[0.03, 0.05, -0.02]])
    for pose_of in h:
        X = in_image(pose_of[None].numpy(), x[None].numpy())[0, 0] - 0.5
        X = torch.tensor([X[0] / 3.2, X[1] / 3.2, 1.0], dtype=torch.float32)
        from dfa.method.face import pose

        z = pose(pose_of[None], x[None])[0, 0, 2]
        box = ad_nerf.head.canonical(z.view(1, 1, 1), X.view(1, 1, 3), pose_of[None], h[:1])
        back = (box.view(3) + 1) / 2 * (ad_nerf.head.hi - ad_nerf.head.lo) + ad_nerf.head.lo
        torch.testing.assert_close(back, x[0], atol=1e-4, rtol=0)


def test_ad_nerf_goes_on_with_its_own_poses(ad_nerf):
    audio = speaker(seed=1).audio[: 640 * 6]
    own = list(islice(ad_nerf.render(audio), 6))
    given = list(ad_nerf.render(audio, ad_nerf.subject))
    np.testing.assert_array_equal(own, given)
