"""The record Command: a script of any language that trains one trial, and where its losses are read."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

from hpsweep.spec.checks import check_fields
from hpsweep.spec.fields import documented, field, fields_of, metadata_of_field
from hpsweep.spec.templates import used_names
from hpsweep.text import shown

LOSSES = ("step", "train_loss", "val_loss")
"""What a point of a loss curve has: the steps done, the training loss and the held-out loss."""

DERIVED_NAMES = ("tokens", "warmup_steps", "m_d", "m_rho", "attention_scale")
"""What a template may use that follows from the fields of the trial."""
RUN_NAMES = ("trial_id", "folder", "config", "attempt")
"""What a template may use that is of the run: the trial's own folder, and a JSON file with all of it."""
TAKEN_NAMES = (*DERIVED_NAMES, *RUN_NAMES, "numbers", "vocabulary", "run")
"""Names that no axis of the user's own may have."""

_HUGGING_FACE = {"step": "step", "train_loss": "loss", "val_loss": "eval_loss"}
_CSV = {name: name for name in LOSSES}
_DEFAULT_NAMES = {"csv": _CSV, "json": _HUGGING_FACE}
_WAYS = "report, csv:PATH?val_loss=COLUMN, json:PATH?val_loss=KEY or stdout:REGULAR EXPRESSION"


class LossSource(NamedTuple):
    """Where losses are read: report, csv, json or stdout."""

    kind: str
    path: str = ""
    """Of a file: a template, which may have * in it; relative to the trial's folder."""
    names: Mapping[str, str] = _CSV
    """Of a file: the column or key of each of LOSSES."""
    pattern: str = ""
    """Of stdout: a regular expression for a line, whose groups are named as LOSSES."""


@documented
@dataclass(frozen=True, kw_only=True)
class Command:
    """A program that trains one trial, such as Command(argv=["python", "train.py", "--lr={lr}"]).

    `argv` is a list of arguments, and no shell reads it. In braces stands arithmetic of the trial's fields, of the
    settings that the sweep adds, and of tokens, warmup_steps, m_d, m_rho and attention_scale: {lr}, {lr/10},
    {1-density}, {width//64}, {max(1, round(0.1*steps))}. {folder} is a folder of the trial alone, {trial_id} its id,
    {config} a JSON file with all of it, {attempt} how often it was tried. {--tied if tied} and {--untied if not tied}
    are flags. {{ and }} are braces.

    `losses` says where losses are where the script does not report them by `hpsweep.this_trial().report(...)`, which is
    always believed first:

        csv:log.csv?step=iter&val_loss=val/loss         columns of a CSV file
        json:trainer_state.json                         the log_history of Hugging Face's Trainer, or any list
        stdout:step (?P<step>\\d+).* val (?P<val_loss>\\S+)    a regular expression, for each line that is printed

    Paths are relative to {folder}, and of several files that a * matches the newest is read. The result of a trial is
    the last held-out loss at `last_step`. Raises ValueError for what cannot be run or read.
    """

    argv: Sequence[str] = dataclasses.field(metadata=metadata_of_field("the program and its arguments, as templates"))
    losses: str = field("report", "where losses are read: report, csv:PATH, json:PATH or stdout:REGULAR EXPRESSION")
    last_step: str = field("{steps}", "what the script calls the step after which it is finished, as a template")
    timeout: float | None = field(None, "longest time of a trial; None: no limit", "seconds", "(0, 1e8]")
    grace: float = field(30.0, "time between SIGTERM and SIGKILL after the timeout", "seconds", "[0, 1e6]")
    environment: Mapping[str, str] = dataclasses.field(
        default_factory=dict, metadata=metadata_of_field("variables of its environment, as templates")
    )

    def __post_init__(self) -> None:
        self._check_argv()
        check_fields(self, fields_of(Command), ("losses", "last_step", "timeout", "grace"), of="command")
        self._check_environment()
        used_names(self.last_step)
        source = self.source
        is_outside = source.path.startswith(("/", "~")) or ".." in Path(source.path).parts
        if is_outside and not {"folder", "trial_id"} & set(used_names(source.path)):
            raise ValueError(
                f"command losses {shown(self.losses)} is one file for all trials; have the script write into "
                "{folder}, and give the path there, such as csv:log.csv."
            )

    def _check_argv(self) -> None:
        argv: Any = self.argv
        if isinstance(argv, str):
            raise ValueError(
                f"command argv is the text {shown(argv)}; give a list of arguments, which no shell reads: "
                'argv=["python", "train.py", "--lr={lr}"], or shlex.split(text).'
            )
        if not isinstance(argv, Sequence) or not argv or not all(isinstance(word, str) for word in argv):
            raise ValueError(
                f"command argv is {shown(argv)}; give a list of texts, such as ['python', 'train.py', '--lr={{lr}}']."
            )
        for word in argv:
            used_names(word)
            if "\0" in word:
                raise ValueError(f"command argument {shown(word)} has a zero byte, which no argument can have.")
        if not argv[0]:
            raise ValueError("the first command argument is empty; it is the program, such as 'python'.")
        object.__setattr__(self, "argv", tuple(argv))

    def _check_environment(self) -> None:
        given: Any = self.environment
        if not isinstance(given, Mapping):
            raise ValueError(f"command environment is {shown(given)}; give a dictionary of names and texts.")
        for name, value in given.items():
            if not isinstance(name, str) or not re.fullmatch(r"[^=\0]+", name) or not isinstance(value, str):
                raise ValueError(f"command environment has {shown(name)}: {shown(value)}; give names with texts.")
            used_names(value)
        object.__setattr__(self, "environment", dict(given))

    @property
    def label(self) -> str:
        """What a trial's field `model` says: the script that is run."""
        scripts = [Path(word).name for word in self.argv if Path(word).suffix and "{" not in word]
        return f"command:{scripts[0] if scripts else Path(self.argv[0]).name}"

    @property
    def source(self) -> LossSource:
        """Where losses are read, taken apart. Raises ValueError for what is no such place."""
        return loss_source(self.losses)

    @property
    def used_names(self) -> list[str]:
        """Every name that a template of the command uses, in their order."""
        templates = [*self.argv, *self.environment.values(), self.last_step, self.source.path]
        return list(dict.fromkeys(name for template in templates for name in used_names(template)))

    def check_names(self, names: Iterable[str]) -> None:
        """Raise ValueError for a template that uses another name than these and those that every run has."""
        known = [*names, *DERIVED_NAMES, *RUN_NAMES]
        for name in self.used_names:
            if name not in known:
                hint = f"Known: {', '.join(known)}."
                close = difflib.get_close_matches(name, known, n=1)
                if close:
                    hint = f"Did you mean {close[0]!r}?"
                raise ValueError(f"the command uses {{{name}}}, which no trial has. {hint}")

    def to_dict(self) -> dict[str, Any]:
        """The record as plain data, of which Command(**data) makes it again."""
        return {**dataclasses.asdict(self), "argv": list(self.argv)}


