from __future__ import annotations

import argparse
import ast
import dataclasses
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

import hpsweep
from hpsweep.own_training.trial_file import write_trial
from hpsweep.rules.multipliers import attention_scale, tensor_numbers
from hpsweep.running_trial import RunningTrial, evaluated, names_in, this_trial
from hpsweep.spec import Trial
from tests.paths import ROOT

FILE = ROOT / "hpsweep" / "running_trial.py"
TRIAL = Trial(scheme="supar", width=256, density=1 / 4, steps=40, lr=2.0**-7, weight_decay=0.1, warmup_fraction=0.1)


@pytest.fixture
def trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunningTrial:
    """The trial that a sweep started this process for."""
    write_trial(TRIAL, tmp_path, attempt=2)
    monkeypatch.setenv("HPSWEEP_TRIAL", str(tmp_path / "trial.json"))
    monkeypatch.setenv("HPSWEEP_REPORT", str(tmp_path / "report.jsonl"))
    return this_trial()


def reported(folder: Path) -> list[Any]:
    return [json.loads(line) for line in (folder / "report.jsonl").read_text().splitlines()]


# --- outside of a sweep ---


def test_outside_of_a_sweep_it_is_false_and_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HPSWEEP_TRIAL", raising=False)
    trial = hpsweep.this_trial()
    assert not trial
    args = argparse.Namespace(lr=0.1)
    assert trial.into(args, "no_such_name", lr="no such expression") is args
    assert vars(args) == {"lr": 0.1}
    trial.report(3, val_loss=1.0, no_such_size=1)
    assert trial.get("lr", 0.3) == 0.3
    assert trial.numbers("hidden") is None
    assert trial.folder is None
    assert trial.attempt == 0
    with pytest.raises(AttributeError, match=r"no trial to ask for 'lr'.*trial\.get\('lr', default\)"):
        _ = trial.lr
    assert not hasattr(trial, "width")


def test_a_trial_whose_file_is_gone_is_said_and_is_not_taken_for_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HPSWEEP_TRIAL", "/no/such/file.json")
    with pytest.raises(ValueError, match=r"HPSWEEP_TRIAL is '/no/such/file.json'.*Unset it"):
        this_trial()


