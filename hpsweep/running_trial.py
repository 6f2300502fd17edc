"""The trial that this process trains, for a training script: lines that do nothing outside of a sweep.

    trial = this_trial()
    trial.into(args, learning_rate="lr", n_embd="width", min_lr="lr/10")
    ...
    trial.report(step, val_loss=loss)

This file needs nothing but the standard library of Python 3.8 or newer. So `hpsweep.this_trial` is there where hpsweep
is installed, and elsewhere a copy of this file is: `from running_trial import this_trial`.

A sweep writes two paths into the environment: HPSWEEP_TRIAL is a JSON file with everything about the trial, and
HPSWEEP_REPORT the file that takes its losses, a JSON object a line.
"""

from __future__ import annotations

import ast
import difflib
import json
import math
import operator
import os
import sys
from collections.abc import Mapping, MutableMapping
from types import SimpleNamespace
from typing import Any

TRIAL, REPORT = "HPSWEEP_TRIAL", "HPSWEEP_REPORT"
"""Variables of the environment."""

COUNTS = ("tokens", "parameters", "embedding_parameters", "hidden_parameters", "hidden_nonzeros", "vocabulary")
SIZES = (*COUNTS, "flops_dense", "flops_sparse", "data_hash")
"""What a script may report of its model and data beside losses; data_hash is text, the others are numbers."""


def this_trial() -> RunningTrial:
    """The trial of this process; outside of a sweep an object that is false and whose methods do nothing.

    Its fields, and the settings that the sweep added, are attributes and items: `trial.lr`, `trial["lr"]`. Raises
    ValueError where a sweep started this process and the trial's file cannot be read.
    """
    path = os.environ.get(TRIAL)
    if not path:
        return RunningTrial()
    try:
        with open(path, encoding="utf-8") as file:  # noqa: PTH123  this file stands alone
            return RunningTrial(json.load(file))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{TRIAL} is {path!r}, which is no file of a trial ({error}). Unset it, or start the script by hpsweep."
        ) from None


