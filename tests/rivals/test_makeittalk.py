"""MakeItTalk: its losses, attention and blinks; that it follows sound, pose and eyes, no mouth."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import speaker

from dfa.recording import Recording
from dfa.rivals import makeittalk
from dfa.rivals.makeittalk import MakeItTalk, WarpedReference


@pytest.fixture(scope="module")
def corpus():
    return [speaker(seed=1), speaker(seed=2)]


@pytest.fixture(scope="module")
def fitted(tmp_path_factory, corpus):
    method = MakeItTalk(tmp_path_factory.mktemp("makeittalk"), 0.005, device="cpu")
    method.fit(corpus, speaker())
    return method


def test_landmark_loss_is_squared_distances_and_their_laplacian():
    made, real = torch.randn(2, 5, 68, 3)
    near = {k: set() for k in range(68)}
    ends = [(0, 17), (17, 22), (22, 27), (27, 31), (31, 36), (36, 42), (42, 48), (48, 60), (60, 68)]
    for start, stop in ends:
        steps = [(k, k + 1) for k in range(start, stop - 1)]
        for a, b in steps + [(stop - 1, start)] * (start >= 36):
            near[a].add(b)
            near[b].add(a)
    expected = 0.0
    for p, q in zip(made.numpy(), real.numpy(), strict=True):
        e = p - q
        for k in range(68):
            smooth = e[k] - np.mean([e[j] for j in near[k]], 0)
            expected += (e[k] ** 2).sum() + makeittalk.LAPLACE * (smooth**2).sum()
    loss = makeittalk.landmark_loss(made, real, makeittalk.laplacian())
    assert float(loss) == pytest.approx(expected / (5 * 68), rel=1e-4)


def test_attention_is_torchs_within_its_reach():
    torch.manual_seed(0)
    layer = makeittalk.Attention(8, heads=2).eval()
    x = torch.randn(2, 12, 8)  # shorter than the reach: plain self-attention
    q, k, v = (
        y.unflatten(-1, (2, -1)).transpose(1, 2) for y in layer.qkv(layer.norms[0](x)).chunk(3, -1)
    )
    y = torch.nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
    y = x + layer.out(y)
    torch.testing.assert_close(layer(x), y + layer.dense(layer.norms[1](y)))
    far = torch.randn(1, 60, 8)
    other = far.clone()
    other[:, 40] = torch.randn(8)
    changed = (layer(other) - layer(far)).abs().amax(-1)[0].nonzero()[:, 0]
    assert changed.min() == 40 - makeittalk.NEAR and changed.max() == 40 + makeittalk.NEAR


def test_eyes_shut_by_the_schedule():
    shut = makeittalk.blinks(2500, np.random.default_rng(0))
    at = np.flatnonzero(shut == 1)
    assert at[0] == 12
    assert (np.diff(at) >= 36 - 1).all() and (np.diff(at) <= 60 + 1).all()
    assert shut.min() == 0
    assert 0.4 < len(at) / 100 < 0.7


def test_noise_and_voice_move_the_head():
    torch.manual_seed(0)
    net = makeittalk.Speaker().eval()
    heard = torch.randn(1, 20, makeittalk.WINDOW)
    noise, voice = torch.randn(2, 1, 20, makeittalk.NOISE), torch.randn(2, 1, makeittalk.VOICE)
    h = net(heard, noise[0], voice[0])[0]
    assert h.shape == (1, 20, 6)
    assert (net(heard, noise[1], voice[0])[0] - h).abs().max() > 1e-4
    assert (net(heard, noise[0], voice[1])[0] - h).abs().max() > 1e-4


def test_under_its_own_pose_the_moved_reference_is_the_reference():
    r = speaker(size=64)
    a = r.attributes
    shown = WarpedReference(r, 4, a.h[4:5], a.landmarks[4:5])
    assert np.abs(shown.moved[0].astype(int) - r.frames[4]).max() <= 2
    moved, still, wanted, own = shown.painter_input().split(3, 1)
    torch.testing.assert_close(moved, still, atol=2 / 255, rtol=0)
    torch.testing.assert_close(wanted, own)


def test_the_warp_is_none_far_away_and_the_affine_map_about_the_nose():
    r, size = speaker(), 64
    known = r.attributes.points[0]
    x = (np.stack(np.meshgrid(np.arange(size), np.arange(size)), -1) + 0.5) / size
    np.testing.assert_allclose(makeittalk.warp(known, known, known, size), x, atol=1e-6)
    shift = np.array([0.03, -0.02])
    taken = makeittalk.warp(known, known + shift, known + shift, size) - x
    corner, nose = taken[0, 0], taken[tuple(((known[30] + shift) * size).astype(int)[::-1])]
    np.testing.assert_allclose(nose, -shift, rtol=0.05)
    assert np.abs(corner).max() < 0.05 * np.abs(shift).min()


def test_the_warp_moves_the_chin_alone():
    r, size = speaker(), 64
    known = r.attributes.points[0]
    wanted = known.copy()
    wanted[6:11, 1] += 0.02
    taken = makeittalk.warp(known, known, wanted, size)
    taken -= makeittalk.warp(known, known, known, size)
    at = lambda k: taken[tuple((wanted[k] * size).astype(int)[::-1])]  # noqa: E731
    assert at(8)[1] < -0.005 and np.abs(at(27)).max() < 1e-3


def test_the_reference_moves_with_the_head():
    """The warp has brought the drawn points to where the wanted ones are drawn."""
    r = speaker(size=128)
    a = r.attributes
    h = a.h[4:5] + np.float32([[0, 0, 0.1, 0.02, -0.01, 0.05]])
    shown = WarpedReference(r, 4, h, a.landmarks[4:5])
    wanted = makeittalk.draw_landmarks(shown.points, 128)[0].transpose(1, 2, 0).flatten()
    alike = lambda x: np.corrcoef(np.maximum(x, 120).flatten(), wanted)[0, 1]  # noqa: E731
    assert alike(shown.moved[0]) > 0.7 > 0.5 > alike(r.frames[4])


def test_frames_follow_the_sound_and_nothing_but_it(fitted):
    sound = speaker(seed=3).audio[: 640 * 23]
    test = speaker(T=9, seed=4)
    frames = np.stack(list(fitted.render(sound, test, test)))
    assert frames.shape == (23, 32, 32, 3) and frames.dtype == np.uint8
    np.testing.assert_array_equal(frames, np.stack(list(fitted.render(sound, test, test))))
    assert len(list(fitted.render(sound))) == 23
    mumbling = test.attributes.landmarks.copy()
    mumbling[:, :36] += 0.01
    mumbling[:, 48:] += 0.01
    a = test.attributes
    a = replace(a, landmarks=mumbling, points=a.points + 1)
    other = Recording(test.name, 255 - test.frames, test.audio, a)
    np.testing.assert_array_equal(frames, np.stack(list(fitted.render(sound, other, other))))


def test_pose_and_eyes_are_followed(fitted):
    test = speaker(seed=4)
    h, landmarks = fitted.landmarks(test.audio, test, test)
    np.testing.assert_array_equal(h, test.attributes.h)
    theirs, mine = test.attributes.landmarks[:, 36:48], landmarks[:, 36:48]
    np.testing.assert_allclose(mine - mine[:1], theirs - theirs[:1], atol=1e-6)


def test_own_eyes_blink(fitted):
    sound = speaker(T=60, seed=3).audio
    _, landmarks = fitted.landmarks(sound, None, None)
    gap = np.linalg.norm(landmarks[:, 37] - landmarks[:, 41], axis=-1)
    assert gap[12] < 1e-6 < 1e-3 < gap[[0, 25]].min()


def test_another_subject_needs_no_new_training(fitted, corpus, capsys):
    again = MakeItTalk(fitted.folder, 0.005, device="cpu")
    again.fit(corpus, speaker(seed=5))
    assert capsys.readouterr().out.count("already trained") == len(fitted.curves) > 1
    for mine, theirs in zip(again.painter.parameters(), fitted.painter.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs)
    assert again.aspects() == dict(
        target="arbitrary", audio_feature="not sync", framework="GAN", personalized="heads, eyes",
        face_model="2D landmarks",
    )  # fmt: skip


def test_the_content_is_learnt(tmp_path, corpus):
    method = MakeItTalk(tmp_path, 0.1, device="cpu")
    method._fit_speaker = method._fit_painter = lambda *_: None
    method.fit(corpus, speaker())
    curve = [point["loss"] for point in method.curves["content"]]
    assert np.mean(curve[-5:]) < 0.5 * np.mean(curve[:3])
