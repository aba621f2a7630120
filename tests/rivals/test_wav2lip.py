"""Wav2Lip: its boxes, its expert, and that a mouth of the test video is never looked at."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import speaker

from dfa.recording import Recording
from dfa.rivals import parts, wav2lip
from dfa.rivals.crops import Faces, paste
from dfa.rivals.wav2lip import LipExpert, LipGenerator, Wav2Lip


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    method = Wav2Lip(tmp_path_factory.mktemp("wav2lip"), 0.005)
    method.fit([speaker(80, 64, seed) for seed in (1, 2, 3)], speaker(40, 64))
    return method


def test_wav2lip_reads_as_in_table_1(fitted):
    aspects = fitted.aspects()
    assert aspects["target"] == "arbitrary" and aspects["audio_feature"] == "sync"
    assert aspects["framework"] == "GAN" and aspects["face_model"] is None


def test_mouth_and_chin_lie_in_the_hidden_part_and_the_nose_does_not():
    points = Faces(speaker(60, 128)).points * 64
    x, y = points.astype(int).transpose(2, 0, 1)
    inside = wav2lip.mouth_mask(64).bool().numpy()[y, x]
    assert inside[:, 48:].all() and inside[:, 5:12].all()
    assert not inside[:, 17:31].any()


def test_silence_is_where_it_is_quiet():
    audio = np.random.default_rng(0).standard_normal(640 * 40)
    audio[640 * 10 : 640 * 25] *= 1e-3
    quiet = wav2lip.silent_frames(audio, 40)
    assert len(quiet) >= 6 and quiet.min() >= 12 and quiet.max() < 23


def test_a_window_of_mel_is_the_sound_of_its_five_frames():
    audio = np.random.default_rng(0).standard_normal(640 * 30)
    vectors, windows = parts.mel(audio, 30), wav2lip.mel_windows(audio, 30)
    assert windows.shape == (30, 20, 80)
    np.testing.assert_array_equal(windows[10], vectors[4 * 8 : 4 * 13])


def test_the_expert_sees_five_frames_in_order_whatever_their_brightness():
    torch.manual_seed(0)
    expert, crops = LipExpert().eval(), 0.5 * torch.rand(2, 9, 3, 64, 64)
    with torch.no_grad():
        f = expert.lips(crops)
        assert f.shape == (2, 5, 128) and (f >= 0).all()
        torch.testing.assert_close(f.norm(dim=-1), torch.ones(2, 5))
        torch.testing.assert_close(f[1, 2:3], expert.lips(crops[1:, 2:7])[0])
        torch.testing.assert_close(expert.lips(0.7 * crops + 0.1), f, atol=1e-4, rtol=1e-3)
        crops[:, 8] = torch.rand(2, 3, 64, 64)
        torch.testing.assert_close(expert.lips(crops)[:, :4], f[:, :4])


def test_the_generator_overfits_and_does_not_stay_at_the_reference():
    torch.manual_seed(0)
    net, mask = LipGenerator(16), wav2lip.mouth_mask(32)
    real, sound = torch.rand(4, 3, 1, 1).expand(4, 3, 32, 32), torch.randn(4, 20, 80)
    reference = torch.rand(1, 3, 1, 1).expand(4, 3, 32, 32)
    optimiser, curve = torch.optim.Adam(net.parameters(), 3e-3), []
    for _ in range(50):
        made = net(real * (1 - mask), reference, sound)
        loss = (made - real).abs().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        curve.append(loss.item())
    copied = ((reference - real).abs() * mask).mean().item()
    assert curve[-1] < 0.3 * curve[0] and curve[-1] < copied


def test_sync_loss_is_the_cross_entropy_of_a_pair_that_belongs_together():
    f_v, f_a = torch.nn.functional.normalize(torch.rand(2, 6, 8), dim=-1)
    p = (f_v * f_a).sum(-1)
    wanted = torch.nn.functional.binary_cross_entropy(p, torch.ones(6))
    torch.testing.assert_close(wav2lip.sync_loss(f_v, f_a), wanted)


def test_frozen_expert_teaches_late(fitted):
    assert not any(p.requires_grad for p in fitted.expert.parameters())
    assert "sync" not in fitted.curves["generator"][0]
    assert "sync" in fitted.curves["generator, sync"][0]


@pytest.mark.parametrize("T", [1, 25, 70])
def test_frames_follow_the_sound_and_are_the_same_again(fitted, T):
    audio = speaker(T, 64, 9).audio
    for pose in (None, speaker(30, 64), speaker(30, 64).part(0, 1)):
        one, two = (np.stack(list(fitted.render(audio, pose))) for _ in range(2))
        assert one.shape == (T, 64, 64, 3) and one.dtype == np.uint8
        np.testing.assert_array_equal(one, two)


def test_rendering_does_not_see_the_mouth(fitted):
    video, audio = speaker(20, 64), speaker(20, 64, 9).audio
    a, mask = video.attributes, wav2lip.mouth_mask(32)
    grey = torch.zeros(3, 32, 32)
    matrices = Faces(video).matrices
    frames = np.stack(
        [paste(f, grey, mask, m) for f, m in zip(video.frames, matrices, strict=True)]
    )
    points, landmarks = a.points.copy(), a.landmarks.copy()
    for p in (points, landmarks):
        p[:, :17] += 0.1
        p[:, 48:] += 0.1
    attributes = replace(a, points=points, landmarks=landmarks)
    other = Recording(video.name, frames, video.audio, attributes)
    seen = []
    net = fitted.painter["generator"]
    hook = net.register_forward_pre_hook(lambda _, told: seen.append(told[0]))
    made = [np.stack(list(fitted.render(audio, v))) for v in (video, other)]
    hook.remove()
    inner = (slice(None),) * 2 + (slice(0, 15),)  # above the mask's edge, where pixels mix
    torch.testing.assert_close(seen[0][inner], seen[2][inner], atol=0.02, rtol=0)
    assert (seen[0] * mask == 0).all() and (seen[2] * mask == 0).all()
    assert made[0].shape == made[1].shape


def test_nothing_but_the_lower_face_is_painted(fitted):
    video, audio = speaker(6, 64), speaker(6, 64, 9).audio
    made = np.stack(list(fitted.render(audio, video)))
    changed = (made != video.frames).any((0, 3))
    eyes = (video.attributes.points[:, 36:48, 1] * 64).max()
    assert changed.any() and not changed[: int(eyes)].any()


def test_another_subject_needs_no_training(fitted, capsys):
    again = Wav2Lip(fitted.folder, 0.005)
    again.fit([speaker(80, 64, seed) for seed in (1, 2, 3)], speaker(40, 64, 5))
    assert capsys.readouterr().out.count("already trained") == 3
    for p, q in zip(again.painter.parameters(), fitted.painter.parameters(), strict=True):
        assert torch.equal(p, q)
