"""How the bases and correspondences of eq. 1 are made, against scikit-learn and planted answers."""

import numpy as np
import pytest
from sklearn.decomposition import TruncatedSVD

from dfa.method.face import FILE, FaceModel

pytest.importorskip("anny")
pytest.importorskip("pyvista")
from dfa.studio import face_model  # noqa: E402


def test_a_basis_is_the_principal_subspace_in_units_of_a_standard_deviation():
    rng = np.random.default_rng(0)
    X = np.tensordot(
        rng.normal(size=(60, 9)) * 2.0 ** -np.arange(9), rng.normal(size=(9, 20, 3)), 1
    )
    B, share = face_model.basis(X, np.ones(20), 4)
    svd = TruncatedSVD(4, algorithm="arpack").fit(X.reshape(60, -1))
    flat = B.reshape(-1, 4)
    rest = flat - svd.components_.T @ (svd.components_ @ flat)
    assert np.abs(rest).max() < 1e-9 * np.abs(flat).max()
    F = np.linalg.lstsq(flat, X.reshape(60, -1).T, rcond=None)[0]  # (4, 60) coefficients
    np.testing.assert_allclose((F**2).mean(1), 1, rtol=1e-9)
    energy = ((svd.components_ @ X.reshape(60, -1).T) ** 2).sum() / (X**2).sum()
    assert share == pytest.approx(energy)


def test_what_is_weighted_more_is_kept_better():
    rng = np.random.default_rng(1)
    X, weight = rng.normal(size=(80, 10, 3)), np.r_[np.full(5, 6.0), np.ones(5)]
    columns = X.reshape(80, -1).T

    def left(B: np.ndarray) -> np.ndarray:
        flat = B.reshape(30, -1)
        rest = columns - flat @ np.linalg.lstsq(flat, columns, rcond=None)[0]
        return (rest.reshape(10, 3, 80) ** 2).mean((1, 2))

    assert (
        left(face_model.basis(X, weight, 8)[0])[:5].mean()
        < 0.9 * left(face_model.basis(X, np.ones(10), 8)[0])[:5].mean()
    )


def test_correspondences_find_planted_places_and_how_they_slide():
    rng = np.random.default_rng(2)
    k = np.arange(49).reshape(7, 7)  # a sheet of 7 x 7 vertices, 1 cm apart
    used = np.sort(rng.choice(500, 49, replace=False))
    a, b, c, d = k[:-1, :-1], k[:-1, 1:], k[1:, 1:], k[1:, :-1]
    local = np.concatenate([np.stack([a, b, c], -1), np.stack([a, c, d], -1)]).reshape(-1, 3)
    N, metres = 200, 0.4
    turns = rng.normal(0, 0.15, (N, 3))
    sheet = np.stack(np.meshgrid(np.arange(7), np.arange(7)), -1).reshape(-1, 2) * 0.01 / metres
    projected = sheet + rng.normal(0, 0.05, (N, 1, 2))
    tri = rng.integers(len(local), size=468)
    weights = np.array([0.5, 0.25, 0.25])
    place = np.einsum("k,npkd->npd", weights, projected[:, local[tri]])
    slide = rng.normal(0, 0.005, (468, 2, 2))  # metres per radian of pitch, yaw
    moved = np.einsum("pij,nj->npi", slide, turns[:, :2]) / metres
    cos, sin = np.cos(turns[:, 2]), np.sin(turns[:, 2])
    roll = np.stack([np.stack([cos, -sin], -1), np.stack([sin, cos], -1)], -2)
    seen = place + np.einsum("nij,npj->npi", roll, moved)
    sightings = face_model.Sightings(seen, projected, np.full((N, 1), metres), turns)
    found = face_model.correspondences(sightings, used, used[local])
    at = np.searchsorted(used, found["mp_vertices"].astype(int))
    there = np.einsum("pk,pkd->pd", found["mp_weights"], sheet[at]) * metres
    planted = np.einsum("k,pkd->pd", weights, sheet[local[tri]]) * metres
    assert np.linalg.norm(there - planted, axis=1).max() < 1e-3
    np.testing.assert_allclose(found["mp_slide"], slide, atol=1e-3)


def test_the_shipped_bases_explain_most_of_what_they_were_made_of():
    with np.load(FILE) as data:
        identity, expression = data["explained"]
    assert identity > 0.9 and expression > 0.98
    model = FaceModel.load()
    assert model.B_id.shape[-1] == face_model.K_ID and model.B_exp.shape[-1] == face_model.K_EXP
    assert np.median(model.mp_sigma) < 0.003
