"""The activations of any torch module, as its forward pass is observed."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from hpsweep.coords.attention import NAME, Attention
from hpsweep.coords.subject import Activation, Subject
from hpsweep.observer import Call, evaluating, numbers_in, observing


def module_subject(built: Any, exclude: Sequence[str]) -> Subject:
    """The model, optimizer and loss that a build function returned. Raises ValueError if they are not these three."""
    parts = tuple(built) if isinstance(built, tuple | list) else ()
    if not _are_model_optimizer_loss(parts):
        got = ", ".join(type(part).__name__ for part in parts) or type(built).__name__
        raise ValueError(
            f"the build function returned {got}; return (model, optimizer, loss), where loss() runs the model on one "
            "batch, always the same, and returns its mean loss."
        )
    model, optimizer, loss = parts
    if isinstance(optimizer, type):
        raise ValueError(
            f"the build function returned the class {optimizer.__name__}; return an optimizer of the model."
        )
    try:
        inspect.signature(loss).bind()
    except TypeError as error:
        raise ValueError(
            f"loss() cannot be called without arguments ({error}); let it hold its batch itself."
        ) from None
    watched = _watched(model, exclude)
    first: list[_Record] = []
    initial: dict[str, Tensor] = {}

    def activations() -> dict[str, Activation]:
        with evaluating(model), _recording(watched, exclude) as record:
            loss()
        outputs = _outputs(record, watched)
        if not first:
            first.append(record)
            initial.update(_called(model, record))
        return outputs

    def own() -> dict[str, Tensor]:
        now = _called(model, first[0])
        return {name: x - initial[name] for name, x in now.items()}

    def step() -> None:
        optimizer.zero_grad()
        value = loss()
        if not isinstance(value, Tensor) or value.dim() or not value.requires_grad:
            raise ValueError(
                f"loss() returned {value!r:.80}; return the mean loss, a tensor of one number with a graph."
            )
        value.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return Subject(activations, own, step)


def _are_model_optimizer_loss(parts: Sequence[Any]) -> bool:
    if len(parts) != 3:
        return False
    model, optimizer, loss = parts
    return isinstance(model, nn.Module) and hasattr(optimizer, "step") and callable(loss)


class _Record:
    """What one run of the model showed: outputs by name, one after the other, and what modules were called with."""

    def __init__(self) -> None:
        self.outputs: dict[str, list[Tensor]] = {}
        self.calls: dict[str, tuple[nn.Module, tuple[Any, ...], dict[str, Any]]] = {}  # of modules with weights
        self.head_sizes: dict[str, int] = {}  # of attention logits
        self.ran: set[str] = set()
        self.last: Tensor | None = None  # what the module before returned

    def add(self, name: str, output: Any) -> None:
        """Note the first tensor of numbers in an output, unless a module only passes on what another one made."""
        x = _numbers_in(output)
        if x is None:
            return
        self.ran.add(name)
        if self.last is not None and x.data_ptr() == self.last.data_ptr() and x.shape == self.last.shape:
            return  # the very tensor that the module before returned
        self.last = x
        self.outputs.setdefault(name, []).append(x.detach().clone())


def _watched(model: nn.Module, exclude: Sequence[str]) -> dict[str, nn.Module]:
    """The modules to record, by name; raises ValueError for a pattern that leaves out nothing."""
    modules = {}
    for name, module in model.named_modules():
        if "parametrizations" not in name.split("."):
            modules[name] = module
    names = [*modules, *(_of(name, NAME) for name in modules)]
    for pattern in exclude:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ValueError(f"exclude has {pattern!r}, which matches no module; the last one is {[*modules][-1]!r}.")
    return {name: module for name, module in modules.items() if not _matches(name, exclude)}


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _of(module: str, what: str) -> str:
    if not module:  # the model itself
        return what
    return f"{module}.{what}"


def _outputs(record: _Record, watched: Mapping[str, nn.Module]) -> dict[str, Activation]:
    """The outputs by name. The model's own stands for that of its last module of the same shape, so that a multiplier
    that comes after the module is seen.

    Raises ValueError naming a module with weights of its own that recorded nothing.
    """
    never_called = {id(m.out_proj) for m in watched.values() if isinstance(m, nn.MultiheadAttention)}
    for name, module in watched.items():
        if name and name not in record.ran and _has_weights(module) and id(module) not in never_called:
            raise ValueError(
                f"{name} ({type(module).__name__}) recorded nothing: it was not called in the forward pass, or returns "
                f"no numbers. Let loss() run the whole model, uncompiled, or leave it out: exclude={(name,)!r}."
            )
    outputs = dict(record.outputs)
    whole = outputs.pop("", None)
    if whole is not None:
        of_its_shape = [name for name, seen in outputs.items() if seen[-1].shape == whole[-1].shape]
        name = of_its_shape[-1] if of_its_shape else "output"
        outputs[name] = whole
        record.calls.pop(name, None)
    if not outputs:
        raise ValueError("no module of the model recorded anything; let loss() run the model that build() returns.")
    activations = {}
    for name, seen in outputs.items():
        values = torch.cat([x.flatten() for x in seen])  # of all calls in one forward pass
        features = record.head_sizes.get(name, seen[0].shape[-1])
        activations[name] = Activation(values, features)
    return activations


def _has_weights(module: nn.Module) -> bool:
    return any(True for _ in module.parameters(recurse=False))


def _numbers_in(output: Any) -> Tensor | None:
    """The first tensor of floating-point numbers that is no scalar, in what a module returned."""
    return next((x for x in numbers_in(output) if x.dim()), None)


@torch.no_grad()
def _called(model: nn.Module, record: _Record) -> dict[str, Tensor]:
    """What modules with weights give now for what they were called with when they were recorded."""
    outputs = {}
    with evaluating(model):
        for name, (module, args, kwargs) in record.calls.items():
            x = _numbers_in(module(*args, **kwargs))
            if x is not None:
                outputs[name] = x
    return outputs


@contextmanager
def _recording(watched: Mapping[str, nn.Module], exclude: Sequence[str]) -> Iterator[_Record]:
    """While it lasts, modules and attention are recorded, and no gradients."""
    record = _Record()
    attention = Attention()
    running: list[str] = []

    def before(name: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if name and name not in record.calls and _has_weights(module):
            copied_args, copied_kwargs = tree_map_only(Tensor, lambda x: x.detach().clone(), (args, kwargs))
            record.calls[name] = (module, copied_args, copied_kwargs)

    def after(name: str, module: nn.Module, output: Any) -> None:
        record.add(name, output)

    def call(made: Call) -> Any:
        output = made.result()
        logits = attention.seen(made, output)
        name = _of(running[-1] if running else "", NAME)
        if logits is not None and not _matches(name, exclude):
            record.add(name, logits.values)
            record.head_sizes[name] = logits.head_size
        return output

    with torch.no_grad(), observing(call, watched, before=before, after=after, running=running):
        yield record
