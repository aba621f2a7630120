"""The model of the tracker: it finds what made the data, and the captures' truth agrees with it."""

import numpy as np
import pytest

from dfa.method.face import FaceModel, in_image
from dfa.studio import tracker_model
from dfa.studio.tracker_model import Take, TrackerModel, filmed

K, T = 40, 4000


@pytest.fixture(scope="module")
def planted():
    """Takes of two actors by a known map, offsets, biases and AR(1) noise; and these."""
    rng = np.random.default_rng(0)
    maps = rng.normal(size=(1, 52, K)) + 0.3 * rng.normal(size=(2, 52, K))
    offsets, biases = rng.normal(size=(2, K)), 0.05 * rng.normal(size=(2, 6))
    mixing = 0.02 * rng.normal(size=(6 + K, 6 + K))
    memory = np.linspace(0.3, 0.9, 6 + K)
    takes = []
    for k in range(2):
        actions, h = rng.uniform(0, 1, (T, 52)), 0.1 * rng.normal(size=(T, 6))
        u = rng.normal(size=(T, 6 + K))
        u[1:] *= np.sqrt(1 - memory**2)
        for t in range(1, T):
            u[t] += memory * u[t - 1]
        e = u @ mixing
        takes.append(
            Take(actions, h, offsets[k] + actions @ maps[k] + e[:, 6:], h + biases[k] + e[:, :6])
        )
    inverse = np.linalg.inv(mixing)
    return takes, maps, offsets, biases, mixing.T @ mixing, inverse @ np.diag(memory) @ mixing


def test_planted_map_bias_and_noise_are_found(planted):
    takes, maps, offsets, biases, spread, memory = planted
    model = TrackerModel.fit(takes)
    assert np.abs(model.maps - maps).max() < 0.1 < np.abs(maps[0] - maps[1]).max()
    assert np.allclose(model.offsets, offsets, atol=0.3)
    assert np.allclose(model.biases, biases, atol=0.02)
    scale = np.sqrt(np.outer(spread.diagonal(), spread.diagonal()))
    assert np.abs((model.spread - spread) / scale).max() < 0.15
    # what counts of the memory: how it carries the errors to the next frame
    assert np.abs(model.spread @ model.memory - spread @ memory).max() / scale.max() < 0.1


def test_what_it_makes_has_the_covariance_that_was_planted(planted):
    takes, maps, offsets, biases, spread, memory = planted
    model = TrackerModel.fit(takes)
    rng = np.random.default_rng(1)
    h, F_exp = model.track(takes[0].actions, takes[0].h, np.array([1.0, 0.0]), rng)
    made = np.concatenate(
        [h - takes[0].h - biases[0], F_exp - offsets[0] - takes[0].actions @ maps[0]], axis=1
    )
    scale = np.sqrt(np.outer(spread.diagonal(), spread.diagonal()))
    assert np.abs((made.T @ made / T - spread) / scale).max() < 0.2
    lag_1 = made[:-1].T @ made[1:] / T
    assert np.abs((lag_1 - spread @ memory) / scale).max() < 0.2


def test_attributes_are_as_of_the_tracker(planted):
    model = TrackerModel.fit(planted[0])
    take, rng = planted[0][0], np.random.default_rng(0)
    h = take.h[:30] + [0, 0, 0, 0, 0, 1.4]
    a = model.attributes(take.actions[:30], h, np.array([0.4, 0.6]), rng)
    face = FaceModel.load()
    assert len(a) == 30 and not a.lost.any()
    assert np.allclose(a.landmarks, face.landmarks(0 * a.F_id, a.F_exp), atol=1e-5)
    assert np.allclose(a.points, in_image(a.h, face.landmarks(a.F_id, a.F_exp)), atol=1e-4)


def test_a_camera_that_zooms_moves_the_head():
    """Points in the picture: by the true camera, and of the apparent pose by one at rest."""
    rng = np.random.default_rng(0)
    h = rng.normal(size=(5, 6)) * 0.05 + [0, 0, 0, 0, 0, 1.4]
    camera = np.column_stack([rng.uniform(1, 1.25, 5), rng.uniform(-0.02, 0.02, (5, 2))])
    origin = np.zeros((5, 1, 3), np.float32)
    seen = 0.5 + camera[:, None, :1] * (in_image(h, origin) - 0.5) + camera[:, None, 1:]
    assert np.allclose(in_image(filmed(h, camera), origin), seen, atol=1e-5)
    assert np.allclose(filmed(h, np.array([[1.0, 0, 0]])), h)  # at rest


@pytest.mark.long
def test_the_captures_are_explained(tracks):
    """Three actors of whom the first 8 s are tracked: each from the other two."""
    names, runs = tracks
    shares = tracker_model.explained([tracker_model.take(name, runs) for name in names])
    assert shares["mouth opening"] > 0.8  # twelve whole captures give 0.96
    assert shares["lid opening"] > 0.7 and shares["F_exp"] > 0.3
