"""The tracker against faces whose pose, expression and blinks are known."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dfa import captures
from dfa.datasets.tracks import tracked
from dfa.media import InputError, frames_of, iter_frames, read_audio, write_video
from dfa.method import face, tracking
from dfa.method.face import FOCAL, MP_68, FaceModel
from dfa.recording import Attributes

CAPTURE = captures.path("subject_a")


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    """The first 8 s of a capture."""
    return np.stack([f for f, _ in zip(iter_frames(CAPTURE), range(200), strict=False)])


@pytest.fixture(scope="module")
def truth() -> dict[str, np.ndarray]:
    with np.load(CAPTURE.with_suffix(".npz"), allow_pickle=False) as data:
        return {k: data[k] for k in data.files}


def synthetic(n: int = 24, noise: float = 0.0) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """What mediapipe would say of a face of the model: (n, 478, 3) points, and the truth."""
    rng = np.random.default_rng(3)
    model = FaceModel.load()
    F_id = rng.normal(0, 0.3, model.B_id.shape[-1])
    F_exp = rng.normal(0, 0.3, (n, model.B_exp.shape[-1]))
    h = rng.normal(0, [0.15, 0.25, 0.1, 0.02, 0.02, 0.05], (n, 6)) + [0, 0, 0, 0, 0, 1.4]
    seen = np.full((n, 478, 3), 0.5)
    for t in range(n):
        S = model.vertices(F_id, F_exp[t])
        X = np.einsum("pk,pkd->pd", model.mp_weights, S[model.mp_vertices])
        X[:, :2] += model.mp_slide[..., 0] * h[t, 0] + model.mp_slide[..., 1] * h[t, 1]
        X = Rotation.from_euler("xyz", h[t, :3]).apply(X) + h[t, 3:]
        seen[t, :468, :2] = 0.5 + FOCAL * X[:, :2] / X[:, 2:]
        seen[t, :468, 2] = 1.3 * FOCAL * (X[:, 2] - h[t, 5]) / h[t, 5]  # over-read, as it does
    seen[:, :468, :2] += rng.normal(0, noise, (n, 468, 2))
    return seen, {"h": h, "F_exp": F_exp, "F_id": F_id}


@pytest.mark.parametrize("noise, degrees, mm", [(0.0, 0.3, 0.8), (0.002, 0.6, 1.0)])
def test_the_fit_recovers_a_face_of_the_model(noise, degrees, mm):
    seen, true = synthetic(noise=noise)
    fit = tracking.Fit()
    h, F_exp = fit.frames(seen, true["F_id"])
    between = (
        Rotation.from_euler("xyz", h[:, :3]) * Rotation.from_euler("xyz", true["h"][:, :3]).inv()
    )
    assert np.degrees(between.magnitude()).mean() < degrees
    assert np.abs(h[:, 3:5] - true["h"][:, 3:5]).mean() < 1e-3
    assert np.abs(h[:, 5] - true["h"][:, 5]).mean() < 8e-3
    zero = 0 * true["F_id"]
    off = fit.model.landmarks(zero, F_exp) - fit.model.landmarks(zero, true["F_exp"])
    assert np.linalg.norm(off, axis=-1).mean() < mm * 1e-3


def test_the_fit_finds_the_identity(monkeypatch):
    """From clean points and next to no prior, the joint solution is the person, size and all."""
    monkeypatch.setattr(tracking, "REPEATED", 1e-3)
    monkeypatch.setattr(tracking, "CORRELATED", 1e-3)
    seen, true = synthetic(48)
    fit = tracking.Fit()
    F_id = fit.identity(seen, iterations=20)
    shape, found = (fit.mean + fit.B_id @ F for F in (true["F_id"], F_id))
    assert np.linalg.norm(found - shape) < 0.1 * np.linalg.norm(fit.mean - shape)


def test_the_prior_decides_the_size():
    """One camera cannot tell a small head from a far one: then the mean head is the answer, and
    what is seen, the shape but for its size, is found."""
    seen, true = synthetic(64)
    fit = tracking.Fit()
    truth, found = (fit.mean + fit.B_id @ F for F in (true["F_id"], fit.identity(seen)))

    def form(x: np.ndarray) -> np.ndarray:
        x = x[:, :2] - x[:, :2].mean(0)
        return x / np.linalg.norm(x)

    error, before = (np.linalg.norm(form(x) - form(truth)) for x in (found, fit.mean))
    assert error < 0.6 * before


def test_derivatives_are_differences():
    seen, true = synthetic(3)
    fit, rng = tracking.Fit(), np.random.default_rng(0)
    R, t = fit.start(seen)
    args = [R, t, true["F_exp"], true["F_id"]]
    r, J, J_id = fit.system(seen, *args, with_id=True)
    w, e = FOCAL / t[:, 2:], 1e-5
    # The weights depend on the depth and count as constant: take them out of the differences.
    weight = 1 / np.sqrt((fit.model.mp_sigma * w) ** 2 + tracking.POINT_NOISE**2)
    d = rng.normal(size=(3, 6 + fit.k_exp)) * e
    d_id = rng.normal(size=fit.k_id) * e
    ahead, _, _ = fit.system(seen, *fit.step(*args[:3], d), args[3] + d_id)
    t_ahead = t + d[:, 3:6]
    weight_ahead = 1 / np.sqrt(
        (fit.model.mp_sigma * FOCAL / t_ahead[:, 2:]) ** 2 + tracking.POINT_NOISE**2
    )
    ahead = ahead * np.repeat(weight / weight_ahead, 2, axis=1)
    expected = (J @ d[..., None])[..., 0] + J_id @ d_id
    assert np.linalg.norm(ahead - r - expected) < 0.03 * np.linalg.norm(ahead - r)


def test_eye_aspect_ratio_by_hand():
    points = np.zeros((68, 2))
    for eye in (face.RIGHT_EYE, face.LEFT_EYE):  # 30 wide, 9 high on the inner half
        points[eye] = [(0, 0), (10, -4), (20, -5), (30, 0), (20, 4), (10, 4)]
    assert tracking.eye_aspect_ratio(points) == pytest.approx((8 + 9) / (2 * 30))
    assert tracking.eye_aspect_ratio(np.stack([points, points * 3])).shape == (2,)


def test_attributes_survive_a_file(tmp_path):
    values = {
        name: np.arange(4.0)
        for name in ("h", "h_raw", "F_exp", "F_id", "landmarks", "points", "ear")
    }
    a = Attributes(**values, lost=np.arange(4) > 2, crop=np.array([1, 2, 3]))
    a.save(tmp_path / "a.npz")
    b = Attributes.load(tmp_path / "a.npz")
    for name, value in vars(a).items():
        assert np.array_equal(getattr(b, name), value)
    (tmp_path / "text.npz").write_text("no")
    np.savez(tmp_path / "other.npz", x=1)
    np.savez(tmp_path / "pickle.npz", h=np.array([{}], dtype=object))
    for name in ("text", "other", "pickle", "missing"):
        with pytest.raises(InputError):
            Attributes.load(tmp_path / f"{name}.npz")
    with pytest.raises(InputError):
        a.save(tmp_path / "no" / "a.npz")


# ------------------------------------------------------------------------- with mediapipe


def test_points_of_frames(frames):
    strip = frames[:6].copy()
    strip[2] = 128
    points, ear = tracking.face_points(strip)
    assert points.shape == (6, 68, 2) and ear.shape == (6,)
    assert np.isnan(points[2]).all() and np.isnan(ear[2])
    seen = np.delete(points, 2, axis=0)
    assert (seen > 0.1).all() and (seen < 0.9).all()
    assert (np.delete(ear, 2) > 0.15).all()
    half = tracking.face_points(strip[:2, ::2, ::2])[0]  # 128 x 128: same places
    assert np.abs(half - points[:2]).max() < 0.02


def widened(frames: np.ndarray) -> np.ndarray:
    """The face a little left of the middle of a wide picture."""
    wide = np.full((len(frames), 256, 448, 3), 90, np.uint8)
    wide[:, :, 64:320] = frames
    return wide


def test_track_a_wide_video_that_loses_the_face(tmp_path, frames, capfd):
    wide = widened(frames[:75])
    wide[30:36] = 90  # 0.24 s
    write_video(tmp_path / "a.mp4", wide)
    a = tracking.track(tmp_path / "a.mp4", progress=False)
    out, err = capfd.readouterr()
    assert out == "" and err == "", "mediapipe and its parts are quiet"
    assert a.h.shape == (75, 6) and a.landmarks.shape == (75, 68, 3) and len(a) == 75
    assert all(np.isfinite(v).all() for v in vars(a).values())
    assert a.lost[30:36].all() and a.lost.sum() <= 8
    between = np.interp(np.arange(30, 36), [29, 36], a.points[[29, 36], 30, 0])
    assert np.allclose(a.points[30:36, 30, 0], between, atol=2e-3)
    x0, y0, side = a.crop
    assert 0 <= x0 and x0 + side <= 448 and 0 <= y0 and y0 + side <= 256 and side > 200
    # The picture is the same face's: its points, in pixels of the source, where they were.
    alone = tracking.face_points(frames[:3])[0] * 256 + [64, 0]
    assert np.abs(a.points[:3] * side + [x0, y0] - alone).mean() < 1.5
    assert frames_of(tmp_path / "a.mp4", a.crop, 64).shape == (75, 64, 64, 3)
    # The same file gives the same numbers.
    b = tracking.track(tmp_path / "a.mp4", progress=False)
    assert np.array_equal(a.h, b.h) and np.array_equal(a.landmarks, b.landmarks)


def test_videos_that_cannot_be_tracked(tmp_path, frames):
    some = frames[:75]
    gap = some.copy()
    gap[20:45] = 90
    for name, film, says in [
        ("empty", np.full((75, 128, 128, 3), 90, np.uint8), "no face"),
        ("short", some[:30], "1.2 s"),
        ("pair", np.concatenate([some, some[:, :, ::-1]], 2), "two faces"),
        ("gap", gap, "no face at 0.8-1.8 s"),
    ]:
        write_video(tmp_path / f"{name}.mp4", film)
        with pytest.raises(InputError) as error:
            tracking.track(tmp_path / f"{name}.mp4", progress=False)
        assert says in str(error.value) and "\n" not in str(error.value), name


def test_track_agrees_with_the_truth(tmp_path, frames, truth):
    """8 s of a capture, whose head pose, actions and blinks are known."""
    write_video(tmp_path / "a.mp4", frames)
    a = tracking.track(tmp_path / "a.mp4", progress=False)
    n = len(frames)
    assert len(a) == n and not a.lost.any() and list(a.crop) == [0, 0, 256]
    true = truth["h"][:n].astype(float)
    found, known = (Rotation.from_euler("xyz", x[:, :3]) for x in (a.h, true))
    offset = (known.inv() * found).mean()  # what "straight ahead" is for this person
    error = np.degrees((found * offset.inv() * known.inv()).magnitude())
    assert error.mean() < 2
    away = (a.h - true)[:, 3:]
    assert np.abs(away - away.mean(0)).mean(0).max() < 0.010
    jaw = truth["actions"][:n, list(truth["action_names"]).index("jawOpen")]
    opening = np.linalg.norm(a.landmarks[:, 62] - a.landmarks[:, 66], axis=1)
    assert np.corrcoef(opening, jaw)[0, 1] > 0.9
    blink = truth["blink"][:n].astype(float)
    assert np.corrcoef(a.ear, blink)[0, 1] < -0.9
    # In time: no frame early or late.
    for x, y in ((opening, jaw), (-a.ear, blink)):
        at = [np.corrcoef(x[2:-2], y[2 + s : n - 2 + s])[0, 1] for s in range(-2, 3)]
        assert np.argmax(at) == 2


@pytest.mark.slow
def test_track_finds_every_blink(truth):
    a = tracking.track(CAPTURE, progress=False)
    shut = a.ear < 0.75 * np.median(a.ear)
    edges = np.flatnonzero(np.diff(np.r_[False, shut, False].astype(int))).reshape(-1, 2)
    known = np.flatnonzero(np.diff(np.r_[False, truth["blink"] > 0.5, False].astype(int)))
    known = known.reshape(-1, 2)

    def meets(one: np.ndarray, many: np.ndarray) -> bool:
        return bool(((one[0] < many[:, 1] + 2) & (many[:, 0] < one[1] + 2)).any())

    assert len(a) == len(truth["h"]) and len(known) > 10
    assert np.mean([meets(k, edges) for k in known]) > 0.9  # recall
    assert np.mean([meets(e, known) for e in edges]) > 0.9  # precision
    assert abs(len(read_audio(CAPTURE)) / 640 - len(a)) < 4


def test_a_second_video_is_tracked_with_the_face_of_the_first(frames, tmp_path, monkeypatch):
    videos = [tmp_path / "a.mp4", tmp_path / "b.mp4"]
    for video, part in zip(videos, (frames[:75], frames[100:175]), strict=True):
        write_video(video, part, lossless=True)
    first = tracked(videos[0], tmp_path / "a.npz")
    own = tracked(videos[1], tmp_path / "b.npz")
    assert not np.allclose(own.F_id, first.F_id, atol=1e-2)
    second = tracked(videos[1], tmp_path / "b.npz", identity=first.F_id)
    np.testing.assert_array_equal(second.F_id, first.F_id)
    np.testing.assert_array_equal(second.points, own.points)
    assert not np.allclose(second.h[:, 5], own.h[:, 5], atol=1e-5)  # another face, another distance
    monkeypatch.setattr(tracking, "track", None)  # the same again is read
    again = tracked(videos[1], tmp_path / "b.npz", identity=first.F_id)
    np.testing.assert_array_equal(again.h, second.h)


def test_the_table_reads_mediapipes_points(frames):
    """The iBUG points are rows MP_68 of what mediapipe says."""
    with tracking.Detector() as detector:
        whole = detector(frames[0])[0]
    assert whole.shape == (478, 3)
    assert np.allclose(tracking.face_points(frames[:1])[0][0], whole[MP_68, :2])
