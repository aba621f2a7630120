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
