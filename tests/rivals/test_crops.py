"""Faces cut out and aligned: similarities against OpenCV and a closed form, cutting and pasting."""

import cv2
import numpy as np
import pytest
import torch
from conftest import speaker

from dfa.rivals import crops
from dfa.rivals.crops import Faces, Overpaint


def test_similarity_is_the_least_squares_one():
    rng = np.random.default_rng(0)
    p = rng.random((31, 2))
    turn = np.array([[0.8, -0.3], [0.3, 0.8]])
    exact = crops.similarity(p, p @ turn.T + [0.1, -0.2])
    np.testing.assert_allclose(exact, np.c_[turn, [0.1, -0.2]], atol=1e-12)
    q = rng.random((31, 2))
    zeros, ones = np.zeros(31), np.ones(31)
    A = np.r_[np.c_[p[:, 0], -p[:, 1], ones, zeros], np.c_[p[:, 1], p[:, 0], zeros, ones]]
    a, b, u, v = np.linalg.lstsq(A, q.T.ravel(), rcond=None)[0]
    np.testing.assert_allclose(crops.similarity(p, q), [[a, -b, u], [b, a, v]], atol=1e-9)


def test_points_of_a_picture_lie_where_its_crop_shows_them():
    """A dot is drawn at a landmark; in the crop it lies at the landmark moved."""
    r = speaker(3, 128)
    faces = Faces(r)
    frame = np.zeros((128, 128, 3), np.uint8)
    x, y = r.attributes.points[1, 33] * 128 - 0.5
    v, u = np.mgrid[:128, :128]
    frame[:] = np.uint8(255 * np.exp(-((u - x) ** 2 + (v - y) ** 2) / 8))[..., None]
    crop = crops.cut(frame, faces.matrices[1])[..., 0].astype(float)
    v, u = np.mgrid[:64, :64] + 0.5
    found = np.array([(u * crop).sum(), (v * crop).sum()]) / crop.sum() / 64
    np.testing.assert_allclose(found, faces.points[1, 33], atol=0.1 / 64)


def test_brows_eyes_and_nose_lie_as_in_the_mean_face_whatever_the_mouth_does():
    r = speaker(30, 64)
    faces, upper = Faces(r), crops.UPPER
    wanted = crops.canonical(r.attributes.landmarks)[:, upper]
    assert np.abs(faces.points[:, upper] - wanted).max() < 2 / 64
    points = r.attributes.points.copy()
    points[:, 48:] += 0.3
    same = crops.aligning(points, r.attributes.landmarks)
    np.testing.assert_array_equal(same, faces.matrices)


def test_what_is_cut_and_pasted_is_the_frame_but_for_the_blur_of_it():
    r = speaker(2, 64)
    frame = cv2.GaussianBlur(r.frames[0], (0, 0), 3)
    matrix = Faces(r).matrices[0]
    crop = torch.from_numpy(crops.cut(frame, matrix)).movedim(-1, 0) / 255
    back = crops.paste(frame, crop, crops.inner_mask(32), matrix)
    assert np.abs(back.astype(int) - frame).max() <= 3
    untouched = crops.paste(frame, crop * 0, torch.zeros(32, 32), matrix)
    np.testing.assert_array_equal(untouched, frame)
    assert (crops.paste(frame, crop * 0, crops.inner_mask(32), matrix) == 0).any()


def test_alike_is_the_nearest_turn_of_another_second():
    r = speaker(80, 32)
    faces, turns = Faces(r), r.attributes.h[:, :3]
    among = np.array([3, 8, 38, 45, 70])
    apart = among[np.abs(among - 40) >= 25]
    far = np.linalg.norm(turns[apart] - turns[40], axis=1)
    assert faces.alike(40, among) == apart[far.argmin()] != 38
    assert faces.alike(40, np.array([38, 45])) in (38, 45)


@pytest.mark.parametrize("shift", [0, 3])
def test_overpaint_moves_and_paints(shift):
    picture = torch.rand(1, 3, 20, 20)
    y = torch.zeros(1, 6, 20, 20)
    y[:, 0] = 2 * shift / 20 / Overpaint.REACH  # a flow of whole pixels, to the right
    y[:, 5] = -100  # no paint
    out = Overpaint()(y, picture)
    wanted = picture[..., shift:] if shift else picture
    torch.testing.assert_close(out[..., : 20 - shift], wanted, atol=1e-4, rtol=0)
    y[:, 5], y[:, 2:5] = 100, 0
    torch.testing.assert_close(Overpaint()(y, picture), torch.full_like(picture, 0.5))
