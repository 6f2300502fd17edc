"""The public names: each says what it needs and refuses, an editor sees them, and objects do what functions did."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import pytest
from matplotlib.figure import Figure

import hpsweep as hp
from hpsweep.analysis.transfer.card_tables import card_hyperparameters
from hpsweep.export.write import export
from hpsweep.spec import fields_of
from tests.analysis.transfer.test_transfer import TARGET, sweep
from tests.paths import ROOT

MODULES = (hp.law, hp.coords, hp.plot)
CLASSES = {"hpsweep.Card": hp.Card, "hpsweep.Plan": hp.Plan, "hpsweep.Report": hp.Report, "hpsweep.law.Law": hp.law.Law}
RUNS = ROOT / "results" / "reference" / "lr_by_density"


def functions() -> dict[str, Any]:
    """Every public function, and every public method of the classes that compute, by name."""
    found: dict[str, Any] = {}
    for module in (hp, *MODULES):
        found |= {f"{module.__name__}.{name}": getattr(module, name) for name in module.__all__}
    for cls in CLASSES.values():
        found |= {f"{cls.__name__}.{name}": getattr(cls, name) for name in dir(cls) if not name.startswith("_")}
    return {name: value for name, value in found.items() if inspect.isfunction(value) or inspect.ismethod(value)}


def said(function: Any) -> str:
    """Its docstring on one line."""
    return " ".join(function.__doc__.split()).replace("Raises", "raises")


CHECKED_ELSEWHERE = (
    *("hpsweep.plot.predicted_against_measured", "hpsweep.plot.residuals_by_sparsity", "hpsweep.plot.profiles"),
    *("hpsweep.plot.path_table", "Card.hyperparameters"),
    *("Card.to_json", "Law.to_json", "Plan.to_json", "Plan.to_dict", "Plan.state_dict", "Plan.is_sparse"),
    *("Plan.masks", "Plan.init_", "Plan.param_groups", "Plan.attention_scale"),
)


def test_every_public_function_says_what_it_gives_and_what_it_refuses() -> None:
    lacking = [name for name, function in functions().items() if not (function.__doc__ or "").strip()]
    assert not lacking
    silent = {name for name, function in functions().items() if "raises ValueError" not in said(function)}
    assert silent <= set(CHECKED_ELSEWHERE), sorted(silent - set(CHECKED_ELSEWHERE))


@pytest.mark.parametrize("record", [hp.Trial, hp.Sweep, hp.Target, hp.Refine])
def test_the_docstring_of_a_record_has_every_field_with_its_unit_and_range(record: type) -> None:
    for name, field in fields_of(record).items():
        assert field.meaning
        assert f"    {name}: {field}" in (record.__doc__ or "")


REFERENCE = (ROOT / "docs" / "api.md").read_text()


def test_the_reference_lists_every_public_name_of_every_module_and_every_public_method() -> None:
    listed = set(re.findall(r"^\.\. auto(?!module)\w+:: (hpsweep\.[\w.]+)", REFERENCE, re.M))
    wanted = {f"{module.__name__}.{name}" for module in MODULES for name in module.__all__}
    wanted |= {f"hpsweep.{name}" for name in hp.__all__ if not isinstance(getattr(hp, name), ModuleType)}
    for path, cls in CLASSES.items():
        wanted |= {f"{path}.{name}" for name in dir(cls) if not name.startswith("_") and name not in fields_named(cls)}
    assert listed == wanted - {"hpsweep.__version__"}


def fields_named(cls: Any) -> set[str]:
    """The fields of a record, which its docstring describes."""
    return {field.name for field in dataclasses.fields(cls)} if dataclasses.is_dataclass(cls) else set()


@pytest.mark.parametrize("given", [3, None, "x", [1]], ids=repr)
def test_every_public_function_names_a_wrong_argument_in_one_error(
    given: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for module in (hp, *MODULES):
        for name in module.__all__:
            function = getattr(module, name)
            if not inspect.isfunction(function):
                continue
            needed = [each for each in inspect.signature(function).parameters.values() if each.default is each.empty]
            if not needed:  # this_trial, which takes nothing
                continue
            named = {each.name: given for each in needed if each.kind is each.KEYWORD_ONLY}
            with pytest.raises(ValueError):  # noqa: PT011  each has words of its own
                function(*[given] * (len(needed) - len(named)), **named)


def test_a_folder_that_is_none_is_shown_as_it_was_given() -> None:
    with pytest.raises(ValueError, match=r"the folder is 3; give a path, such as load"):
        hp.load(3)
    with pytest.raises(ValueError, match=r"the folder is \['results/a', 'results/b'\]; .*several as load"):
        hp.load(["results/a", "results/b"])


def test_a_card_does_itself_what_functions_do_with_it() -> None:
    card = hp.Card.read(RUNS / "card.json")
    for trainer in ("torch", "hf"):
        assert card.export(trainer) == export(card, trainer)
    with pytest.raises(ValueError, match="allowed: torch, hf, nanogpt"):
        card.export("jax")
    pd.testing.assert_frame_equal(card.hyperparameters(), card_hyperparameters(card))
    target = sweep(scheme=["supar"], width=[TARGET.width], density=[TARGET.density])
    made = hp.transfer(sweep(scheme=["supar"]), TARGET)
    pd.testing.assert_frame_equal(made.regret(target), hp.regret(target, card=made))


def test_a_law_says_where_it_is_asked_beyond_what_it_was_fitted_to() -> None:
    law = sparse_law()
    inside = pd.DataFrame({"params": [8e6], "tokens": [2e9], "sparsity": [0.5]})
    assert (law.predict(inside)["reach"] == "inside").all()
    beyond = pd.concat([inside, inside.assign(tokens=1e11)])
    with pytest.warns(UserWarning, match=r"1 of 2 points is outside of what the law was fitted to \(S 0 to 0.875, N "):
        assert list(law.predict(beyond)["reach"]) == ["inside", "beyond"]


def test_an_editor_sees_every_public_name() -> None:
    tree = ast.parse((ROOT / "hpsweep" / "__init__.py").read_text())
    seen = {alias.asname for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert seen - {None} == set(hp.__all__) - {"__version__"}
    assert dir(hp) == hp.__all__
    for module in MODULES:
        assert isinstance(module, ModuleType)
        assert set(dir(module)) >= set(module.__all__)


def sparse_law() -> hp.law.Law:
    """The law of what a published one says of three sizes, amounts of data and sparsities each."""
    grid = itertools.product([0.0, 0.5, 0.75, 0.875], [1e6, 4e6, 16e6, 64e6], [1e9, 4e9, 16e9])
    table = pd.DataFrame(grid, columns=["sparsity", "params", "tokens"])
    loss = hp.law.evaluate(hp.law.PUBLISHED["t5_c4"], table["sparsity"], table["params"], table["tokens"])
    return hp.law.fit_law(table.assign(loss=loss), resamples=50)


def test_laws_coordinate_verdicts_and_figures_are_made_without_torch() -> None:
    script = "import sys, hpsweep as hp; hp.law.fit_law, hp.coords.slopes, hp.plot.regret, hp.Card, hp.regret; "
    script += "assert not {'torch', 'ray', 'optuna'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_a_law_says_itself_what_the_functions_say_of_it() -> None:
    law = sparse_law()
    points = pd.DataFrame({"params": [8e6], "tokens": [2e9], "sparsity": [0.5]})
    told = hp.law.predict(law, points, extrapolate=True)
    pd.testing.assert_frame_equal(law.predict(points, extrapolate=True), told)
    budgets = points[["params", "tokens"]]
    told = hp.law.optimal_sparsity(law, budgets, cost="gradual", extrapolate=True)
    pd.testing.assert_frame_equal(law.optimal_sparsity(budgets, cost="gradual", extrapolate=True), told)
    pd.testing.assert_frame_equal(law.dense_equivalent(), hp.law.dense_equivalent(law))


def test_a_report_is_saved_and_shown(tmp_path: Path) -> None:
    made = hp.report(hp.load(RUNS))
    page, text = made.save(tmp_path / "made" / "here")
    assert page.name == "report.html"
    assert text.is_file()
    assert "srcdoc=&quot;" not in made._repr_html_()
    assert "&lt;h1&gt;" in made._repr_html_()


def test_figures_take_runs_or_tables_and_draw_where_they_are_told() -> None:
    runs = hp.load(RUNS)
    one = runs[runs["scheme"] == "supar"]

    def axes() -> Any:
        return Figure(figsize=(5, 4), layout="constrained").subplots()

    optima, drift = hp.optima(runs, resamples=50), hp.drift(runs, resamples=50)
    assert len(hp.plot.optimum_stability(runs, optima, drift).axes) >= 2
    assert len(hp.plot.optimum_path(optima, drift).axes) == 1
    for figure in (hp.plot.optimum_stability, hp.plot.optimum_path, hp.plot.regret):
        ax = axes()
        assert figure(one, ax=ax) is ax.figure
        assert ax.has_data() or ax.patches
        assert isinstance(figure(one), Figure)
    dense = one[one["density"] == 1]
    assert isinstance(hp.plot.optimum_stability(dense, hp.optima(dense, resamples=50)), Figure)
    ax = axes()
    assert hp.plot.regret(hp.regret_matrix(one, resamples=50), ax=ax) is ax.figure
    with pytest.raises(ValueError, match=r"2 schemes \(sp; supar\), and an Axes holds one"):
        hp.plot.regret(runs, ax=axes())
    law = sparse_law()
    for draw in (hp.plot.predicted_against_measured, hp.plot.residuals_by_sparsity, hp.plot.dense_equivalents):
        ax = axes()
        assert draw(law, ax=ax) is ax.figure
    for draw in (hp.plot.profiles, hp.plot.loss_contours, hp.plot.best_sparsity, hp.plot.sparsity_contours):
        assert isinstance(draw(law), Figure)
    with pytest.raises(ValueError, match="give a Law"):
        hp.plot.profiles(runs)
