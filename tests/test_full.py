"""The full profile, 512x512, with its steps cut: it runs on a CPU and fits into memory."""

import json
import subprocess
import sys

import pytest

from dfa import captures
from dfa.method.field_training import load_field

FIT = """
import resource, sys
from dfa.cli import main
code, unit = main(sys.argv[1:]), 1 if sys.platform == "darwin" else 1024
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)
sys.exit(code)
"""


@pytest.mark.slow
def test_a_person_at_full_size_within_four_gigabytes(tmp_path):
    """1,650 frames of 512x512, 1.3 GB: they are kept in a file, as ten minutes of them are."""
    video, out = captures.path("subject_a"), tmp_path / "model"
    fit = ["fit", str(video), "-o", str(out), "--profile", "full,steps=2", "--device", "cpu"]
    done = subprocess.run([sys.executable, "-c", FIT, *fit], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.splitlines()[-1]) < 4e9
    assert json.loads((out / "model.json").read_text())["size"] == 512
    field = load_field(out / "field.safetensors")
    assert int(field.size) == 512
    weights = 16 * sum(p.numel() for p in field.parameters())
    assert field.training_memory(512) - weights == pytest.approx(1.63e9, rel=0.01)
