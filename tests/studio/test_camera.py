"""Zoom, exposure, marks, late sound and late hair, against the formulas that they follow."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from dfa import captures, studio
from dfa.media import FPS, SAMPLES_PER_FRAME
from dfa.method.face import FOCAL

pytest.importorskip("pyvista")
from dfa.studio import actors, camera, hair, motion, shaders, speech, stage  # noqa: E402

LOOKS = {name: look.get("camera", {}) for name, look in actors.parameters().items()}


def plan(name: str, seed: int = 0, T: int = 750) -> camera.Shot:
    return camera.plan(name, LOOKS[name], T, seed)


# ------------------------------------------------------------------------------------ the plan


def test_the_faults_are_where_the_data_sheet_says():
    assert {name: set(look) for name, look in LOOKS.items() if look} == {
        "corpus_06": {"zoom", "pan", "logo", "caption"},
        "corpus_08": {"exposure"},
        "corpus_10": {"sound_late"},
    }
    assert plan("corpus_10").sound_late == 2


def test_zoom_and_exposure_reach_their_limits_slowly_and_again_with_the_same_seed():
    shot = plan("corpus_06")
    assert shot.camera[:, 0].min() == 1 and shot.camera[:, 0].max() == pytest.approx(1.25)
    assert np.abs(np.diff(shot.camera[:, 0])).max() < 0.01
    assert np.abs(shot.camera[:, 1:]).max() == pytest.approx(0.02)
    stops = plan("corpus_08").exposure
    assert stops.min() == pytest.approx(-0.35) and stops.max() == pytest.approx(0.35)
    assert np.abs(np.diff(stops)).max() < 0.03
    assert np.array_equal(shot.camera, plan("corpus_06").camera)
    assert np.abs(shot.camera - plan("corpus_06", seed=1).camera).max() > 0.05


def test_a_camera_without_faults_is_at_rest():
    shot = plan("subject_a")
    assert (shot.camera == [1, 0, 0]).all() and not shot.exposure.any()
    assert shot.sound_late == 0 and shot.marks is None


# ------------------------------------------------------------------------------------ the lens


@pytest.mark.usefixtures("studio")
@pytest.mark.parametrize("zoom, shift, turn", [
    (1, (0, 0), 0), (1.25, (0.02, -0.03), 0), (1, (0, 0), 25), (1.1, (-0.05, 0.04), -25),
])  # fmt: skip
def test_the_camera_sees_points_where_the_formula_says(zoom, shift, turn):
    plotter = stage.camera_plotter(256)
    corners = np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]]) * 0.004
    mesh = stage.place(plotter, np.array([[0, 1, 2], [0, 2, 3]]), 4)
    plotter.show(auto_close=False)
    plotter.camera.clipping_range = (0.4, 4.0)
    R = motion.rotations(np.radians([[0.3 * turn, turn, 0]]))[0]
    t = np.array([0.02, 0.01, 1.3]) - R @ [0, 0, 1.3]
    for point in np.array([[0, 0, 1.3], [0.07, -0.05, 1.4], [-0.06, 0.09, 1.2]]):
        stage.update(mesh, point + corners)  # black before white
        stage.aim(plotter, zoom, shift, R, t)
        rows, columns = np.nonzero(stage.picture(plotter)[..., 0] < 128)
        x, y, z = R @ point + t
        seen = (np.array([columns.mean(), rows.mean()]) + 0.5) / 256
        assert seen == pytest.approx(0.5 + zoom * FOCAL * np.array([x, y]) / z + shift, abs=0.003)
    plotter.close()


@pytest.mark.usefixtures("studio")
def test_depth_is_along_the_axis_of_the_camera_and_zero_where_nothing_is():
    plotter = stage.camera_plotter(64)
    # A plane z = 1.3 + 0.5 x, in the left half of the picture.
    corners = np.array([[-1, -1, 0.8], [0, -1, 1.3], [0, 1, 1.3], [-1, 1, 0.8]])
    mesh = stage.place(plotter, np.array([[0, 1, 2], [0, 2, 3]]), 4)
    stage.update(mesh, corners)
    plotter.show(auto_close=False)
    plotter.camera.clipping_range = (0.4, 4.0)
    stage.aim(plotter)
    depth = stage.depth(plotter)
    slope = ((np.arange(32) + 0.5) / 64 - 0.5) / FOCAL  # x / z
    np.testing.assert_allclose(depth[:, :32], np.tile(1.3 / (1 - 0.5 * slope), (64, 1)), atol=1e-5)
    assert not depth[:, 32:].any()
    plotter.close()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_zoom_enlarges_actor_and_room_alike(film, take):
    plain = film.shoot(take, 40)
    T = len(take.h)
    track = np.tile([1.2, 0.03, -0.02], (T, 1))
    got = film.shoot(take, 40, camera.Shot(track, np.zeros(T)))
    move = np.array(
        [[1.2, 0, 128 * (1 - 1.2) + 0.03 * 256], [0, 1.2, 128 * (1 - 1.2) - 0.02 * 256]]
    )
    move[:, 2] += 0.1  # pixel centres: (x + 0.5) - 0.5
    want = cv2.warpAffine(plain, move, (256, 256), flags=cv2.INTER_CUBIC)
    error = np.mean((got.astype(float) - want) ** 2)
    assert 10 * np.log10(255**2 / error) > 27


# ------------------------------------------------------------------------------------ exposure


def test_the_tone_curve_has_an_inverse():
    light = np.linspace(0, 2, 100)
    np.testing.assert_allclose(shaders.unshown(shaders.shown(light)), light, atol=1e-6)
    assert shaders.shown(np.array(0.4)) == pytest.approx(0.4 ** (1 / 2.2))


def test_exposure_multiplies_the_light():
    image = np.tile(np.arange(256, dtype=np.uint8)[:, None, None], (1, 2, 3))
    np.testing.assert_allclose(camera.expose(image, 0), image, atol=0.15)
    brighter = camera.expose(image, 0.35)
    assert brighter.dtype == np.float32 and brighter.max() <= 255
    light = lambda x: (x / 255) ** 2.2  # noqa: E731
    dark = image[:120].astype(float)  # below the shoulder
    np.testing.assert_allclose(light(brighter[:120]), 2**0.35 * light(dark), atol=1e-4)
    assert (np.diff(brighter[:, 0, 0]) > 0).all()  # the shoulder holds what is bright


# ------------------------------------------------------------------------------- marks, sound


def test_marks_lie_in_the_corner_and_the_lower_third_and_nowhere_else():
    marks = plan("corpus_06").marks
    assert marks.shape == (256, 256, 4) and marks[..., 3].min() == 0 and marks[..., 3].max() <= 1
    rows, columns = np.nonzero(marks[..., 3] > 0.01)
    logo = rows < 128
    assert columns[logo].min() > 210 and rows[logo].max() < 32
    assert rows[~logo].min() > 205
    grey = np.full((256, 256, 3), 90, np.uint8)
    one, two = camera.stamp(grey, marks), camera.stamp(grey + 60, marks)
    free = marks[..., 3] == 0
    assert (one[free] == 90).all() and (two[free] == 150).all()
    solid = marks[..., 3] > 0.999
    assert solid.sum() > 500
    np.testing.assert_allclose(one[solid].astype(int), two[solid], atol=1)
    assert camera.stamp(grey, None) is grey


def test_late_sound_is_silent_first_and_as_long():
    audio = np.arange(1, 6401, dtype=np.float32)
    late = camera.delayed(audio, 2)
    assert len(late) == len(audio) and late.dtype == np.float32
    assert not late[: 2 * SAMPLES_PER_FRAME].any()
    assert np.array_equal(late[2 * SAMPLES_PER_FRAME :], audio[: -2 * SAMPLES_PER_FRAME])
    assert np.array_equal(camera.delayed(audio, 0), audio)


def test_the_truth_tells_what_the_camera_did_in_the_times_of_the_files_sound(monkeypatch):
    names = tuple(captures.truth("subject_a")["action_names"])
    monkeypatch.setattr(actors, "template", lambda: SimpleNamespace(actions=names))
    T = 50
    phones = [(0.5, 0.6, "a"), (1.85, 1.95, "b"), (1.95, 2.0, "a")]
    said = speech.Speech(np.zeros(T * SAMPLES_PER_FRAME, np.float32), phones)
    said = SimpleNamespace(
        audio=said.audio, phones=phones, sentences=[(0.5, 0.6, "Ah!"), (1.85, 2.0, "Bah.")]
    )
    h, torso = np.random.default_rng(0).normal(size=(2, T, 6))
    take = motion.Performance(
        np.zeros((T, 52)), h, torso, np.zeros((T, 2)), np.zeros(T), np.zeros(0), said
    )
    shot = camera.plan("x", {"zoom": [1, 1.2], "exposure": 0.3, "sound_late": 2}, T)
    truth = studio.truth(take, 48, shot)
    np.testing.assert_allclose(truth["torso"], torso[:48], atol=6e-5)
    assert truth["camera"].shape == (48, 3) and truth["camera"].dtype == np.float32
    np.testing.assert_allclose(truth["camera"], shot.camera[:48], atol=1e-6)
    np.testing.assert_allclose(truth["exposure"], shot.exposure[:48], atol=3e-4)
    assert truth["sound_late"].shape == () and truth["sound_late"] == 2
    np.testing.assert_allclose(truth["phonemes"], [[0.5 + 2 / FPS, 0.6 + 2 / FPS]])
    assert truth["transcripts"].tolist() == ["ah"]


# ---------------------------------------------------------------------------------------- hair


def test_the_ends_of_the_hair_are_behind_and_do_not_swing_past():
    step = np.zeros((50, 6))
    step[10:] = 1
    late = hair.behind(step)
    assert not late[:10].any() and late.max() <= 1 and (np.diff(late, axis=0) >= -1e-12).all()
    ramp = np.outer(np.arange(100) / FPS, np.arange(6))
    gap = ramp - hair.behind(ramp)
    # At a constant speed v they are v SWING behind.
    np.testing.assert_allclose(gap[-1, 1:] / np.arange(1, 6), hair.SWING, rtol=1e-6)
    still = np.tile(np.arange(6.0), (20, 1))
    np.testing.assert_allclose(hair.behind(still), still)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_only_hair_below_the_eyes_is_late_and_a_frame_does_not_depend_on_the_one_before(film, take):
    t = int(np.abs(np.diff(take.h[:, 1])).argmax())  # the fastest turn
    first = film.shoot(take, t)
    swung = [mesh.points.copy() for _, mesh in film.hair]
    film.shoot(take, 0)
    assert np.array_equal(film.shoot(take, t), first)
    film.frame(take.actions[t], take.h[t], take.torso[t], take.gaze[t])
    moved = [
        np.linalg.norm(a - m.points, axis=1) for a, (_, m) in zip(swung, film.hair, strict=True)
    ]
    assert moved[0].max() < 1e-6  # the scalp
    assert 0.002 < max(m.max() for m in moved) < 0.02
