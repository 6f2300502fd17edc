"""What a model does in a forward pass: the calls of its modules and of torch functions, as they happen.

`observing` is the one place where hooks and a torch function mode are put on a model. `wire_` reads off what it
multiplies with, and the coordinate check how large activations are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


class Call(NamedTuple):
    """A call of a torch function that is about to be made."""

    func: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @property
    def first(self) -> Any:
        """The first argument, which most functions call `input`."""
        if self.args:
            return self.args[0]
        return self.kwargs.get("input")

    def result(self) -> Any:
        """What the function returns: makes the call."""
        return self.func(*self.args, **self.kwargs)


Before = Callable[[str, nn.Module, tuple[Any, ...], dict[str, Any]], Any]
"""(name, module, args, kwargs) -> the arguments to call it with instead, or None."""
After = Callable[[str, nn.Module, Any], None]
"""(name, module, output)"""


@contextmanager
def observing(
    call: Callable[[Call], Any],
    modules: Mapping[str, nn.Module] | None = None,
    *,
    before: Before = lambda name, module, args, kwargs: None,
    after: After = lambda name, module, output: None,
    running: list[str] | None = None,
) -> Iterator[None]:
    """While it lasts, `call` makes the calls of torch functions, and `before` and `after` stand around modules' calls.

    `running` has the names of the modules that are being called, the innermost last. `before` comes before the other
    hooks on a module's input, which so act once where the module is called again with what was noted; `after` comes
    after the other hooks on its output. Calls that `call` makes itself are not observed.
    """
    names = [] if running is None else running

    def entered(name: str) -> Callable[..., Any]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            names.append(name)
            return before(name, module, args, kwargs)

        return hook

    def left(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            names.pop()
            after(name, module, output)

        return hook

    # prepend puts a hook on the input before the others; one on the output comes after them by being added last
    with ExitStack() as stack:
        for name, module in (modules or {}).items():
            handle = module.register_forward_pre_hook(entered(name), prepend=True, with_kwargs=True)
            stack.callback(handle.remove)
            handle = module.register_forward_hook(left(name))
            stack.callback(handle.remove)
        stack.enter_context(_Functions(call))
        yield


class _Functions(TorchFunctionMode):
    """While it is on, torch functions are called by way of `call`."""

    def __init__(self, call: Callable[[Call], Any]) -> None:
        super().__init__()
        self.call = call

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return self.call(Call(func, args, dict(kwargs or {})))


_CHANGED_BY_TRAINING = (nn.modules.dropout._DropoutNd, nn.modules.batchnorm._NormBase)


@contextmanager
def evaluating(model: nn.Module, *, training: bool = False) -> Iterator[None]:
    """Dropout is off while it lasts, and statistics of batches stay; `training`: all else is as in training."""
    modes = {module: module.training for module in model.modules()}
    for module in modes:
        module.training = training and not isinstance(module, _CHANGED_BY_TRAINING)
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def numbers_in(output: Any) -> Iterator[Tensor]:
    """Every tensor of floating-point numbers in what a module returned."""
    if isinstance(output, Tensor):
        if output.is_floating_point():
            yield output.detach()
    elif isinstance(output, Mapping):
        for value in output.values():
            yield from numbers_in(value)
    elif isinstance(output, tuple | list):
        for value in output:
            yield from numbers_in(value)