def loss_source(text: str) -> LossSource:
    """Where losses are read. Raises ValueError for another kind, for an unknown option and a pattern without groups."""
    kind, _, rest = text.partition(":")
    if text == "report":
        return LossSource("report")
    if kind == "stdout" and rest.strip():
        return LossSource("stdout", pattern=_pattern(rest.strip()))
    if kind not in _DEFAULT_NAMES or not rest:
        raise ValueError(f"command losses is {shown(text)}; allowed: {_WAYS}.")
    path, _, options = rest.partition("?")
    names = dict(_DEFAULT_NAMES[kind])
    if "?" in rest:
        names |= _options(text, kind, options)
    used_names(path)
    return LossSource(kind, path, names)


def _pattern(pattern: str) -> str:
    try:
        groups = re.compile(pattern).groupindex
    except re.error as error:
        raise ValueError(
            f"command losses has the regular expression {shown(pattern)}, which is none ({error})."
        ) from None
    if not {"step", "val_loss"} <= set(groups) or not set(groups) <= set(LOSSES):
        raise ValueError(
            f"command losses has the regular expression {shown(pattern)} with the groups "
            f"{', '.join(groups) or 'none'}; name (?P<step>...) and (?P<val_loss>...), and "
            "(?P<train_loss>...) where it is printed too."
        )
    return pattern


def _options(text: str, kind: str, options: str) -> dict[str, str]:
    allowed = f"{kind} takes {', '.join(LOSSES)}, as NAME=VALUE joined by '&' after one '?'"
    try:  # a plus is a plus in a name, not a space
        pairs = parse_qsl(options.replace("+", "%2B"), keep_blank_values=True, strict_parsing=True)
    except ValueError:
        raise ValueError(f"command losses is {shown(text)}; {allowed}.") from None
    for name, value in pairs:
        if name not in LOSSES or not value:
            raise ValueError(f"command losses has the option {shown(name)} = {shown(value)}; {allowed}.")
    if len(dict(pairs)) < len(pairs):
        raise ValueError(f"command losses is {shown(text)}, with an option twice; {allowed}.")
    return dict(pairs)
