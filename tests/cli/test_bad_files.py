"""Cards, meta files, experiments and folders as others may have made them: one line, exit status 2, nothing written."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hpsweep import store
from hpsweep.analysis.law.law import Law
from hpsweep.analysis.transfer.card import CARD_VERSION, OLDEST, Card
from hpsweep.cli import main
from hpsweep.cli.inputs import stored_sweep
from hpsweep.export.write import export
from hpsweep.faults import is_ours
from hpsweep.schema import SCHEMA_VERSION
from hpsweep.text import shown, visible
from tests import fake_training as fake

CARD = Path("results/reference/narrow_dense/card_supar_at_2.json").absolute()
LAW = Path("results/reference/scaling_law/law.json").absolute()
SEVERAL = Path("results/reference/lr_by_width/meta.json").absolute()


@contextlib.contextmanager
def answering(seconds: int) -> Iterator[None]:
    """Fail what does not come to an end."""

    def fail(*_: object) -> None:
        raise TimeoutError("no answer")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _tree(folder: Path) -> dict[str, tuple[int, float]]:
    return {str(p): (p.lstat().st_size, p.lstat().st_mtime_ns) for p in folder.rglob("*")}


def refused(capsys: pytest.CaptureFixture[str], folder: Path, *words: str) -> str | None:
    """The one line of a command that was refused and has left the folder as it was; None of one that was not."""
    before = _tree(folder)
    with answering(60):
        try:
            status = main(words, train=fake.TRAIN)
        except SystemExit as end:
            status = int(end.code or 0)
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    assert all(character.isprintable() or character in "\n\t" for character in out + err)
    if status == 0:
        return None
    assert (status, out, err.count("\n")) == (2, "", 1), (words, err)
    assert err.startswith("hpsweep: ")
    assert len(err) < 5000
    assert _tree(folder) == before
    return err


# --- every field ---

DEEP = "[" * 100_000
DELETED = object()
ALWAYS_BAD: dict[str, Any] = {
    "NaN": "@NaN",
    "Infinity": "@-Infinity",
    "1e999": "@1e999",
    "an integer of 500 digits": 10**500,
    "deep nesting": "@" + DEEP,
    "an escape sequence": "\x1b[2Jred",
    "a text in another direction": "a\u202eb",
    "a text of 10^6 characters": "x" * 10**6,
    "a name with an escape sequence": {"\x1b[31m": 1},
}
OF_ANOTHER_TYPE: dict[str, Any] = {
    "text": "many",
    "text of a number": "1",
    "true": True,
    "a list": [1],
    "an object": {"a": 1},
    "a number with a point": 1.5,
}
PERHAPS: dict[str, Any] = {"null": None, "0": 0, "-1": -1, "10^18": 10**18, "1e300": 1e300, "an empty list": [], "": ""}


def _text(record: Any) -> str:
    """JSON in which a text that begins with @ stands as it is, without its quotes."""
    parts = json.dumps(record).split('"@')
    return parts[0] + "".join(part.replace('"', "", 1) for part in parts[1:])


def _places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place of a record; of a list the first entry stands for all."""
    if place:
        yield place
    if isinstance(value, dict):
        for name, entry in value.items():
            yield from _places(entry, (*place, name))
    elif isinstance(value, list) and value:
        yield from _places(value[0], (*place, 0))


def _at(record: Any, place: tuple[Any, ...]) -> Any:
    for name in place:
        record = record[name]
    return record


def _with(record: Any, place: tuple[Any, ...], value: Any) -> Any:
    changed = copy.deepcopy(record)
    parent = _at(changed, place[:-1])
    if value is DELETED:
        del parent[place[-1]]
    else:
        parent[place[-1]] = value
    return changed


FREE = ("drift", "comparison", "tensors", "along_drift.axes", "along_drift.held_out")
"""Rows of a card that are for people: any plain data; and the tensors, whose names and sizes the rules check."""


def _is_free(place: tuple[Any, ...], record: Any) -> bool:
    name = ".".join(map(str, place))
    optimum = place[0] == "optimum" and len(place) == 2
    return name.startswith(FREE) or (optimum and place[1] not in ("hyperparameter", "opt", "low", "high", "status"))


