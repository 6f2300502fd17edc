"""The table of verbs, and what every verb holds to: those that read write only where they are told."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from hpsweep import cli
from hpsweep.cli import VERBS, main
from hpsweep.cli.verbs import run as run_verb
from hpsweep.spec import Sweep, Trial
from tests import fake_training as fake
from tests.cli.test_cli import refused
from tests.paths import ROOT

COUNT = """
from pathlib import Path


def add(to):
    to.add_argument("folder", help="a results folder")


def run(arguments):
    print(len(list((Path(arguments.folder) / "runs").glob("*.parquet"))))
"""
LOOKS = {
    "status": [[]],
    "optimum": [[], ["--where", "scheme=supar"], ["--over", "lr"]],
    "regret": [[], ["--per-doubling", "0.05"]],
    "transfer": [["--width", "512", "--density", "1/16"]],
    "report": [[]],
    "law": [["--resamples", "50"]],
}
"""Verbs that read a results folder, with options that ask for no file."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return copied("lr_by_density", tmp_path, monkeypatch)


def copied(name: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder, and in it a copy of the published results of this name."""
    monkeypatch.chdir(place)
    return Path(shutil.copytree(ROOT / "results" / "reference" / name, f"results/{name}"))


def files(place: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(place.rglob("*")) if path.is_file()}


def test_without_a_verb_all_are_named_in_their_order_of_use(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    out = capsys.readouterr().out
    assert re.findall(r"^  (\w+) +(.+)$", out, re.MULTILINE) == list(VERBS.items())
    assert (ROOT / "experiments" / f"{re.findall('hpsweep plan (.+)', out)[0]}.py").is_file()


def test_a_verb_is_a_file_and_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    (tmp_path / "count.py").write_text(COUNT)
    monkeypatch.setattr(cli.verbs, "__path__", [*cli.verbs.__path__, str(tmp_path)])
    monkeypatch.setitem(VERBS, "count", "count the files of runs")
    assert main(["count", str(folder)]) == 0
    assert int(capsys.readouterr().out) == len(list((folder / "runs").glob("*.parquet"))) > 0
    assert main([]) == 0
    assert "count the files of runs" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["count", "--help"])
    assert "a results folder" in capsys.readouterr().out


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_is_in_the_docs(verb: str) -> None:
    pages = [ROOT / "README.md", *(page for page in (ROOT / "docs").glob("*.md") if page.name != "design.md")]
    assert any(re.search(rf"hpsweep {verb}\b", page.read_text()) for page in pages)


def test_every_file_of_a_verb_is_in_the_table() -> None:
    named = {path.stem for path in (ROOT / "hpsweep" / "cli" / "verbs").glob("*.py")} - {"__init__"}
    assert named == set(VERBS)


@pytest.mark.parametrize(("verb", "words"), [(verb, words) for verb, looks in LOOKS.items() for words in looks])
def test_a_verb_that_reads_writes_nothing_unless_it_is_told(
    verb: str, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copied("scaling_law" if verb == "law" else "lr_by_density", tmp_path, monkeypatch)
    before = files(Path())
    assert main([verb, str(folder), *words]) == 0
    assert files(Path()) == before


def test_what_is_made_is_written_where_it_is_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = {
        "optimum": ["optima.csv", "drift.csv", "sensitivity.csv"],
        "regret": ["regret.csv", "held_out.csv"],
        "report": ["report.html", "report.md"],
    }
    for verb, names in own.items():
        before = files(folder)
        assert main([verb, str(folder), "--out", f"there/{verb}"]) == 0
        assert {path.name for path in Path("there", verb).iterdir() if path.is_file()} == set(names)
        assert files(folder) == before
        for name in names:
            (folder / name).unlink(missing_ok=True)
        assert main([verb, str(folder), "--save"]) == 0
        assert all((folder / name).read_bytes() == Path("there", verb, name).read_bytes() for name in names)
    capsys.readouterr()
    card = folder / "card.json"
    card.unlink()
    assert main(["transfer", str(folder)]) == 0
    assert f"not written: --save puts it into {card}, --out FILE elsewhere" in capsys.readouterr().out
    assert main(["transfer", str(folder), "--out", "card.json"]) == 0
    assert not card.exists()
    assert main(["transfer", str(folder), "--save"]) == 0
    assert card.read_bytes() == Path("card.json").read_bytes()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        *(((verb, "--save", "--out", "there"), "not allowed with argument --save") for verb in
          ("optimum", "regret", "transfer", "plot", "report")),
        (("plot",), "--save puts them into results/lr_by_density/figures, --out DIR elsewhere"),
        *((("optimum", "--save", *more), f"{more[0]} asks for something else; give --out DIR") for more in
          (("--by", "scheme"), ("--over", "lr"), ("--where", "scheme=supar"))),
        *((("regret", "--save", *more), f"{more[0]} asks for something else; give --out DIR") for more in
          (("--per-doubling", "0.05"), ("--over", "lr"), ("--where", "scheme=supar"), ("--flops", "flops_sparse"))),
        (("plot", "--save", "--where", "scheme=supar"), "--where asks for something else; give --out DIR"),
    ],
)  # fmt: skip
def test_places_that_contradict_what_is_asked_are_one_line_before_any_work(
    words: tuple[str, ...], said: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(Path())
    assert said in refused(capsys, words[0], str(folder), *words[1:])
    assert files(Path()) == before


def test_a_run_ends_with_the_command_that_comes_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    fake.experiment(tmp_path, grid={"lr": [2.0**-9, 2.0**-8, 2.0**-7], "seed": [0, 1]})
    fake.order(tmp_path, seconds=0)
    assert main(["run", "fake", "--results", "the results"], train=fake.TRAIN) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "next: hpsweep optimum 'the results/fake'"
    assert main(["optimum", "the results/fake"]) == 0


def test_a_sweep_without_a_searched_hyperparameter_has_no_optimum_to_look_at() -> None:
    base, random = Trial(steps=10), {"search": "random", "space": {"lr": (0.1, 1)}, "points": 3}
    assert run_verb._next_verb(Sweep(name="x", base=base, grid={"density": [1, 0.5, 0.25]})) == "status"
    assert run_verb._next_verb(Sweep(name="x", base=base, grid={"lr": [0.1, 0.2]})) == "status"
    assert run_verb._next_verb(Sweep(name="x", base=base, **random)) == "optimum"
