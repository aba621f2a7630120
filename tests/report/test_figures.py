"""Surfaces, drawn from far to near; sliders for people, one plain call under the workflow."""

import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from dfa import media
from dfa.method.face import FOCAL, MP_68, FaceModel
from dfa.report import figures, provenance


@pytest.fixture
def ax():
    fig, ax = plt.subplots(figsize=(2, 2))
    yield ax
    plt.close(fig)


SQUARE = np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]], float)
TOWARDS = np.array([[0, 3, 2], [0, 2, 1]])  # normals to -z, the viewer


def pixel(ax) -> np.ndarray:
    """RGB in [0, 1] in the middle of the axes."""
    ax.figure.canvas.draw()
    shown = np.asarray(ax.figure.canvas.buffer_rgba())[..., :3] / 255
    x, y = ax.transAxes.transform((0.5, 0.45)).astype(int)
    return shown[len(shown) - y, x]


def test_the_nearer_of_two_squares_is_seen(ax):
    red, green = np.eye(3)[:2]
    vertices = np.concatenate([SQUARE, SQUARE + [0, 0, 5]])  # the second lies behind
    for faces in (TOWARDS, TOWARDS + 4), (TOWARDS + 4, TOWARDS):  # in either order
        ax.clear()
        figures.draw_mesh(ax, vertices, np.concatenate(faces), colour=np.repeat([red, green], 4, 0))
        seen = pixel(ax)
        assert seen[0] > 0.5 and seen[1] < 0.05


def test_what_looks_away_is_not_drawn(ax):
    assert len(figures.draw_mesh(ax, SQUARE, TOWARDS).get_paths()) == 2
    assert len(figures.draw_mesh(ax, SQUARE, TOWARDS[:, ::-1]).get_paths()) == 0
    assert ax.yaxis_inverted()


def test_light_comes_from_the_upper_left(ax):
    """A roof: its left side is brighter than its right side."""
    roof = np.array([[-1, -1, 1], [-1, 1, 1], [0, -1, 0], [0, 1, 0], [0, -1, 0], [0, 1, 0],
                     [1, -1, 1], [1, 1, 1]], float)  # fmt: skip
    faces = np.array([[0, 1, 3], [0, 3, 2], [4, 5, 7], [4, 7, 6]])
    mesh = figures.draw_mesh(ax, roof, faces)
    brightness = {
        np.sign(path.vertices[:3, 0].mean()): colour[:3].mean()
        for path, colour in zip(mesh.get_paths(), mesh.get_facecolors(), strict=True)
    }
    assert brightness[-1] > brightness[1] + 0.1


def test_the_surface_goes_through_its_landmarks():
    model, rng = FaceModel.load(), np.random.default_rng(0)
    F_exp = rng.normal(size=(2, 40)).astype(np.float32)
    vertices = figures.face_mesh(model.landmarks(np.zeros(30, np.float32), F_exp))
    assert vertices.shape == (2, 2995, 3)
    at = np.einsum("pk,tpkx->tpx", model.mp_weights, vertices[:, model.mp_vertices])[:, MP_68]
    off = at - model.landmarks(np.zeros(30, np.float32), F_exp)
    assert np.linalg.norm(off, axis=-1).max() < 1e-3


def test_what_has_not_moved_keeps_its_skin(ax):
    assert np.allclose(figures.tint(np.zeros(3)), figures.SKIN)
    assert np.allclose(figures.tint(np.array([1.0])), figures.to_rgb(figures.MOUTH))
    model = FaceModel.load()
    l = model.landmarks(np.zeros(30, np.float32), np.zeros(40, np.float32))
    figures.draw_face(ax, l, "A", before=l)
    face = ax.collections[0].get_facecolors()[:, :3]
    assert len(face) > 2000 and np.allclose(face / face[:, :1], figures.SKIN / figures.SKIN[0])
    assert ax.get_title() == "A"


def test_the_workflow_calls_an_interactive_part_once_and_makes_no_widget(monkeypatch):
    called = []
    monkeypatch.setenv("DFA_WORKFLOW", "1")
    monkeypatch.setattr(ipywidgets, "interact", None)

    @figures.interact(x=(0, 10))
    def show(x=3):
        called.append(x)

    assert called == [3]
    show(4)
    assert called == [3, 4]


def test_people_get_sliders(monkeypatch):
    monkeypatch.delenv("DFA_WORKFLOW")
    asked = {}
    monkeypatch.setattr(ipywidgets, "interact", lambda **c: asked.update(c) or (lambda f: f))
    figures.interact(x=(0, 10))(lambda x=3: None)
    assert asked == {"x": (0, 10)}


