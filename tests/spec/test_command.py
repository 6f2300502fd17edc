from __future__ import annotations

import dataclasses
import json
import pickle
from typing import Any

import pytest

import hpsweep
from hpsweep.own_training.trial_file import run_values
from hpsweep.spec import RESOLVED, Trial, fields_of
from hpsweep.spec.command import DERIVED_NAMES, RUN_NAMES, Command, loss_source
from tests.paths import ROOT

WORDS = ["python", "train.py", "--lr={lr}"]


def test_a_command_is_plain_data_that_makes_it_again() -> None:
    command = Command(
        argv=WORDS, losses="csv:log.csv", timeout=30, environment={"N": "{seed}"}, last_step="{steps//100}"
    )
    assert Command(**json.loads(json.dumps(command.to_dict()))) == command
    assert pickle.loads(pickle.dumps(command)) == command
    assert command.argv == tuple(WORDS)
    assert type(command.timeout) is float
    assert hpsweep.Command is Command


def test_the_docstring_has_every_field() -> None:
    for name, field in fields_of(Command).items():
        assert f"    {name}: {field}" in (Command.__doc__ or "")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"argv": "python train.py"}, r"give a list of arguments, which no shell reads.*shlex\.split"),
        ({"argv": []}, "give a list of texts"),
        ({"argv": ["python", 3]}, "give a list of texts"),
        ({"argv": ["", "a"]}, "the first command argument is empty"),
        ({"argv": ["python", "a\0b"]}, "has a zero byte"),
        ({"argv": ["python", "{lr"]}, "a brace that belongs to no other"),
        ({"argv": ["python", "{lr+}"]}, "is no arithmetic"),
        ({"timeout": 0}, r"command timeout is 0; allowed: \(0, 1e\+08\]"),
        ({"timeout": "1h"}, "command timeout is '1h'; give a finite number"),
        ({"grace": -1}, r"command grace is -1; allowed"),
        ({"last_step": "{steps"}, "a brace that belongs to no other"),
        ({"environment": ["A"]}, "give a dictionary"),
        ({"environment": {"A": 1}}, r"environment has 'A': 1; give names with texts"),
        ({"environment": {"A=B": "1"}}, "give names with texts"),
        ({"environment": {"A": "{"}}, "a brace that belongs to no other"),
        ({"losses": "log.csv"}, r"losses is 'log.csv'; allowed: report, csv:PATH"),
        ({"losses": "csv:"}, "allowed: report, csv:PATH"),
        ({"losses": "csv:log.csv?valloss=x"}, r"the option 'valloss' = 'x'; csv takes step, train_loss, val_loss"),
        ({"losses": "csv:log.csv?val_loss="}, r"the option 'val_loss' = ''"),
        ({"losses": "csv:log.csv?val_loss"}, r"csv takes step"),
        ({"losses": "csv:log.csv?step=a&step=b"}, "with an option twice"),
        ({"losses": "csv:/tmp/log.csv"}, r"one file for all trials; have the script write into \{folder\}"),
        ({"losses": "csv:~/log.csv"}, "one file for all trials"),
        ({"losses": "json:../state.json"}, "one file for all trials"),
        ({"losses": "stdout:"}, "allowed: report"),
        ({"losses": "stdout: (loss"}, r"the regular expression '\(loss', which is none"),
        ({"losses": r"stdout: val (\S+)"}, r"with the groups none; name \(\?P<step>"),
        ({"losses": r"stdout: (?P<step>\d+) (?P<loss>\S+)"}, "with the groups step, loss; name"),
    ],
)
def test_a_command_that_cannot_be_run_or_read_is_an_error(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Command(**{"argv": WORDS, **fields})


def test_losses_say_where_they_are_and_what_they_are_called_there() -> None:
    assert Command(argv=WORDS).source.kind == "report"
    source = loss_source("csv:out/{trial_id}.csv?val_loss=val/loss+1&step=iter")
    assert (source.kind, source.path) == ("csv", "out/{trial_id}.csv")
    assert source.names == {"step": "iter", "train_loss": "train_loss", "val_loss": "val/loss+1"}
    source = loss_source("json:checkpoint-*/trainer_state.json")
    assert source.names == {"step": "step", "train_loss": "loss", "val_loss": "eval_loss"}
    assert loss_source("csv:/data/{trial_id}/log.csv").path == "/data/{trial_id}/log.csv"
    pattern = r"step (?P<step>\d+): val (?P<val_loss>\S+)?"
    assert loss_source(f"stdout: {pattern}").pattern == pattern


def test_the_names_that_a_command_uses_are_those_of_all_its_templates() -> None:
    command = Command(
        argv=["python", "{--tied if tied}", "{lr/width}"],
        environment={"SEED": "{seed}"},
        losses="csv:{folder}/log.csv",
        last_step="{steps//100}",
    )
    assert command.used_names == ["tied", "lr", "width", "seed", "steps", "folder"]


def test_a_name_that_no_trial_has_is_an_error_with_the_nearest_one() -> None:
    command = Command(argv=[*WORDS, "--kv={kv_grup}"])
    with pytest.raises(ValueError, match=r"the command uses \{kv_grup\}, which no trial has. Did you mean 'kv_group'"):
        command.check_names([*RESOLVED, "kv_group"])
    with pytest.raises(ValueError, match=r"which no trial has. Known: scheme, model"):
        dataclasses.replace(command, argv=["python", "{q}"]).check_names(RESOLVED)
    Command(argv=[*WORDS, "{kv_group}", "{m_d}", "{folder}", "{config}"]).check_names([*RESOLVED, "kv_group"])


def test_the_names_that_every_command_may_use_are_those_that_every_trial_gets() -> None:
    values = run_values(Trial(steps=1), ROOT, 1)
    assert [*(name for name in RESOLVED if name != "settings"), *DERIVED_NAMES, *RUN_NAMES] == list(values)