def _short(record: Any) -> Any:
    """The record with at most two entries of every list, so that a thousand of its variants are read in seconds."""
    if isinstance(record, dict):
        return {name: _short(value) for name, value in record.items()}
    return [_short(value) for value in record[:2]] if isinstance(record, list) else record


def _reason(read: Callable[[], object]) -> str | None:
    """Why a reader refuses, in one line as the command would print it; None if it does not."""
    why = None
    try:
        read()
    except ValueError as error:
        if not is_ours(error):
            raise
        why = str(error)
    assert why is None or "\n" not in why
    return why


def _bad_values(old: Any, place: tuple[Any, ...]) -> dict[str, Any]:
    """What may not stand at a place of known type."""
    bad = {**ALWAYS_BAD, "nothing": DELETED}
    if place[-1] == 0 or place[:2] == ("evidence", "never_tuned"):  # a list may be shorter; cards of before lack this
        del bad["nothing"]
    if isinstance(old, bool):
        return bad | {what: value for what, value in OF_ANOTHER_TYPE.items() if value is not True}
    if isinstance(old, int):
        return bad | OF_ANOTHER_TYPE | {"1e300": 1e300, "-1": -1}
    if isinstance(old, float):
        return bad | {what: value for what, value in OF_ANOTHER_TYPE.items() if value != 1.5} | {"-1": -1.0}
    if isinstance(old, dict | list | str):
        bad |= {"a number": 7, "null": None}
    return bad


def card_of_now() -> dict[str, Any]:
    """The published card as this version writes it: of one of before, what it lacks is filled in."""
    card: dict[str, Any] = json.loads(CARD.read_text()) | {"findings": [], "schema_version": CARD_VERSION}
    card["proxy"] |= {"model": "gpt", "settings": "{}"}
    return card


