"""What all tests share."""

import ctypes
import os
from pathlib import Path

# Before anything imports torch: tests run beside each other's subprocesses on few cores.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("GOMP_SPINCOUNT", "0")
os.environ["DFA_WORKFLOW"] = "1"  # notebooks run as the workflow runs them

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def repo() -> Path:
    """The top folder of the repo."""
    return ROOT


@pytest.fixture(scope="session")
def studio() -> None:
    """For tests that render captures: skips where the studio's packages cannot work at all."""
    pytest.importorskip("anny", reason="needs the extra `studio`: pip install -e '.[studio]'")
    pytest.importorskip("pyvista", reason="needs the extra `studio`: pip install -e '.[studio]'")
    for name in ("libEGL.so.1", "libGL.so.1", "libOSMesa.so.8"):
        try:
            ctypes.CDLL(name)
            return
        except OSError:
            pass
    pytest.skip("VTK draws off screen through libEGL.so.1 or libGL.so.1: neither is there")


def speaker(T: int = 30, size: int = 32, seed: int = 0):
    """A made-up recording: the mean face before a grey wall, its mouth and pose moving."""
    import numpy as np

    from dfa.face import FaceModel
    from dfa.rivals import Recording, parts
    from dfa.rivals.method import in_image
    from dfa.tracking import Attributes

    rng = np.random.default_rng(seed)
    face = FaceModel.load()
    moves = np.sin(np.arange(T) / 3)[:, None]
    F_exp = 0.3 * moves * rng.standard_normal(face.B_exp.shape[2])
    landmarks = face.landmarks(np.zeros(face.B_id.shape[2]), F_exp).astype(np.float32)
    h = np.tile(np.float32([0, 0, 0, 0, 0, 1.2]), (T, 1))
    h[:, :3] += 0.03 * rng.standard_normal(3) * moves
    points = in_image(h, landmarks)
    frames = np.full((T, size, size, 3), 120, np.uint8)
    drawn = parts.draw_landmarks(points, size).transpose(0, 2, 3, 1)
    frames = np.maximum(frames, drawn)
    attributes = Attributes(
        h=h, F_exp=F_exp, F_id=np.zeros(3), landmarks=landmarks, points=points,
        ear=np.full(T, 0.3), lost=np.zeros(T, bool), crop=np.array([0, 0, size]), h_raw=h,
    )  # fmt: skip
    audio = (0.1 * rng.standard_normal(640 * T)).astype(np.float32)
    return Recording("somebody", frames, audio, attributes)