class RunningTrial:
    """What a script asks of its trial, and what it tells. Without values it is false, and its methods do nothing."""

    def __init__(self, values: Mapping[str, Any] | None = None) -> None:
        self._values = values

    def __bool__(self) -> bool:
        """Whether a sweep started this process."""
        return self._values is not None

    def __repr__(self) -> str:
        if self._values is None:
            return "no trial: this process was not started by a sweep"
        return f"trial {self._values['trial_id']}"

    def __getattr__(self, name: str) -> Any:
        """A field of the trial, or a setting of the sweep. Raises AttributeError for any other name."""
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            return self[name]
        except KeyError as error:
            raise AttributeError(error.args[0]) from None

    def __getitem__(self, name: str) -> Any:
        """A field of the trial, or a setting of the sweep. Raises KeyError for any other name."""
        if self._values is None:
            raise KeyError(
                f"there is no trial to ask for {name!r}: this process was not started by a sweep. "
                f"trial.get({name!r}, default) gives a default then, and `if trial:` asks."
            )
        names = _names(self._values)
        if name not in names:
            raise KeyError(f"the trial has no {name!r}. {_hint(name, names)}")
        return self._values[name]

    def get(self, name: str, default: Any = None) -> Any:
        """The field or setting; the default outside of a sweep. Raises KeyError for a name that the trial lacks."""
        if self._values is None:
            return default
        return self[name]

    @property
    def folder(self) -> str | None:
        """A folder of this trial alone, the same when it is tried again, so that a script may go on from its
        checkpoint; None outside of a sweep.
        """
        return self.get("folder")  # type: ignore[no-any-return]

    @property
    def attempt(self) -> int:
        """1 when the trial is tried for the first time, 2 when it is tried again; 0 outside of a sweep."""
        return self.get("attempt", 0)  # type: ignore[no-any-return]

    def into(self, target: Any, *same: str, **named: str) -> Any:
        """The target, with values of the trial: `trial.into(args, "seed", learning_rate="lr", min_lr="lr/10")`.

        The target is an argparse namespace, a dataclass, any object with attributes, or a dictionary such as
        `globals()`. On the left stands a name that it has already, on the right a field, a setting, or arithmetic of
        them. Names alone are those that both have. A whole number stays whole where the target has a whole one, and
        gets a point where it has a float. Raises ValueError, with nothing set, for a name that either lacks.
        """
        if self._values is None:
            return target
        expressions = {**dict.fromkeys(same, ""), **named}
        known = {name: self._values[name] for name in _names(self._values)}
        values = {}
        for name, expression in expressions.items():
            _check_has(target, name)
            value = evaluated(expression or name, known)
            values[name] = _like(value, _read(target, name))
        for name, value in values.items():
            _write(target, name, value)
        return target

    def numbers(self, kind: str) -> SimpleNamespace | None:
        """init_std, lr, weight_decay and forward of a tensor of that kind under the trial's scheme; None outside.

        Kinds are embedding, hidden, residual_out, norm, bias, keep and readout. A tensor whose fan-in is not the width
        scales by its own ratio, which `hpsweep.parametrize` finds and this does not. Raises ValueError for other kinds.
        """
        if self._values is None:
            return None
        numbers = self._values["numbers"]
        if kind not in numbers:
            raise ValueError(f"kind is {kind!r}; allowed: {', '.join(numbers)}.")
        return SimpleNamespace(**numbers[kind])

    def report(self, step: int | None = None, *, val_loss: Any = None, train_loss: Any = None, **sizes: Any) -> None:
        """Nothing: the losses after so many steps go to the sweep, and so do sizes of the model, once.

        `val_loss` is the held-out loss, whose last value at the trial's last step is the result. It may be a list with
        a loss per example (or a tensor, or an array), which gives a standard error too. Losses that are not finite
        are told as they are. `sizes`: parameters, hidden_nonzeros, flops_dense and the like. Of several processes only
        the first reports, by RANK or by torch.distributed. Raises ValueError for a loss without a
        step, and for sizes that are not known.
        """
        if self._values is None or _rank() != 0:
            return
        unknown = [name for name in sizes if name not in SIZES]
        if unknown:
            raise ValueError(
                f"{unknown[0]!r} cannot be reported. {_hint(unknown[0], ('val_loss', 'train_loss', *SIZES))}"
            )
        record: dict[str, Any] = {name: _plain(value) for name, value in sizes.items()}
        for name, value in (("train_loss", train_loss), ("val_loss", val_loss)):
            if value is not None:
                record[name] = _losses(value)
        if step is not None:
            record["step"] = int(step)
        elif len(record) > len(sizes):
            raise ValueError("a loss is of a step: report(step, val_loss=...), where step counts the steps done.")
        line = json.dumps(record) + "\n"
        # One write to a file that is open for appending is whole, whoever else writes.
        descriptor = os.open(os.environ[REPORT], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)


def _rank() -> int:
    """Which of several processes this is: by torchrun, or by torch.distributed where the script began it itself."""
    if "RANK" in os.environ:
        return int(os.environ["RANK"])
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        return int(distributed.get_rank())
    return 0


def _names(values: Mapping[str, Any]) -> list[str]:
    """What may be asked for by name."""
    return [name for name in values if name != "numbers"]


def _hint(name: str, known: Any) -> str:
    """The nearest known name, or all of them."""
    close = difflib.get_close_matches(name, known, n=1)
    if close:
        return f"Did you mean {close[0]!r}?"
    return f"Known: {', '.join(map(str, known))}."


def _plain(value: Any) -> Any:
    """A tensor's or an array's values as Python's own."""
    if hasattr(value, "tolist"):
        return value.tolist()
    return value


def _losses(value: Any) -> float | list[float]:
    """A loss, or one per example."""
    value = _plain(value)
    if isinstance(value, (list, tuple)):
        return [float(_plain(loss)) for loss in value]
    return float(value)


# --- what is set in a script's own configuration ---


def _check_has(target: Any, name: str) -> None:
    """Raise ValueError unless the target has the name: a setting that nobody reads would change nothing, silently."""
    if isinstance(target, Mapping):
        known = [key for key in target if isinstance(key, str)]
    else:
        known = [key for key in dir(target) if not key.startswith("_")]
    if name not in known:
        raise ValueError(f"the target of into() has no {name!r}, so nothing would read it. {_hint(name, known)}")


def _read(target: Any, name: str) -> Any:
    if isinstance(target, Mapping):
        return target[name]
    return getattr(target, name)


def _write(target: Any, name: str, value: Any) -> None:
    if isinstance(target, MutableMapping):
        target[name] = value
        return
    try:
        setattr(target, name, value)
    except AttributeError as error:  # as frozen dataclasses raise
        raise ValueError(
            f"{name} of the {type(target).__name__} cannot be set ({error}). Make one with the values instead: "
            f"dataclasses.replace(config, {name}=trial.get(...))."
        ) from None


