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
    from dfa.gpu.trainings import speaker

    return speaker(T, size, seed)


def poses(n: int = 20):
    """Made-up head poses, (n, 6)."""
    import torch

    g = torch.Generator().manual_seed(0)
    spread = torch.tensor([0.1, 0.2, 0.05, 0.01, 0.01, 0.01])
    return torch.randn(n, 6, generator=g) * spread + torch.tensor([0, 0, 0, 0.01, 0.02, 1.3])


def conditions(n: int = 20):
    """Made-up conditions of a radiance field, (n, DIM_C)."""
    import torch

    from dfa.method import field

    g = torch.Generator().manual_seed(1)
    return field.conditions(
        poses(n), torch.rand(n, 64, generator=g), torch.randn(n, 8, generator=g)
    )  # fmt: skip


def ball(size: int, n: int = 8):
    """A plain ball with a shaded face in front of a wall, drawn by ray tracing: conditions, and
    frames (n, 3, size, size)."""
    import torch

    from dfa.method.rendering import cast_rays

    cond = conditions(n)
    rays = cast_rays(size)
    centre = cond[:, None, 3:6]
    unit = rays / rays.norm(dim=-1, keepdim=True)
    along = (unit * centre).sum(-1)
    gap = 0.09**2 - (centre.square().sum(-1) - along**2)
    point = (along - gap.clamp_min(0).sqrt())[..., None] * unit - centre
    face = 0.5 + 4 * point * torch.tensor([1.0, 1.0, 0.5])
    wall = torch.tensor([0.2, 0.3, 0.5]) + 0.1 * rays[:, :1] * 6
    frames = torch.where((gap > 0)[..., None], face, wall.expand_as(face)).clamp(0, 1)
    return cond, frames.transpose(1, 2).reshape(n, 3, size, size)


def seeded(seed: int = 0):
    """A torch generator."""
    import torch

    return torch.Generator().manual_seed(seed)


def sequences(n: int = 3, T: int = 300):
    """Smooth motion in six channels; in the other eight a blink every few seconds."""
    import math

    import torch

    out = []
    for k in range(n):
        g = seeded(k)
        t = torch.arange(T) / 25
        phase = 6.3 * torch.rand(6, generator=g)
        pose = 0.1 * torch.sin(2 * math.pi * t[:, None] * torch.linspace(0.1, 0.4, 6) + phase)
        lid = torch.zeros(T)
        for start in range(20 + 7 * k, T - 8, 70):
            lid[start : start + 6] = torch.tensor([0.5, 1, 1, 0.75, 0.5, 0.25])
        eyes = lid[:, None] * torch.linspace(-1, 2, 8)
        out.append(torch.cat([pose, eyes + 0.02 * torch.randn(T, 8, generator=g)], 1))
    return out


@pytest.fixture(scope="session")
def film(studio):
    """The renderer of subject_b, who has long hair and a striped shirt before a room."""
    from dfa.studio import actors, render

    film = render.Film(actors.load("subject_b"))
    yield film
    film.close()


@pytest.fixture(scope="session")
def take(studio):
    """The performance of subject_b."""
    from dfa.studio import act

    return act("subject_b")


@pytest.fixture(scope="session")
def tracks(tmp_path_factory):
    """Three corpus captures, tracked for 8 s each: their names and the folder of the run."""
    from dfa import captures
    from dfa.datasets.tracks import tracked

    names, runs = captures.CORPUS[:3], tmp_path_factory.mktemp("runs")
    for name, file in zip(names, captures.tracks(names, runs), strict=True):
        tracked(captures.path(name), file, 8.0)
    return names, runs
