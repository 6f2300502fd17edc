"""The documentation says what is so: its links lead somewhere, its code runs, its commands are those there are."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import hpsweep
from hpsweep.analysis.coords import culprit
from hpsweep.cli import parser
from hpsweep.cli.inputs import load_experiment
from hpsweep.own_training.command import train_command
from hpsweep.spec import RESOLVED
from tests.pages import NOT_RUN, PAGES, execute, fenced, indented, name, prose, python, runnable, spans
from tests.paths import ROOT

LINKED = [*PAGES, ROOT / "CHANGELOG.md", ROOT / "experiments" / "LOG.md"]

every_page = pytest.mark.parametrize("page", PAGES, ids=name)

# --- links ---


def anchors(page: Path) -> set[str]:
    """What its headings are called in links, as GitHub and the site do it."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", LINKED, ids=name)
def test_every_link_leads_to_a_file_and_a_heading_of_it(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if target.startswith(("https://", "http://")):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.is_file(), f"{name(page)} links to {target}"
        assert not anchor or anchor in anchors(file), f"{name(page)} links to {target}"


def test_every_page_is_on_the_site_and_reached_from_its_index() -> None:
    index = (ROOT / "docs" / "index.md").read_text()
    for page in sorted(ROOT.glob("docs/*.md")):
        if page.stem != "index":
            assert f"]({page.name})" in index, page.name
            assert f"\n{page.stem}\n" in index, f"{page.name} is in no list of the site"


def test_the_readme_is_read_in_ten_minutes() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 110


# --- Python ---


OWN_TEST = ("README.md", "docs/own_model.md", "docs/own_model_sweep.md", "docs/own_script.md", "docs/coords.md")
"""Pages whose Python is run by a test of their own, which looks at what it makes."""


@pytest.mark.parametrize("page", [page for page in PAGES if python(page) and name(page) not in OWN_TEST], ids=name)
def test_the_python_of_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "results").symlink_to(ROOT / "results")
    monkeypatch.chdir(tmp_path)
    execute(page)


def test_python_that_no_test_runs_is_python_and_rare() -> None:
    left_out = [block for page in PAGES for block in python(page) if NOT_RUN in block.above]
    for block in left_out:
        compile(block.text, "a page", "exec")
    assert len(left_out) <= 3


NUMBER = r"-?\d+\.?\d*(?:e-?\d+)?"


