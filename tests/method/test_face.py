"""Eq. 1, rotations and the camera against loops, SciPy and numbers worked out by hand."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from dfa.method import face
from dfa.method.face import FaceModel

# Each iBUG point's partner across the face, as annotators of the 300-W data mirror them.
MIRROR = [
    *range(16, -1, -1),
    *range(26, 16, -1),
    *[27, 28, 29, 30, 35, 34, 33, 32, 31],
    *[45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40],
    *[54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65],
]


@pytest.fixture(scope="module")
def model() -> FaceModel:
    return FaceModel.load()


def coefficients(model: FaceModel, *shape: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    K_id, K_exp = model.B_id.shape[-1], model.B_exp.shape[-1]
    return rng.normal(size=(*shape, K_id)), rng.normal(size=(*shape, K_exp))


def test_equation_1_is_a_sum(model):
    F_id, F_exp = coefficients(model)
    some = [0, 7, 1234, len(model.mean) - 1]
    S = model.vertices(F_id, F_exp)
    for v in some:
        for axis in range(3):
            total = float(model.mean[v, axis])
            for k, f in enumerate(F_id):
                total += float(model.B_id[v, axis, k]) * f
            for k, f in enumerate(F_exp):
                total += float(model.B_exp[v, axis, k]) * f
            assert S[v, axis] == pytest.approx(total, abs=1e-6)
    assert np.allclose(model.vertices(0 * F_id, 0 * F_exp), model.mean)


def test_frames_are_fitted_together_or_alone(model):
    F_id, F_exp = coefficients(model, 2, 3)
    together = model.landmarks(F_id, F_exp)
    assert together.shape == (2, 3, 68, 3)
    assert np.allclose(together[1, 2], model.landmarks(F_id[1, 2], F_exp[1, 2]), atol=1e-6)


def test_landmarks_lie_in_their_triangles(model):
    F_id, F_exp = coefficients(model)
    S, L = model.vertices(F_id, F_exp), model.landmarks(F_id, F_exp)
    for i, p in enumerate(face.MP_68):
        corners = S[model.mp_vertices[p]]
        assert np.allclose(
            sum(w * c for w, c in zip(model.mp_weights[p], corners, strict=True)), L[i]
        )
    assert np.allclose(model.mp_weights.sum(1), 1) and model.mp_weights.min() >= 0


def test_points_of_ibug_mirror_each_other(model):
    """The table to mediapipe's points and their places, against the annotators' mirror table."""
    assert len(face.MP_68) == len(set(face.MP_68)) == 68
    zero = np.zeros(model.B_id.shape[-1]), np.zeros(model.B_exp.shape[-1])
    L = model.landmarks(*zero)
    apart = np.linalg.norm(L - L[MIRROR] * [-1, 1, 1], axis=1)
    assert np.median(apart) < 0.002 and apart.max() < 0.012
    assert (L[[36, 39, 48], 0] < 0).all() and (L[[42, 45, 54], 0] > 0).all()  # image left first
    assert L[8, 1] > L[57, 1] > L[51, 1] > L[33, 1] > L[27, 1] > L[19, 1]  # chin to brow: y is down
    assert L[30, 2] == L[27:31, 2].min() < L[8, 2] < L[0, 2]  # nose towards the camera, jaw behind
    assert 0.085 < np.linalg.norm(L[36] - L[45]) < 0.115  # outer eye corners, metres


def test_bases_are_scaled_like_principal_components(model):
    for B in (model.B_id, model.B_exp):
        size = np.sqrt((B**2).sum((0, 1)))
        assert np.isfinite(B).all() and size[0] > 3 * size[-1] > 0
    assert face.FILE.stat().st_size < 1.5e6


def test_expressions_move_eyes_and_mouth_apart(model):
    """Few standard deviations shut one eye, or open the mouth, and leave the others alone."""
    K = model.B_exp.shape[-1]
    zero = np.zeros(model.B_id.shape[-1])

    def gaps(F_exp: np.ndarray) -> np.ndarray:  # right eye, left eye, mouth, metres
        L = model.landmarks(zero, F_exp)
        return (L[[41, 47, 66]] - L[[37, 43, 62]])[:, 1]

    rest = gaps(np.zeros(K))
    assert (rest[:2] > 0.006).all() and abs(rest[2]) < 0.003
    A = np.stack([gaps(row) - rest for row in np.eye(K)], 1)  # (3, K)
    for i, change in enumerate([-rest[0], -rest[1], 0.02]):
        target = np.eye(3)[i] * change
        F = np.linalg.pinv(A) @ target
        assert np.allclose(gaps(F) - rest, target, atol=1e-5)
        assert np.linalg.norm(F) < 5


def test_rotations_are_scipys():
    angles = np.random.default_rng(1).uniform(-1.2, 1.2, (50, 3))
    R = face.euler_to_matrix(torch.tensor(angles))
    assert np.allclose(R.numpy(), Rotation.from_euler("xyz", angles).as_matrix())
    assert np.allclose(face.matrix_to_euler(R).numpy(), angles)
    assert torch.autograd.gradcheck(
        face.euler_to_matrix, torch.tensor(angles[:3], requires_grad=True)
    )


def test_pose_and_projection_by_hand():
    h = torch.tensor([[0.2, -0.3, 0.1, 0.01, -0.02, 1.4]], dtype=torch.float64)
    X = torch.tensor([[[0.03, 0.01, -0.05], [0.0, 0.0, 0.0]]], dtype=torch.float64)
    R = Rotation.from_euler("xyz", [0.2, -0.3, 0.1])
    expected = R.apply(X[0].numpy()) + [0.01, -0.02, 1.4]
    assert np.allclose(face.pose(h, X)[0].numpy(), expected)
    # 0.1 m to the right and 0.2 m up at 1.6 m: 3.2 * 0.1 / 1.6 and 3.2 * -0.2 / 1.6
    assert np.allclose(face.project(np.array([0.1, -0.2, 1.6])), [0.7, 0.1])
    # Half the image spans half the field of view, 8.9 degrees.
    edge = 2.0 * np.tan(np.radians(17.76 / 2))
    assert face.project(np.array([edge, 0, 2.0]))[0] == pytest.approx(1, abs=1e-3)


def test_looking_to_the_side_turns_the_nose(model):
    """Positive yaw: scipy's y axis points down, so the nose, at -z, goes to the image's left."""
    zero = np.zeros(model.B_id.shape[-1]), np.zeros(model.B_exp.shape[-1])
    L = torch.tensor(model.landmarks(*zero), dtype=torch.float64)
    for angle, axis, sign in ((1, 0, -1), (0, 1, 1)):
        h = torch.zeros(6, dtype=torch.float64)
        h[5], h[angle] = 1.4, 0.3
        moved = face.project(face.pose(h, L))[30] - face.project(L + torch.tensor([0, 0, 1.4]))[30]
        assert sign * moved[axis] > 0.02
