"""Where a run happens."""

import pytest

from dfa.media import InputError
from dfa.report import machine


def test_root_from_the_top_and_from_notebooks(tmp_path, monkeypatch):
    for name in ("Snakefile", "pyproject.toml"):
        (tmp_path / name).touch()
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path)
    assert machine.root() == tmp_path
    monkeypatch.chdir(tmp_path / "notebooks")
    assert machine.root() == tmp_path
    monkeypatch.chdir("/")
    with pytest.raises(InputError, match="not inside the dfa repo"):
        machine.root()
