"""dfa origin: from an artifact back to what made it, and what changed since."""

import subprocess

import matplotlib
import pandas as pd
import pytest

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from dfa.cli import main
from dfa.media import InputError
from dfa.report import origin, provenance


@pytest.fixture
def repo(tmp_path, monkeypatch):
    """A repo with a commit, a table and a figure, and the current folder in it."""
    for name in ("Snakefile", "pyproject.toml", "dfa/a.py", "notebooks/01_test.ipynb", "data.bin"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    monkeypatch.chdir(tmp_path)
    who = ["-c", "user.name=t", "-c", "user.email=t@t"]
    for command in (["init", "-q"], ["add", "-A"], [*who, "commit", "-qm", "first"]):
        subprocess.run(["git", *command], check=True)
    run = provenance.start("01_test", "quick", seed=[3, 4], inputs=["data.bin"])
    rows = [("a", "ours", "psnr", 31.234), ("a", "theirs", "psnr", 31.28)]
    table = pd.DataFrame(rows, columns=["testset", "method", "metric", "value"])
    run.save_table(table, "table9", paper="Table 9")
    fig, ax = plt.subplots()
    ax.plot([1, 2])
    run.save_figure(fig, "figure9")
    return tmp_path


@pytest.mark.parametrize("what", ["table9", "table9.csv", "figures/quick/tables/table9.tex"])
def test_an_id_and_each_of_its_files_lead_to_one_entry(repo, what):
    entry = origin.find(what, repo)
    assert entry["id"] == "table9" and entry["seeds"] == [3, 4]


def test_an_executed_notebook_leads_to_all_that_it_made(repo):
    entry = origin.find("figures/quick/notebooks/01_test.ipynb", repo)
    assert {p.rpartition(".")[2] for p in entry["outputs"]} == {"csv", "tex", "html", "png", "pdf"}
    said = origin.report(entry, repo)
    assert "notebooks/01_test.ipynb, all of it" in said and "CHANGED" not in said


def test_what_is_not_there_is_said(repo, capsys):
    with pytest.raises(InputError, match="name one of figure9, table9"):
        origin.find("nothing", repo)
    with pytest.raises(InputError, match="name one of table9"):
        origin.find("table1", repo)
    with pytest.raises(InputError, match="figures/full has no manifest.json"):
        origin.find("table9", repo, "full")
    assert main(["origin", "nothing"]) == 2
    assert "dfa: figures/quick/manifest.json has no nothing" in capsys.readouterr().err


def test_a_value_is_found_as_it_is_printed(repo):
    entry = origin.find("table9", repo)
    assert origin.rows_of(entry, "31.23", repo).method.tolist() == ["ours"]
    assert origin.rows_of(entry, "31", repo).method.tolist() == ["ours", "theirs"]
    assert origin.rows_of(entry, "theirs", repo).value.tolist() == [31.28]
    with pytest.raises(InputError, match="table9.csv reads 7"):
        origin.rows_of(entry, "7", repo)
    with pytest.raises(InputError, match="no .csv"):
        origin.rows_of(origin.find("figure9", repo), "31", repo)


def test_it_says_what_has_changed(repo, capsys):
    assert main(["origin", "table9"]) == 0
    said = capsys.readouterr().out
    assert "table9, the paper's Table 9" in said and "notebooks/01_test.ipynb" in said
    assert said.count(" same ") == 4 and "code since  same" in said and "CHANGED" not in said
    (repo / "data.bin").unlink()
    (repo / "figures/quick/tables/table9.csv").write_text("edited by hand")
    (repo / "dfa/a.py").write_text("other")
    assert main(["origin", "table9"]) == 0
    said = capsys.readouterr().out
    assert "not here  data.bin" in said and "CHANGED   figures/quick/tables/table9.csv" in said
    assert "code since  CHANGED: dfa/a.py" in said and said.count("same") == 2


def test_what_is_deleted_or_edited_is_named(repo):
    entries = provenance.manifest(repo / "figures/quick")
    assert origin.out_of_step(entries, repo) == []
    (repo / "figures/quick/figure9.png").unlink()
    (repo / "figures/quick/tables/table9.csv").write_text("edited by hand")
    assert origin.out_of_step(entries, repo) == [
        "figures/quick/figure9.png: not here", "figures/quick/tables/table9.csv: CHANGED",
    ]  # fmt: skip


def test_without_git_the_code_is_unknown(repo):
    entry = {**origin.find("table9", repo), "commit": "0" * 40}
    assert "code since  unknown" in origin.report(entry, repo)
    assert origin.code_changed({**entry, "commit": None}, repo) is None