def test_the_file_stands_alone_in_python_3_8_and_imports_the_standard_library_only() -> None:
    tree = ast.parse(FILE.read_text(), feature_version=(3, 8))
    modules = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    modules |= {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    assert {module.partition(".")[0] for module in modules} <= sys.stdlib_module_names


def test_asking_for_the_trial_imports_neither_torch_nor_tables_nor_numpy() -> None:
    code = "import sys, hpsweep; hpsweep.this_trial(); hpsweep.this_trial(); print(sorted(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    loaded = ast.literal_eval(out)
    assert not {"torch", "pandas", "numpy", "pyarrow", "optuna", "ray"} & set(loaded)
    assert [name for name in loaded if name.startswith("hpsweep.")] == ["hpsweep.running_trial"]


# --- what it knows ---


def test_every_field_is_an_attribute_and_an_item(trial: RunningTrial, tmp_path: Path) -> None:
    assert trial
    for name, value in TRIAL.resolved.items():
        if name != "settings":
            assert trial[name] == getattr(trial, name) == value
    assert (trial.tokens, trial.warmup_steps) == (TRIAL.total_tokens, TRIAL.warmup_steps)
    assert (trial.m_d, trial.m_rho) == (2, 1 / 4)
    assert trial.attention_scale == attention_scale(TRIAL)
    assert trial.trial_id == TRIAL.trial_id
    assert trial.folder == str(tmp_path)
    assert trial.attempt == 2
    assert trial.get("lr", 0.3) == 2.0**-7


def test_settings_that_the_sweep_added_are_asked_for_as_fields_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grouped = TRIAL.replace()
    vars(grouped)["resolved"] = {**TRIAL.resolved, "settings": '{"kv_group": 2, "norm": "rms"}'}
    write_trial(grouped, tmp_path, attempt=1)
    monkeypatch.setenv("HPSWEEP_TRIAL", str(tmp_path / "trial.json"))
    trial = this_trial()
    assert trial.kv_group == 2
    assert trial["norm"] == "rms"
    assert not hasattr(trial, "settings")


def test_a_name_that_the_trial_lacks_is_an_error_with_the_nearest_one(trial: RunningTrial) -> None:
    with pytest.raises(KeyError, match=r"the trial has no 'widht'. Did you mean 'width'"):
        _ = trial["widht"]
    with pytest.raises(AttributeError, match="the trial has no 'widht'"):
        _ = trial.widht
    with pytest.raises(KeyError, match="the trial has no 'widht'"):
        trial.get("widht", 3)


def test_numbers_of_a_kind_are_those_of_the_tensors_of_the_trials_own_model(trial: RunningTrial) -> None:
    model = tensor_numbers(TRIAL.replace(tied=False), vocabulary=100)
    tensors = {of.kind: of for name, of in model.items() if name != "block0.mlp.out"}  # four times as wide a fan-in
    assert set(tensors) == {"embedding", "hidden", "residual_out", "norm", "readout"}
    for kind, expected in tensors.items():
        found = trial.numbers(kind)
        assert found is not None
        for name in ("init_std", "lr", "weight_decay", "forward"):
            assert getattr(found, name) == getattr(expected, name)
    hidden = trial.numbers("hidden")
    assert hidden is not None
    assert hidden.lr == 2.0**-7 / 2 * 4  # base lr / m_d / m_rho
    with pytest.raises(ValueError, match=r"kind is 'matrix'; allowed: embedding, hidden"):
        trial.numbers("matrix")


# --- into a configuration ---


@dataclasses.dataclass
class Config:
    """A configuration as training scripts have it."""

    n_embd: int = 768
    learning_rate: float = 6e-4
    min_lr: float = 6e-5
    seed: int = 1337
    sparsity: float = 0.0


def targets() -> list[Any]:
    module = ModuleType("config")
    vars(module).update(dataclasses.asdict(Config()))
    return [Config(), argparse.Namespace(**dataclasses.asdict(Config())), dataclasses.asdict(Config()), module]


@pytest.mark.parametrize("target", targets(), ids=lambda target: type(target).__name__)
def test_values_go_into_any_configuration_under_its_own_names(trial: RunningTrial, target: Any) -> None:
    given = trial.into(target, "seed", n_embd="width", learning_rate="lr", min_lr="lr/10", sparsity="1-density")
    assert given is target
    values = target if isinstance(target, dict) else vars(target)
    expected = {"n_embd": 256, "learning_rate": 2.0**-7, "min_lr": 2.0**-7 / 10, "seed": 0, "sparsity": 0.75}
    assert {name: values[name] for name in expected} == expected


def test_a_number_has_the_type_of_the_one_that_it_replaces(trial: RunningTrial) -> None:
    args = argparse.Namespace(warmup_iters=100, lr=0, dropout=0.1, d=1.5, name=None)
    trial.into(args, warmup_iters="0.1*steps", lr="lr", dropout="seed", d="depth", name="scheme")
    assert repr(args) == "Namespace(warmup_iters=4, lr=0.0078125, dropout=0.0, d=2.0, name='supar')"


def test_a_name_that_nothing_would_read_is_an_error_and_nothing_is_set(trial: RunningTrial) -> None:
    config = Config()
    with pytest.raises(ValueError, match=r"no 'learning_rte', so nothing would read it. Did you mean 'learning_rate'"):
        trial.into(config, n_embd="width", learning_rte="lr")
    with pytest.raises(ValueError, match=r"uses the unknown name 'widht'. Did you mean 'width'"):
        trial.into(config, seed="seed", n_embd="widht")
    assert config == Config()
    with pytest.raises(ValueError, match="no 'lr', so nothing"):
        trial.into({"a": 1}, lr="lr")


def test_a_frozen_configuration_is_said_to_be_one(trial: RunningTrial) -> None:
    frozen = dataclasses.make_dataclass("Frozen", [("lr", float)], frozen=True)(0.1)
    with pytest.raises(ValueError, match=r"lr of the Frozen cannot be set.*dataclasses\.replace"):
        trial.into(frozen, "lr")


# --- reports ---


def test_losses_are_lines_of_json_and_those_that_are_not_finite_stay_so(trial: RunningTrial, tmp_path: Path) -> None:
    trial.report(1, train_loss=5)
    trial.report(2, train_loss=math.inf, val_loss=math.nan)
    trial.report(parameters=1000)
    first, second, third = reported(tmp_path)
    assert first == {"step": 1, "train_loss": 5.0}
    assert second["train_loss"] == math.inf
    assert math.isnan(second["val_loss"])
    assert third == {"parameters": 1000}


@pytest.mark.parametrize("make", [torch.tensor, np.array, list, tuple])
def test_a_loss_per_example_may_be_a_tensor_an_array_or_a_list(trial: RunningTrial, tmp_path: Path, make: Any) -> None:
    trial.report(4, val_loss=make([1.0, 2.0, math.inf]))
    assert reported(tmp_path) == [{"step": 4, "val_loss": [1.0, 2.0, math.inf]}]


@pytest.mark.parametrize("one", [torch.tensor(1.5), np.float32(1.5), torch.tensor(1.5, dtype=torch.bfloat16)])
def test_a_loss_may_be_a_tensor_or_a_number_of_numpy(trial: RunningTrial, tmp_path: Path, one: Any) -> None:
    trial.report(np.int64(4), val_loss=one)
    assert reported(tmp_path) == [{"step": 4, "val_loss": 1.5}]


def test_only_the_first_of_several_processes_reports(
    trial: RunningTrial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for rank in ("1", "0", "2"):
        monkeypatch.setenv("RANK", rank)
        trial.report(int(rank) + 1, val_loss=1.0)
    assert reported(tmp_path) == [{"step": 1, "val_loss": 1.0}]


def test_the_first_of_processes_that_the_script_started_itself_is_asked_of_torch(
    trial: RunningTrial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    for rank in (1, 0, 2):
        monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
        trial.report(rank + 1, val_loss=1.0)
    assert reported(tmp_path) == [{"step": 1, "val_loss": 1.0}]


def test_what_cannot_be_reported_is_an_error(trial: RunningTrial, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'valloss' cannot be reported. Did you mean 'val_loss'"):
        trial.report(1, valloss=3.0)
    with pytest.raises(ValueError, match="a loss is of a step"):
        trial.report(val_loss=3.0)
    assert not (tmp_path / "report.jsonl").exists()


def test_a_copy_of_the_file_does_the_same(tmp_path: Path) -> None:
    (tmp_path / "running_trial.py").write_text(FILE.read_text())
    write_trial(TRIAL, tmp_path, attempt=1)
    code = "from running_trial import this_trial; trial = this_trial(); trial.report(trial.steps, val_loss=trial.lr)"
    files = {"HPSWEEP_TRIAL": str(tmp_path / "trial.json"), "HPSWEEP_REPORT": str(tmp_path / "report.jsonl")}
    subprocess.run([sys.executable, "-S", "-c", code], cwd=tmp_path, env={**os.environ, **files}, check=True)
    assert reported(tmp_path) == [{"step": 40, "val_loss": 2.0**-7}]


# --- arithmetic ---

VALUES = {"lr": 0.02, "width": 256, "density": 0.25, "steps": 90, "tied": True, "data": "stdlib"}


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("lr", 0.02),
        ("lr/10", 0.002),
        ("1-density", 0.75),
        ("width//64", 4),
        ("-width % 100", 44),
        ("2**-7", 2**-7),
        ("max(1, round(0.05*steps))", 4),
        ("min(width, steps, 8)", 8),
        ("round(lr/3, 4)", 0.0067),
        ("int(tied)", 1),
        ("int(steps/4)", 22),
        ("data", "stdlib"),
        ("tied", True),
        (" (width + 4) * 2 ", 520),
    ],
)
def test_arithmetic_gives_what_python_gives(expression: str, expected: Any) -> None:
    assert evaluated(expression, VALUES) == pytest.approx(expected)
    assert type(evaluated(expression, VALUES)) is type(expected)


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("", "is no arithmetic"),
        ("lr/", "is no arithmetic"),
        ("lr if tied", "is no arithmetic"),
        ("lr.real", "a part that is not allowed; allowed: names, numbers"),
        ("__import__('os')", "a part that is not allowed"),
        ("'text'", "a part that is not allowed"),
        ("lr and 1", "a part that is not allowed"),
        ("lr < 1", "a part that is not allowed"),
        ("1j", "a part that is not allowed"),
        ("round(lr, ndigits=2)", "calls round in a way"),
        ("widht/2", "unknown name 'widht'. Did you mean 'width'"),
        ("width/(steps-90)", "cannot be computed with width=256, steps=90: division by zero"),
        ("data*2", "'stdlib' is no number"),
        ("tied+1", "True is no number"),
        ("(-width)**0.5", "the root of a negative number"),
        ("10**10**10", "the power is too large"),
        ("1e308*10", "it has to be a finite number"),
        ("1+" * 200 + "1", "more than 200 characters"),
    ],
)
def test_anything_else_is_an_error_that_says_what_is_allowed(expression: str, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        evaluated(expression, VALUES)


def test_the_names_of_an_expression_are_listed_once_each() -> None:
    assert names_in("max(width, lr) + lr*2") == ["width", "lr"]
    assert names_in("3") == []