def test_landmark_video_draws_the_face_where_the_camera_sees_it(tmp_path):
    """The drawing moves as the pinhole camera says, and the sound goes along."""
    mean = FaceModel.load().at_mediapipe()[0][MP_68].astype(np.float32)
    h = np.zeros((30, 6), np.float32)
    h[:, 5], h[15:, 3] = 1.0, 0.05  # a metre away, then 5 cm to the side
    figures.landmark_video(tmp_path / "a.mp4", np.repeat(mean[None], 30, 0), h, np.zeros(30 * 640))
    frames = media.frames_of(tmp_path / "a.mp4", None, 256)
    assert len(frames) == 30 and len(media.read_audio(tmp_path / "a.mp4")) > 25 * 640
    centres = [np.argwhere(f.min(-1) < 200).mean(0) for f in (frames[5], frames[25])]
    np.testing.assert_allclose(centres[1] - centres[0], [0, FOCAL * 0.05 * 256], atol=1)
    drawn = np.argwhere(frames[5].min(-1) < 200)
    seen = 256 * (0.5 + FOCAL * mean[:, :2] / (mean[:, 2:] + 1))
    np.testing.assert_allclose(drawn.max(0)[::-1], seen.max(0), atol=3)
    np.testing.assert_allclose(drawn.min(0)[::-1], seen.min(0), atol=3)


def test_layers_are_read_off_the_modules():
    class Net(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.way_in = nn.Sequential(nn.Linear(3, width), nn.ReLU(), nn.Linear(width, 5))
            self.blocks = nn.ModuleList(nn.Linear(5, 5) for _ in range(4))
            self.out = nn.Sequential(nn.Conv1d(5, 7, 3), nn.Linear(7, 2))
            self.code = nn.Parameter(torch.zeros(6, 9))

    assert figures.layers(Net(8)).splitlines() == [
        "way_in: Linear 3→8→5",
        "blocks: 4 × Linear of 30",
        "out: Conv1d 5→7, Linear 7→2",
        "code: 6×9",
        f"{3 * 8 + 8 + 8 * 5 + 5 + 4 * 30 + 5 * 7 * 3 + 7 + 7 * 2 + 2 + 54:,} weights",
    ]
    assert "3→11→5" in figures.layers(Net(11))  # another model, another figure
    assert figures.layers(nn.Sequential(nn.Linear(2, 3))).startswith("Sequential: Linear 2→3\n")


def test_a_grid_shows_each_frame_pixel_by_pixel():
    """Frames of `side` pixels come out of the canvas as they went in; smaller ones enlarged."""
    frames = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), np.uint8)
    for enlarged, side in ((1, 16), (2, 40)):
        fig = figures.frame_grid([frames[:2], frames[2:]], ["a", "b"], ["c", "d"], side=side)
        fig.set_dpi(provenance.DPI)
        fig.canvas.draw()
        drawn = np.asarray(fig.canvas.buffer_rgba())[..., :3]
        for ax, frame in zip(fig.axes, frames, strict=True):
            box = ax.get_window_extent()
            assert (box.width, box.height) == pytest.approx((16 * enlarged,) * 2)
            x, y = round(box.x0), len(drawn) - round(box.y1)
            shown = drawn[y:, x:][: 16 * enlarged : enlarged, : 16 * enlarged : enlarged]
            inner = slice(2, -2)  # within the frame's line
            assert np.abs(shown.astype(int) - frame)[inner, inner].max() <= 2
        plt.close(fig)


def test_a_grid_of_large_frames_is_no_larger():
    frame = np.zeros((64, 32, 3), np.uint8)
    fig = figures.frame_grid([[frame] * 3] * 2, titles=["a", "b", "c", "d", "e", "f"], side=16)
    sizes = [ax.get_window_extent().size / fig.dpi * provenance.DPI for ax in fig.axes]
    assert np.allclose(sizes, (16, 32))
    assert [ax.get_title() for ax in fig.axes] == ["a", "b", "c", "d", "e", "f"]
    fig.canvas.draw()
    boxes = [ax.get_tightbbox() for ax in fig.axes]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    plt.close(fig)


def test_training_curves_stand_in_two_rows():
    lines = [dict(method="A", part=p, testset="x", step=k, objective=1 / (k + 1))
             for p in "abcde" for k in range(3)]  # fmt: skip
    fig = figures.training_curves(pd.DataFrame(lines))
    fig.canvas.draw()
    rows = {round(ax.get_window_extent().y0) for ax in fig.axes}
    assert (len(fig.axes), len(rows)) == (5, 2)
    assert [bool(ax.get_ylabel()) for ax in fig.axes] == [True, False, False, True, False]
    plt.close(fig)
