"""Views from turned cameras and their depth, against the meshes and against one another."""

import numpy as np
import pytest

from dfa import captures, studio
from dfa.media import InputError, read_levels
from dfa.method.face import FOCAL

pytest.importorskip("pyvista")
from dfa.studio import motion, render, stage, views  # noqa: E402

NAME = "subject_b"


def project(X: np.ndarray) -> np.ndarray:
    """(n, 2) pixels, fractional, of points (n, 3) in a camera's coordinates."""
    return (0.5 + FOCAL * X[:, :2] / X[:, 2:]) * 256 - 0.5


def lift(depth: np.ndarray) -> np.ndarray:
    """(n, 3) points of a depth map (256, 256), in its camera's coordinates."""
    rows, columns = np.nonzero(depth)
    z = depth[rows, columns].astype(float)
    uv = (np.stack([columns, rows], 1) + 0.5) / 256 - 0.5
    return np.column_stack([uv * z[:, None] / FOCAL, z])


def at(image: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    column, row = np.round(pixels).astype(int).T
    return image[row, column]


def inside(pixels: np.ndarray) -> np.ndarray:
    return ((pixels > -0.5) & (pixels < 255.5)).all(1)


# ---------------------------------------------------------------------------------- the cameras


def test_cameras_turn_about_the_head_by_known_angles():
    R, t = views.cameras()
    assert len(set(views.TURNS)) == 9 and views.TURNS[0] == (0, 0)
    np.testing.assert_allclose(R @ views.CENTRE + t, np.tile(views.CENTRE, (9, 1)), atol=1e-12)
    np.testing.assert_allclose(R[0], np.eye(3))
    for turn, matrix in zip(views.TURNS, R, strict=True):
        angle = np.degrees(np.arccos((np.trace(matrix) - 1) / 2))
        assert angle == pytest.approx(max(np.abs(turn)), abs=1e-6)
    h = np.array([[0, np.radians(5), 0, 0, 0, 1.4]])
    turned = R[views.TURNS.index((10, 0))] @ motion.rotations(h)[0]
    np.testing.assert_allclose(turned, motion.rotations(np.radians([[0, 15, 0]]))[0])


def test_instants_are_spread_evenly_over_the_take():
    frames = views.instants(1500)
    assert len(frames) == 12 and frames[0] == 62 and frames[-1] == 1437
    assert (np.diff(frames) == 125).all()


def test_who_has_no_views_is_said_in_one_line(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="no views of 'corpus_01': choose one of subject_a"):
        captures.views("corpus_01")
    monkeypatch.setattr(captures, "FOLDER", tmp_path)
    (tmp_path / f"{NAME}.mp4").touch()
    with pytest.raises(InputError, match=f"{NAME}_views.npz is missing: it comes with"):
        captures.views(NAME)


def test_levels_come_back_exactly_and_have_the_same_bytes_again(tmp_path):
    images = np.random.default_rng(0).integers(0, 2**16, (5, 48, 64), dtype=np.uint16)
    images[0, 0, :2] = 0, 65535
    for name in ("a.mkv", "b.mkv"):
        views.write_levels(tmp_path / name, images)
    assert np.array_equal(read_levels(tmp_path / "a.mkv"), images)
    assert (tmp_path / "a.mkv").read_bytes() == (tmp_path / "b.mkv").read_bytes()


# ------------------------------------------------------------------------------------- rendered


@pytest.fixture(scope="module")
def shot(film, take) -> dict[str, np.ndarray]:
    return views.shoot(film, take)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_depth_at_points_of_the_face_is_their_distance(film, take, shot):
    frame = shot["frame"][5]
    film.at(take, frame)
    X = film.skin_mesh.points.astype(float)
    n = stage.unit(film.skin_facing(film.skin_mesh.points).astype(float))
    R_h = motion.rotations(take.h[frame : frame + 1])[0]
    local = (X - take.h[frame, 3:]) @ R_h
    face = (np.abs(local[:, 0]) < 0.045) & (local[:, 1] > -0.02) & (local[:, 1] < 0.10)
    tip = local[:, 2].argmin()  # of the nose
    assert np.abs(local[tip, 0]) < 0.005
    for i in np.flatnonzero(shot["frame"] == frame):
        seen, facing = X @ shot["R"][i].T + shot["t"][i], n @ shot["R"][i].T
        towards = -(facing * stage.unit(seen)).sum(1)
        clear = face & (towards > 0.8) & (local[:, 2] < 0.02)
        error = np.abs(at(shot["depth"][i], project(seen[clear])) - seen[clear, 2])
        assert clear.sum() > 1500 and np.quantile(error, 0.98) < 0.002
        if towards[tip] > 0.5:
            assert abs(at(shot["depth"][i], project(seen[[tip]]))[0] - seen[tip, 2]) < 0.002


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_depth_is_taken_in_the_middle_of_a_pixel(film, take):
    film.at(take, 100)
    got = film.depth()
    film.backdrop.actor.VisibilityOff()
    stage.aim(film.plotter)
    quarters = stage.depth(film.plotter).reshape(256, 2, 256, 2)  # of each pixel
    film.backdrop.actor.VisibilityOn()
    mean, spread = quarters.mean((1, 3)), np.ptp(quarters, axis=(1, 3))
    slope = (spread > 3e-4) & (spread < 1e-3) & (quarters.min((1, 3)) > 0)
    assert slope.sum() > 3000
    assert np.median(np.abs(got - mean)[slope]) < 2e-5


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_depth_of_one_view_agrees_with_another():
    shot = captures.views(NAME)  # as they are shipped
    for frame in shot["frame"][:12:4]:
        chosen = np.flatnonzero(shot["frame"] == frame)
        for i in chosen:
            X = (lift(shot["depth"][i]) - shot["t"][i]) @ shot["R"][i]  # the resting camera's
            for j in chosen:
                seen = X @ shot["R"][j].T + shot["t"][j]
                pixels = project(seen)
                seen, pixels = seen[inside(pixels)], pixels[inside(pixels)]
                error = seen[:, 2] - at(shot["depth"][j], pixels)
                visible = np.abs(error) < 0.01
                assert visible.mean() > 0.6 and np.median(np.abs(error[visible])) < 0.001
                # Nothing is in front of what the other camera sees, but for edges.
                assert (error < -0.01).mean() < 0.03


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_frontal_view_is_the_films_own_frame_and_the_others_are_not(film, take, shot):
    frames = shot["frame"][:12]
    assert (shot["turn"][:12] == 0).all() and len(shot["pictures"]) == 9 * 12
    for i in (0, 7):
        assert np.array_equal(shot["pictures"][i], film.shoot(take, frames[i]))
    a, b = (shot["pictures"][i].astype(float) for i in (0, 12))
    assert np.abs(a - b).mean() > 5


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_files_hold_what_was_shot(film, take, shot, tmp_path, monkeypatch):
    monkeypatch.setattr(captures, "FOLDER", tmp_path)
    (tmp_path / f"{NAME}.mp4").touch()
    views.write(NAME, film, take, tmp_path)
    assert sum(f.stat().st_size for f in tmp_path.glob("*_views.*")) < 1.5e6
    read = captures.views(NAME)
    assert set(read) == set(shot)
    assert read["depth"].dtype == np.float32
    np.testing.assert_allclose(read["depth"], shot["depth"], atol=captures.DEPTH_UNIT / 2 + 1e-6)
    for key in set(read) - {"depth", "pictures"}:
        assert np.array_equal(read[key], shot[key]) and read[key].dtype == shot[key].dtype
    error = np.mean((read["pictures"].astype(float) - shot["pictures"]) ** 2, axis=(1, 2, 3))
    assert (10 * np.log10(255**2 / error)).min() > 33


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_whole_capture_brings_its_views(film, tmp_path, monkeypatch):
    written = []
    for length in ("TEST_SECONDS", "SECOND_SECONDS"):
        monkeypatch.setattr(studio, length, 2)
    monkeypatch.setattr(render, "Film", lambda _: film)
    monkeypatch.setattr(film, "close", lambda: None)
    monkeypatch.setattr(views, "write", lambda name, *_: written.append(name))
    studio.make([NAME], tmp_path, seconds=1, progress=False)
    assert not written
    studio.make([NAME], tmp_path, progress=False)
    assert written == [NAME]