def test_the_readme_shows_what_its_python_prints(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    page = ROOT / "README.md"
    blocks = fenced(page)
    shown = blocks[next(at for at, block in enumerate(blocks) if block.language == "python") + 1].text
    execute(page)
    printed = capsys.readouterr().out
    assert re.sub(NUMBER, "#", printed).split() == re.sub(NUMBER, "#", shown).split()
    # Fits have other last digits under other processors' matrix kernels.
    numbers = [[float(number) for number in re.findall(NUMBER, text)] for text in (printed, shown)]
    assert numbers[0] == pytest.approx(numbers[1], abs=0.0101)


def test_the_page_on_own_models_does_what_it_says() -> None:
    small = "n_layer=2, vocab_size=96, n_positions=40, bos_token_id=0, eos_token_id=0"
    first, second = runnable(ROOT / "docs" / "own_model.md", (("n_layer=4", small),))
    scope: dict[str, Any] = {}
    exec(first, scope)
    model, plan = scope["model"].eval(), scope["plan"]
    ids = torch.randint(0, 96, (2, 16), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits, final = model(ids).logits, model.transformer(ids).last_hidden_state
    torch.testing.assert_close(logits, final @ model.lm_head.weight.T / 4)
    assert {block.attn.scaling for block in model.transformer.h} == {32**-0.5}  # heads as large as the base's
    model.train()
    losses = []
    for _ in range(5):
        logits = model(ids).logits[:, :-1]
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
        losses.append(loss.item())
        loss.backward()
        scope["optimizer"].step()
        scope["optimizer"].zero_grad()
    assert losses[-1] < losses[0]
    for tensor, exists in plan.masks(model).items():
        assert ((model.get_parameter(tensor) != 0) == exists).all()
    exec(second, scope)
    assert scope["plan"] is not plan
    assert scope["plan"] == plan


def test_the_page_on_own_models_in_a_sweep_does_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    text = "\n\n".join(block.text for block in python(ROOT / "docs" / "own_model_sweep.md"))
    for old, new in (("steps=200", "steps=4"), ("steps=100", "steps=4"), ("range(-10, -4)", "(-8, -6)")):
        assert old in text
        text = text.replace(old, new)
    for title, what in (("my_gpt", "SWEEP"), ("my_loop", "LOOP"), ("my_batches", "BATCHES")):
        more = 'BATCHES = hp.Sweep(name="my_batches", model=model, base=SWEEP.base, grid={"batch": [8, 16]})'
        Path(f"{title}.py").write_text(f"{text}\n{more}\nSWEEP = {what}\n")
        sweep = load_experiment(f"{title}.py")
        runs = hpsweep.run(sweep, "results", workers=1)
        assert len(runs) == len(sweep.trials)
        assert set(runs["status"]) == {"ok"}
        assert runs["val_loss_se"].gt(0).all()


def test_the_page_on_own_scripts_does_what_it_says(tmp_path: Path) -> None:
    script, *_ = (block.text for block in python(ROOT / "docs" / "own_script.md"))
    (tmp_path / "train.py").write_text(script)
    words = [sys.executable, "train.py", "--max_iters", "400", "--learning_rate", "4.0", "--min_lr", "0.4"]
    alone = subprocess.run(words, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True)
    trial = hpsweep.Trial(width=64, base_width=64, steps=400, lr=4.0)
    command = hpsweep.Command(argv=words[:2], environment={"PYTHONPATH": str(ROOT)})
    outcome = train_command([trial], command=command, folder=tmp_path / "mine", cwd=tmp_path)
    (row,) = outcome.rows
    assert f"val loss {row['val_loss']}" == alone.stdout.decode().strip()
    assert 0 < row["val_loss_se"] < row["val_loss"] < row["initial_loss"]
    scope: dict[str, Any] = {}
    for block in runnable(ROOT / "docs" / "own_script.md")[1:]:
        exec(block, scope)
    for made in ("nanogpt", "lightning", "trainer"):
        assert "lr" in scope[made].used_names
        scope[made].check_names(RESOLVED)


def test_the_page_on_the_coordinate_check_does_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    scope = execute(ROOT / "docs" / "coords.md", (("range(12)", "range(3)"),))
    verdicts = hpsweep.coords.verdicts(scope["slopes"])
    assert culprit(verdicts) is None
    said = capsys.readouterr().out
    assert said.startswith(("ok: none of 23 modules", "no module is known to grow or shrink ("))
    for row in verdicts.to_dict("records"):
        line = next(line for line in said.splitlines() if line.split()[:1] == [row["module"]])
        assert line.split()[1] == row["verdict"]
        assert len(line.split()) == 8  # and three slopes along width and density each
    assert "..." not in said


def test_the_reference_lists_every_public_name() -> None:
    page = (ROOT / "docs" / "api.md").read_text()
    listed = set(re.findall(r"^\.\. auto\w+:: hpsweep\.(\w+)", page, re.M))
    assert listed == set(hpsweep.__all__) - {"__version__"}


# --- commands ---


def commands(page: Path) -> list[str]:
    """Every line of code of the page, of blocks and of sentences, without what follows a #."""
    blocks = [block.text for block in fenced(page) if block.language in ("", "bash")] + indented(page)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [re.split(r"\s#", line)[0].strip() for line in [*lines, *spans(page)]]


def verbs() -> dict[str, Any]:
    """The parser of every verb."""
    (found,) = [action for action in parser()._actions if isinstance(action.choices, dict)]
    return dict(found.choices)


@every_page
def test_commands_are_those_of_the_parser(page: Path) -> None:
    known = verbs()
    for line in commands(page):
        if not re.match(r"hpsweep [a-z]", line):
            continue
        verb, *words = line.removeprefix("hpsweep ").split()
        assert verb in known, f"{name(page)}: {line}"
        for option in (word.strip("[]()") for word in words if word.strip("[]()").startswith("--")):
            allowed = known[verb]._option_string_actions
            assert option.partition("=")[0] in allowed, f"{name(page)}: {line}: {option}"


@every_page
def test_whole_commands_are_parsed(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Those of blocks, where a person copies them from; not those that show what is optional."""
    for line in "\n".join([block.text for block in fenced(page)] + indented(page)).replace("\\\n", " ").splitlines():
        line = re.split(r"\s#", line)[0].strip()
        if re.match(r"hpsweep [a-z]+ ", line) and not re.search(r"\.\.\.|\[|COL\b", line):
            try:
                parser().parse_args(shlex.split(line)[1:])
            except SystemExit:
                pytest.fail(f"{name(page)}: {line}: {capsys.readouterr().err}")


@every_page
def test_what_is_made_can_be_made(page: Path) -> None:
    made = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", made, re.M))
    variables = set(re.findall(r"^([A-Z_]+) \??=", made, re.M))
    for line in commands(page):
        if re.match(r"make [a-zA-Z]", line):
            for word in shlex.split(line)[1:]:
                variable, is_variable, _ = word.partition("=")
                assert variable in (variables if is_variable else targets), f"{name(page)}: {line}"


@every_page
def test_modules_that_are_run_are_there(page: Path) -> None:
    for line in commands(page):
        for module in re.findall(r"python -m ((?:benchmarks|hpsweep)[\w.]*)", line):
            path = ROOT / module.replace(".", "/")
            assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), f"{name(page)}: {line}"


@every_page
def test_files_that_are_named_are_there(page: Path) -> None:
    for span in spans(page):
        if re.fullmatch(
            r"(?:hpsweep|tests|benchmarks|experiments|notebooks|docs|analysis|proxy|sweep)/[\w/.-]+\.\w+", span
        ):
            assert (ROOT / span).is_file() or (ROOT / "hpsweep" / span).is_file(), f"{name(page)} names {span}"
