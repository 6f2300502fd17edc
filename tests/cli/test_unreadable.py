"""Results folders of which files cannot be read: each verb says which, and never that nothing was stored."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from hpsweep import store
from hpsweep.cli import main
from tests.paths import ROOT

REFERENCE = ROOT / "results" / "reference" / "lr_by_density"
VERBS = ("status", "optimum", "regret", "transfer", "plot", "report", "law", "compact")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two files of runs."""
    made = tmp_path / "made"
    shutil.copytree(REFERENCE, made, ignore=shutil.ignore_patterns("figures"))
    [path] = (made / "runs").glob("*.parquet")
    runs = pq.read_table(path)
    pq.write_table(runs.slice(0, len(runs) // 2), path.with_name("part-first.parquet"))
    pq.write_table(runs.slice(len(runs) // 2), path.with_name("part-second.parquet"))
    path.unlink()
    return made


def cut(*paths: Path) -> None:
    for path in paths:
        with path.open("r+b") as file:
            file.truncate(100)


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("verb", VERBS)
def test_where_no_file_can_be_read_every_verb_says_which_and_fails(
    verb: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut(*(folder / "runs").glob("*.parquet"))
    before = files(folder)
    save = ["--save"] if verb == "plot" else []
    for more in ([], ["--json"]):
        assert main([verb, str(folder), *save, *more]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.count("\n") == 1
        assert f"no stored trials in {folder} that can be read: part-first.parquet (" in err
        assert ", part-second.parquet (" in err
        assert ": 2 files cannot be read; mend or restore the files, or run again." in err
    assert files(folder) == before


def test_an_empty_file_beside_one_that_cannot_be_read_does_not_say_that_nothing_was_stored(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = sorted((folder / "runs").glob("*.parquet"))
    pq.write_table(pq.read_table(first).slice(0, 0), first)
    cut(second)
    assert main(["status", str(folder)]) == 2
    assert ": 1 file cannot be read; mend" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["status", "optimum", "regret", "report", "plot", "compact"])
def test_where_some_files_can_be_read_every_verb_names_the_others(
    verb: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The runs left have groups without a proxy, of which the report has no transferred loss."""
    [second] = (folder / "runs").glob("part-second*")
    cut(second)
    kept = second.read_bytes()
    assert main([verb, str(folder), *(["--save"] if verb == "plot" else [])]) == 0
    out, err = capsys.readouterr()
    assert out
    assert "1 unreadable files skipped; what they held counts as not trained: part-second.parquet" in err
    assert second.read_bytes() == kept


def test_a_folder_of_which_nothing_is_stored_yet_is_no_damaged_one(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (folder / "runs").glob("*.parquet"):
        path.unlink()
    assert store.is_empty(folder)
    assert main(["status", str(folder)]) == 0
    assert "nothing stored yet; 138 trials in all" in capsys.readouterr().out