def _like(value: Any, before: Any) -> Any:
    """The number, a float or a whole number as that before it."""
    if isinstance(value, bool) or isinstance(before, bool):
        return value
    if isinstance(before, float) and isinstance(value, int):
        return float(value)
    if isinstance(before, int) and isinstance(value, float) and value.is_integer():
        return int(value)
    return value


# --- arithmetic of names and numbers: {lr/10} in a command, "lr/10" in into() ---

_OPERATORS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
_FUNCTIONS = {"min": min, "max": max, "round": round, "int": int}
_ALLOWED = "names, numbers, + - * / // % **, min, max, round and int"
_LONGEST = 200  # characters


def names_in(expression: str) -> list[str]:
    """The names that an expression uses, in their order. Raises ValueError for what is no arithmetic of names and
    numbers.
    """
    found: list[str] = []
    _collect(_parsed(expression), expression, found)
    return list(dict.fromkeys(found))


def evaluated(expression: str, values: Mapping[str, Any]) -> Any:
    """What an expression gives for these values: "lr/10", "1-density", "width//64", "max(1, round(0.1*steps))".

    A name alone may be text or a truth value. Raises ValueError for an unknown name, for what is no arithmetic of names
    and numbers, and for a result that is no finite number.
    """
    for name in names_in(expression):
        if name not in values:
            raise ValueError(f"{expression!r} uses the unknown name {name!r}. {_hint(name, list(values))}")
    try:
        result = _value(_parsed(expression), values)
    except (ArithmeticError, TypeError, ValueError) as error:
        used = ", ".join(f"{name}={values[name]!r}" for name in names_in(expression))
        raise ValueError(f"{expression!r} cannot be computed with {used or 'these numbers'}: {error}.") from None
    if isinstance(result, float) and not math.isfinite(result):
        raise ValueError(f"{expression!r} is {result}; it has to be a finite number.")
    return result


def _parsed(expression: str) -> ast.expr:
    try:
        if len(expression) > _LONGEST:
            raise ValueError(f"it has more than {_LONGEST} characters")
        return ast.parse(expression.strip(), mode="eval").body
    except (SyntaxError, ValueError) as error:
        reason = getattr(error, "msg", error)
        raise ValueError(f"{expression!r} is no arithmetic ({reason}); allowed: {_ALLOWED}.") from None


def _collect(node: ast.expr, expression: str, names: list[str]) -> None:
    """Add the names below the node. Raise ValueError for anything that is not allowed."""
    if isinstance(node, ast.Name):
        names.append(node.id)
    elif isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        _collect(node.left, expression, names)
        _collect(node.right, expression, names)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd)):
        _collect(node.operand, expression, names)
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _FUNCTIONS:
        if node.keywords or not node.args:
            raise ValueError(
                f"{expression!r} calls {node.func.id} in a way that is not allowed; give it numbers alone."
            )
        for argument in node.args:
            _collect(argument, expression, names)
    elif not (isinstance(node, ast.Constant) and type(node.value) in (int, float)):
        raise ValueError(f"{expression!r} has a part that is not allowed; allowed: {_ALLOWED}.")


def _value(node: ast.expr, values: Mapping[str, Any]) -> Any:
    if isinstance(node, ast.Name):
        return values[node.id]
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.UnaryOp):
        operand = _number(_value(node.operand, values))
        return -operand if isinstance(node.op, ast.USub) else operand
    if isinstance(node, ast.BinOp):
        left = _number(_value(node.left, values))
        right = _number(_value(node.right, values))
        return _combined(node.op, left, right)
    assert isinstance(node, ast.Call)
    assert isinstance(node.func, ast.Name)
    arguments = [_value(argument, values) for argument in node.args]
    if node.func.id != "int":  # int(tied) makes 0 or 1
        arguments = [_number(argument) for argument in arguments]
    result: Any = _FUNCTIONS[node.func.id](*arguments)  # type: ignore[operator]
    return result


def _combined(op: ast.operator, left: Any, right: Any) -> Any:
    if isinstance(op, ast.Pow) and left and abs(right) * abs(math.log2(abs(left))) > 1024:
        raise OverflowError("the power is too large or too small")
    result = _OPERATORS[type(op)](left, right)
    if isinstance(result, complex):
        raise ValueError("the root of a negative number is no number")
    return result


def _number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{value!r} is no number")
    return value