@pytest.mark.parametrize("part", card_of_now())
def test_a_card_with_any_bad_field_is_refused_in_one_line(
    part: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = card_of_now()
    card = {name: value if name == "tensors" else _short(value) for name, value in whole.items()}
    path = tmp_path / "card.json"

    def exported() -> None:
        export(Card.read(path), "torch")

    path.write_text(json.dumps(card))
    assert _reason(exported) is None
    for place in _places({part: card[part]}):
        old = _at(card, place)
        bad = ALWAYS_BAD if _is_free(place, card) else _bad_values(old, place)
        for what, value in bad.items():
            path.write_text(_text(_with(card, place, value)))
            assert _reason(exported), (place, what)
        for value in () if _is_free(place, card) else (*PERHAPS.values(), *OF_ANOTHER_TYPE.values()):
            path.write_text(_text(_with(card, place, value)))
            _reason(exported)  # either way: one line or none
        path.write_text(_text(_with(card, place, "\x1b[2J")))
        assert refused(capsys, tmp_path, "export", str(path), "--to", "nanogpt"), place


@pytest.mark.parametrize("verb", ["train", "regret"])
def test_every_verb_that_reads_a_card_refuses_a_bad_one(
    verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    card = json.loads(CARD.read_text())
    path = tmp_path / "card.json"
    shutil.copytree(CARD.parent / "runs", tmp_path / "sweep" / "runs")
    words = {"train": ["train", str(path)], "regret": ["regret", str(tmp_path / "sweep"), "--card", str(path)]}[verb]
    for place in [
        *_places({"target": card["target"]}),
        *_places({"proxy": card["proxy"]}),
        *_places({"optimizer": card["optimizer"]}),
        *(at for at in _places({"evidence": card["evidence"]}) if at != ("evidence", "never_tuned")),  # any numbers
        *_places({"base": card["base"]}),
        ("mask", "seed"),
        ("scheme",),
        ("optimum", "hyperparameter"),
    ]:
        for value in ({"a": 1}, "@NaN"):
            path.write_text(_text(_with(card, place, value)))
            assert refused(capsys, tmp_path, *words), (place, value)


def test_a_law_with_any_bad_field_is_refused_in_one_line(tmp_path: Path) -> None:
    law = json.loads(LAW.read_text())
    path = tmp_path / "law.json"
    small = {name: value[:1] if isinstance(value, list) else value for name, value in law.items()}
    for place in _places(small):
        bad = dict(ALWAYS_BAD) | ({"nothing": DELETED, "true": True} if len(place) == 1 else {})
        for what, value in bad.items():
            path.write_text(_text(_with(small, place, value)))
            with pytest.raises(ValueError, match=r"law\.json") as error:
                Law.read(path)
            assert "\n" not in str(error.value), (place, what)


@pytest.mark.parametrize("part", ["hpsweep_schema_version", *json.loads(SEVERAL.read_text())["sweep"]])
def test_a_meta_file_with_any_bad_field_is_refused_in_one_line(
    part: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    meta = json.loads(SEVERAL.read_text())
    whole = meta if part in meta else meta["sweep"]
    folder = tmp_path / "lr_by_width"
    folder.mkdir()
    path = folder / "meta.json"

    def read() -> None:
        stored_sweep(str(folder))

    for place in _places({part: whole[part]}):
        full = place if part in meta else ("sweep", *place)
        old = _at(meta, full)
        bad = dict(ALWAYS_BAD)
        if isinstance(old, int | float) and not isinstance(old, bool):
            bad |= {name: value for name, value in OF_ANOTHER_TYPE.items() if value != 1.5}
        elif isinstance(old, dict | list) and old:
            bad |= {"a number": 7, "text": "many"}
        for what, value in bad.items():
            path.write_text(_text(_with(meta, full, value)))
            assert _reason(read), (place, what)
        for value in (DELETED, *PERHAPS.values(), *OF_ANOTHER_TYPE.values()):
            path.write_text(_text(_with(meta, full, value)))
            _reason(read)
        path.write_text(_text(_with(meta, full, "\x1b[2J")))
        assert refused(capsys, tmp_path, "status", str(folder)), place


# --- every kind of file ---


def _utf16(path: Path) -> None:
    path.write_text(path.read_text(), encoding="utf-16")


def _twice(path: Path) -> None:
    text = path.read_text().lstrip("{")
    path.write_text(f'{{"{"schema_version" if "schema_version" in text else "sweep"}": 1,{text}')


def _replaced(make: Callable[[Path], object]) -> Callable[[Path], object]:
    def replace(path: Path) -> None:
        path.unlink()
        make(path)

    return replace


ODD: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "blank": lambda path: path.write_bytes(b" \n "),
    "binary": lambda path: path.write_bytes(bytes(range(256)) * 10),
    "zeros": lambda path: path.write_bytes(bytes(1000)),
    "in UTF-16": _utf16,
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-20]),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"}"),
    "with a name twice": _twice,
    "nested deeply": lambda path: path.write_text(DEEP),
    "nested deeply in objects": lambda path: path.write_text('{"a":' * 100_000),
    "a list": lambda path: path.write_text("[1, 2]"),
    "a number": lambda path: path.write_text("3"),
    "a text": lambda path: path.write_text('"\\u001b[31m"'),
    "null": lambda path: path.write_text("null"),
    "an empty object": lambda path: path.write_text("{}"),
    "a number of 10^5 digits": lambda path: path.write_text('{"schema_version": 1' + "0" * 10**5 + "}"),
    "a folder": _replaced(Path.mkdir),
    "a pipe": _replaced(os.mkfifo),
    "a link to itself": _replaced(lambda path: path.symlink_to(path)),
    "a link to nothing": _replaced(lambda path: path.symlink_to(path.with_name("nothing"))),
    "a device": _replaced(lambda path: path.symlink_to("/dev/zero")),
}


@pytest.mark.parametrize("what", ODD)
def test_a_file_that_is_no_card_is_refused_in_one_line(
    what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = Path(shutil.copy(CARD, tmp_path / "card.json"))
    ODD[what](path)
    for words in (
        ["export", str(path), "--to", "hf"],
        ["train", str(path)],
        ["regret", "results", "--card", str(path)],
    ):
        assert f"{path} " in str(refused(capsys, tmp_path, *words))


@pytest.mark.parametrize("what", ODD)
def test_a_file_that_is_no_law_is_refused_in_one_line(what: str, tmp_path: Path) -> None:
    path = Path(shutil.copy(LAW, tmp_path / "law.json"))
    ODD[what](path)
    with pytest.raises(ValueError, match=r"law\.json (is|cannot|has)") as error:
        Law.read(path)
    assert "\n" not in str(error.value)


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with an experiment `fake`, and the record of its sweep in results/fake."""
    monkeypatch.chdir(tmp_path)
    sweep = fake.experiment(tmp_path, grid={"seed": [0, 1]})
    fake.order(tmp_path, seconds=0)
    (tmp_path / "results" / "fake").mkdir(parents=True)
    store.write_meta("results/fake", sweep.to_dict())
    return tmp_path


@pytest.mark.parametrize("what", ODD)
def test_a_file_that_is_no_meta_file_is_refused_in_one_line(
    what: str, there: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ODD[what](there / "results" / "fake" / "meta.json")
    for words in (["status", "results/fake"], ["run", "fake", "--workers", "1"], ["plan", "fake"]):
        assert "results/fake/meta.json" in str(refused(capsys, there, *words))


def test_a_byte_order_mark_is_no_fault(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "card.json"
    path.write_text(CARD.read_text(), encoding="utf-8-sig")
    assert refused(capsys, tmp_path, "export", str(path), "--to", "torch") is None


NO_EXPERIMENT: dict[str, Callable[[Path], object]] = {
    **{name: ODD[name] for name in ("empty", "binary", "zeros", "in UTF-16", "a folder", "a pipe", "a link to itself")},
    "nested deeply": lambda path: path.write_text(f"SWEEP = {DEEP}"),
    "with a sign between": lambda path: path.write_text("SWEEP = - * 3"),
    "raises": lambda path: path.write_text("raise OSError('a\\x1b[31m\\nb')"),
    "ends the process": lambda path: path.write_text("raise SystemExit('gone')"),
    "calls itself": lambda path: path.write_text("def f():\n    f()\nf()"),
    "of no sweep": lambda path: path.write_text("SWEEP = 3"),
    "of a huge grid": lambda path: path.write_text(
        "from hpsweep import *\nSWEEP = Sweep(name='fake', base=Trial(steps=1), grid={'seed': range(10**12)})"
    ),
    "of a huge width": lambda path: path.write_text(
        "from hpsweep import *\nSWEEP = Sweep(name='fake', base=Trial(steps=1, width=10**9))"
    ),
    "of 10^12 steps": lambda path: path.write_text("from hpsweep import *\nTrial(steps=10**12)"),
    "of a huge duration": lambda path: path.write_text("from hpsweep import *\nTrial(tokens_per_parameter=1e300)"),
    "of an odd name": lambda path: path.write_text(
        "from hpsweep import *\nSWEEP = Sweep(name='\\x1b[31m', base=Trial(steps=1))"
    ),
    "of odd data": lambda path: path.write_text("from hpsweep import *\nTrial(steps=1, data='text:\\x1b[31m')"),
}


@pytest.mark.parametrize("what", NO_EXPERIMENT)
def test_a_file_that_is_no_experiment_is_refused_in_one_line(
    what: str, there: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    NO_EXPERIMENT[what](there / "experiments" / "fake.py")
    for verb in ("plan", "run"):
        assert "fake" in str(refused(capsys, there, verb, "fake"))


@pytest.mark.parametrize("what", ["a file", "a pipe", "a link to itself", "a link to nothing"])
def test_what_is_no_results_folder_is_refused_in_one_line(
    what: str, there: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = there / "results" / "fake"
    shutil.rmtree(folder)
    folder.touch()
    if what != "a file":
        ODD[what](folder)
    for verb in ("status", "optimum", "transfer", "plot", "report", "compact", "law", "regret"):
        assert "results/fake" in str(refused(capsys, there, verb, "results/fake")), verb


@pytest.mark.parametrize("name", ["runs", ".lock"])
@pytest.mark.parametrize("what", ["a pipe", "a link to itself"])
def test_an_odd_file_in_a_results_folder_is_refused_in_one_line(
    name: str, what: str, there: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (there / "results" / "fake" / name).touch()
    ODD[what](there / "results" / "fake" / name)
    assert refused(capsys, there, "run", "fake", "--workers", "1")


# --- versions ---

UNKNOWN = ["2", True, 0, -1, 1.0, None, [2], 10**30, "\x1b[31m"]


@pytest.mark.parametrize("version", [CARD_VERSION + 1, SCHEMA_VERSION + 1, *UNKNOWN], ids=shown)
def test_a_newer_or_unknown_version_is_refused_before_anything_is_written_over(
    version: Any, there: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    card = json.loads(CARD.read_text()) | {"schema_version": version}
    meta = json.loads((there / "results/fake/meta.json").read_text()) | {"hpsweep_schema_version": version}
    path = there / "card.json"
    if version not in range(OLDEST, CARD_VERSION + 1):
        path.write_text(json.dumps(card))
        assert "version" in str(refused(capsys, there, "export", str(path), "--to", "torch"))
        assert "version" in str(refused(capsys, there, "train", str(path)))
    if version == SCHEMA_VERSION:
        return
    (there / "results/fake/meta.json").write_text(json.dumps(meta))
    for words in (["run", "fake", "--workers", "1"], ["status", "results/fake"], ["plan", "fake"]):
        assert "meta.json" in str(refused(capsys, there, *words))


def test_the_card_and_the_law_of_a_newer_version_are_not_written_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for make, name in ((Card.read(CARD), "card"), (Law.read(LAW), "law")):
        path = tmp_path / f"{name}.json"
        path.write_text('{"schema_version": 99}')
        with pytest.raises(ValueError, match=f"{name} of version 99, which a newer hpsweep wrote; .* leaves it"):
            make.write(path)
    reference = Path("results/reference/lr_by_width").absolute()
    words = ["transfer", str(reference), "--out", str(tmp_path / "card.json")]
    assert "card of version 99, which a newer hpsweep wrote" in str(refused(capsys, tmp_path, *words))
    words = ["law", str(reference), "--out", str(tmp_path / "law.json")]
    assert "law of version 99, which a newer hpsweep wrote" in str(refused(capsys, tmp_path, *words))


@pytest.mark.parametrize("what", ["a folder", "a pipe", "a link to itself", "a device"])
def test_what_is_no_file_is_not_written_over(what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "out"
    path.touch()
    ODD[what](path)
    assert refused(capsys, tmp_path, "export", str(CARD), "--to", "torch", "--out", str(path))
    with pytest.raises(ValueError, match="is no regular file"):
        Card.read(CARD).write(path)


# --- terminals, locales, closed streams ---


def test_what_is_stored_cannot_steer_the_terminal(there: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = fake.sweep(there, grid={"seed": [0, 1]})
    rows = [fake.row(trial, size=1, seconds=0.1, device="cpu") for trial in sweep.trials]
    odd = {"status": "failed", "error": "\x1b]0;owned\x07\x1b[2J\u202e", "finished_at": None}
    store.append("results/fake", [{**rows[0], **odd}, {**rows[1], "finished_at": None}])
    assert main(["status", "results/fake"]) == 0
    out = capsys.readouterr().out
    assert "\\x1b]0;owned\\x07\\x1b[2J\\u202e" in out
    assert "\x1b" not in out
    assert "\x07" not in out
    assert main(["status", "results/fake", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["failures"][0]["error"] == odd["error"]


def test_only_what_steers_is_escaped() -> None:
    assert visible("a\tb\nµ ± 2⁻⁷ 中文 \u00a0") == "a\tb\nµ ± 2⁻⁷ 中文 \u00a0"
    assert visible("\r\x7f\x9b\u2028\u200f\ud800") == "\\r\\x7f\\x9b\\u2028\\u200f\\ud800"
    assert shown("x" * 200) == f"'{'x' * 79}... (202 characters)"
    assert shown(10**9) == "1000000000"
    assert shown(10**5000) == "an integer of 16610 bits"


@pytest.mark.parametrize("words", [["--wrong"], ["--wrong", "--json"], ["more"], ["--version"]])
@pytest.mark.parametrize("verb", ["optimum", "status", "report"])
def test_a_wrong_option_names_the_help_of_its_verb(
    verb: str, words: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    said = str(refused(capsys, tmp_path, verb, "results/fake", *words))
    assert said == f"hpsweep: unrecognized arguments: {words[0]}; see hpsweep {verb} --help\n"


def _run(words: list[str], script: str = '"$@"', **environment: str) -> subprocess.CompletedProcess[bytes]:
    command = ["sh", "-c", script, "sh", sys.executable, "-m", "hpsweep", *words]
    return subprocess.run(command, capture_output=True, env={**os.environ, **environment}, timeout=120, check=False)


LOCALES: dict[str, dict[str, str]] = {
    "C": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "POSIX": {"LC_ALL": "POSIX"},
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "latin-1": {"PYTHONIOENCODING": "latin-1", "PYTHONUTF8": "0"},
}


@pytest.mark.parametrize(
    "locale", ["C", "latin-1", *(pytest.param(name, marks=pytest.mark.slow) for name in ("POSIX", "ascii"))]
)
def test_a_locale_without_the_signs_gets_escapes_and_files_are_utf8(locale: str, there: Path) -> None:
    sweep = fake.sweep(there, grid={"seed": [0, 1]})
    rows = [fake.row(trial, size=1, seconds=0.1, device="cpu") for trial in sweep.trials]
    odd = {"status": "failed", "error": "µ ± 中文", "finished_at": None}
    store.append("results/fake", [{**rows[0], **odd}, {**rows[1], "finished_at": None}])
    ended = _run(["status", "results/fake"], **LOCALES[locale])
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert b"\\u4e2d\\u6587" in ended.stdout or "中文".encode() in ended.stdout
    ended = _run(["report", "results/fake", "--save"], **LOCALES[locale])
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert (there / "results/fake/report.md").read_text(encoding="utf-8").startswith("# fake\n")


def test_closed_streams_are_no_fault_and_no_file_takes_their_place(there: Path) -> None:
    """Descriptor 2 would else be that of the next file, and what a library prints would go into it."""
    for script, out, err in (
        ('"$@" 2>&-', b"nothing stored yet", b""),
        ('"$@" >&-', b"", b""),
        ('"$@" <&-', b"nothing stored yet", b""),
        ('"$@" <&- >&- 2>&-', b"", b""),
    ):
        ended = _run(["status", "results/fake"], script)
        assert ended.returncode == 0, (script, ended.stderr)
        assert out in ended.stdout
        assert ended.stderr == err
    assert _run(["status", "results/none"], '"$@" <&- >&- 2>&-').returncode == 2
    silent = _run(["status", "results/none"], '"$@" 2>&-')
    assert (silent.returncode, silent.stdout, silent.stderr) == (2, b"", b"")
    full = _run(["status", "results/fake"], '"$@" > /dev/full')
    assert (full.returncode, full.stderr.count(b"\n")) == (1, 1)
    assert b"the output could not be written: No space left on device" in full.stderr


def test_messages_that_cannot_be_written_change_no_exit_status(there: Path) -> None:
    """stderr is a file on a full disk: the warning of a file that cannot be read is lost, and the answer is not."""
    good = _run(["status", "results/fake"], '"$@" 2> /dev/full')
    assert (good.returncode, b"nothing stored yet" in good.stdout) == (0, True)
    (there / "results" / "fake" / "runs").mkdir(exist_ok=True)
    (there / "results" / "fake" / "runs" / "mine.parquet").write_bytes(b"PAR1")
    for words, expected in ((["compact", "results/fake"], 0), (["status", "results/none"], 2), (["nothing"], 2)):
        ended = _run(words, '"$@" 2> /dev/full')
        assert (ended.returncode, ended.stderr) == (expected, b""), words
    both = _run(["status", "results/fake"], '"$@" > /dev/full 2>&1')
    assert both.returncode == 1  # the answer could not be given
