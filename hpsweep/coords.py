"""The coordinate check: how large activations are, and how much the first steps change them, as a model scales.

A model is wired correctly if no size depends on width or density: activations neither grow nor vanish at the start,
and an optimizer step changes every one of them as much in a wide, sparse model as in the narrow, dense one (Yang and
others, arXiv 2203.03466, appendix D.1; with density, Dey and others, arXiv 2405.15743, figure 4).

The sizes are measured here; `analysis.coords` has the slopes and verdicts.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

from hpsweep.proxy import model as proxy
from hpsweep.proxy.data import Dataset, load_dataset, windows
from hpsweep.proxy.train import Ensemble
from hpsweep.spec import Trial

Loss = Callable[[int], Tensor]
"""The mean loss of the model on the batch of a step; the same batch whenever the same step is asked for."""

Build = Callable[[int, float, int], tuple[nn.Module, torch.optim.Optimizer, Loss]]
"""(width, density, seed) -> a freshly initialized model, its optimizer, and its loss."""

Activations = dict[str, Tensor]
"""Module -> activation with the trial axis first, in the order of the forward pass."""

Calls = dict[str, tuple[nn.Module, tuple[Any, ...], dict[str, Any]]]
"""Module with weights of its own -> what it was first called with."""

COLUMNS = (
    "module",
    "place",
    "features",
    "width",
    "density",
    "seed",
    "step",
    "rms",
    "mean_abs",
    "rms_change",
    "mean_abs_change",
    "rms_own",
    "mean_abs_own",
)
"""Columns of `coordinate_check`."""

_MASKED = -1e4  # an attention logit below this was masked away


def coordinate_check(
    what: Build | Trial,
    *,
    widths: Sequence[int],
    densities: Sequence[float] = (1.0,),
    steps: int = 4,
    seeds: Iterable[int] = range(4),
    heads: int | None = None,
    exclude: Iterable[str] = (),
    device: str = "cpu",
    data: Dataset | None = None,
) -> pd.DataFrame:
    """One row per module, width, density, seed and step (0, before training, to `steps`): sizes on a fixed batch.

    rms and mean_abs are the root mean square and the mean absolute value of the module's output on the batch of step
    0; rms_change and mean_abs_change those of its difference to step 0, null at step 0; rms_own and mean_abs_own those
    of the part of the change that the module's own weights make: its output on the inputs that it had at step 0, less
    its output then; null where a module has no weights of its own, and of readouts. `features` is the last dimension
    of the output, `place` where it comes in the forward pass.

    what  a function (width, density, seed) -> (model, optimizer, loss) for any torch module, where `loss(step)` is
          the loss on the batch of that step. Recorded are the outputs of all modules but those that match a pattern
          in `exclude`, and the attention logits, where they go through torch's scaled_dot_product_attention
          ("attn.attention_logits") or a softmax ("attn.softmax_input"). The model's own output stands for that of its
          last module of the same shape, so that a multiplier that comes after the module is seen. Dropout is off
          while sizes are measured.
          Or a Trial of the proxy GPT, trained at its lr without warm-up and decay, on `data` if given; `heads` is
          then a number of attention heads that is the same at every width, so that the heads grow.

    Raises ValueError for values out of range, naming a module with weights of its own that recorded nothing, and
    where the modules differ between widths or densities.
    """
    seeds = list(seeds)
    _check(widths, densities, steps, seeds)
    if isinstance(what, Trial):
        data = data or load_dataset(what.data)
        measured = (
            _proxies(what, width, densities, seed, steps, heads, torch.device(device), data)
            for width, seed in itertools.product(widths, seeds)
        )
    else:
        measured = (
            _module(what, width, density, seed, steps, list(exclude))
            for width, density, seed in itertools.product(widths, densities, seeds)
        )
    rows = [row for part in measured for row in part]
    _check_alike(rows)
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _check(widths: Sequence[int], densities: Sequence[float], steps: int, seeds: Sequence[int]) -> None:
    if steps < 1:
        raise ValueError(f"steps is {steps}; give 1 or more: changes are measured after the first step.")
    for name, values in (("widths", widths), ("densities", densities), ("seeds", seeds)):
        if not values or len(set(values)) < len(values):
            raise ValueError(f"{name} is {list(values)!r}; give one value or more, each once.")
    if len(widths) == len(densities) == 1:
        raise ValueError(
            f"there is one width ({widths[0]}) and one density ({densities[0]:g}), and nothing to compare; give several "
            "of one of them."
        )


def _check_alike(rows: Sequence[Mapping[str, Any]]) -> None:
    seen: dict[tuple[int, float], set[str]] = {}
    for row in rows:
        seen.setdefault((row["width"], row["density"]), set()).add(row["module"])
    (first, names), *others = seen.items()
    for where, modules in others:
        if odd := sorted(modules ^ names):
            raise ValueError(
                f"{odd[0]} recorded something at only one of width {first[0]}, density {first[1]:g} and width "
                f"{where[0]}, density {where[1]:g}; build the same modules everywhere, or leave it out by exclude."
            )


# --- sizes ---


def _rows(
    step: int, now: Activations, first: Activations, own: Activations, where: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Rows of one step; `own` are the changes by own weights, `where` has the width, density and seed of every trial."""
    rows = []
    for place, (module, x) in enumerate(now.items()):
        change = (x - first[module]).flatten(1) if step else None
        for trial, fields in enumerate(where):
            rms, mean_abs = _sizes(x[trial])
            rms_change, mean_abs_change = (math.nan, math.nan) if change is None else _sizes(change[trial])
            rms_own, mean_abs_own = (math.nan, math.nan) if module not in own else _sizes(own[module][trial])
            rows.append(
                {
                    "module": module, "place": place, "features": x.shape[-1], **fields, "step": step, "rms": rms,
                    "mean_abs": mean_abs, "rms_change": rms_change, "mean_abs_change": mean_abs_change, "rms_own": rms_own,
                    "mean_abs_own": mean_abs_own,
                }
            )  # fmt: skip
    return rows


def _sizes(x: Tensor) -> tuple[float, float]:
    """Root mean square and mean absolute value."""
    x = x.double()
    return x.square().mean().sqrt().item(), x.abs().mean().item()


# --- the proxies ---


def _proxies(
    trial: Trial,
    width: int,
    densities: Sequence[float],
    seed: int,
    steps: int,
    heads: int | None,
    device: torch.device,
    data: Dataset,
) -> list[dict[str, Any]]:
    """Rows of one width and seed: its densities are an ensemble."""
    if heads is not None and (heads < 1 or width % heads):
        raise ValueError(f"heads is {heads} and does not divide the width {width}; give a divisor of every width.")
    trials = [
        trial.replace(
            width=width, head_size=width // heads if heads else trial.head_size, density=density, seed=seed, steps=steps,
            warmup_fraction=0.0, final_lr_fraction=1.0,
        )
        for density in densities
    ]  # fmt: skip
    ensemble = Ensemble(trials, data, device)
    inputs = torch.from_numpy(windows(data.train, ensemble.offsets[seed][0], trial.context)[0])
    inputs = inputs.to(device).expand(len(trials), *inputs.shape)
    history = torch.full((steps, len(trials)), torch.nan, device=device)
    where = [{"width": width, "density": density, "seed": seed} for density in densities]
    rows, first, made_from = [], {}, {}
    initial = {name: p.clone() for name, p in ensemble.parameters.items()}
    for step in range(steps + 1):
        now, inputs_now = _watched(ensemble, inputs)
        if not step:
            first, made_from = now, inputs_now
        own = {n: x @ (ensemble.parameters[n] - initial[n]).mT for n, x in made_from.items()} if step else {}
        rows += _rows(step, now, first, own, where)
        if step < steps:
            ensemble.step(step, history)
    return rows


@torch.no_grad()
def _watched(ensemble: Ensemble, inputs: Tensor) -> tuple[Activations, Activations]:
    """The activations of a forward pass, and what its hidden matrices were multiplied with."""
    now: Activations = {}
    made_from: Activations = {}

    def watch(name: str, x: Tensor, before: Tensor | None) -> None:
        now[name] = x
        if before is not None:
            made_from[name] = before

    head_size = ensemble.trials[0].head_size
    proxy.logits(ensemble.parameters, ensemble.multipliers, inputs, head_size=head_size, watch=watch)
    return now, made_from


# --- any module ---


def _module(
    build: Build, width: int, density: float, seed: int, steps: int, exclude: Sequence[str]
) -> list[dict[str, Any]]:
    """Rows of one model."""
    model, optimizer, loss = build(width, density, seed)
    where = [{"width": width, "density": density, "seed": seed}]
    rows = []
    calls: Calls = {}
    first = activations(model, lambda: loss(0), exclude=exclude, calls=calls)
    initial = _called(model, calls)
    for step in range(steps + 1):
        now = activations(model, lambda: loss(0), exclude=exclude) if step else first
        if odd := [name for name in now if name not in first or now[name].shape != first[name].shape]:
            raise ValueError(f"{odd[0]} gave another shape at step {step} than before; loss(0) must not change.")
        own = {name: x - initial[name] for name, x in _called(model, calls).items()} if step else {}
        rows += _rows(step, now, first, own, where)
        if step < steps:
            optimizer.zero_grad()
            loss(step).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return rows


@torch.no_grad()
def _called(model: nn.Module, calls: Calls) -> Activations:
    """What the modules give now for what they were called with then."""
    with _evaluating(model):
        outputs = {name: _numbers_in(module(*args, **kwargs)) for name, (module, args, kwargs) in calls.items()}
    return {name: x[None] for name, x in outputs.items() if x is not None}


def activations(
    model: nn.Module, run: Callable[[], Any], *, exclude: Sequence[str] = (), calls: Calls | None = None
) -> Activations:
    """The outputs of the model's modules, and its attention logits, while `run` runs it; trial axis of length 1.

    A module that runs several times has its outputs one after the other. `calls` is filled, if given. Raises ValueError naming a module with
    weights of its own that recorded nothing.
    """
    parts: dict[str, list[Tensor]] = {}
    watched = {
        name: module
        for name, module in model.named_modules()
        if "parametrizations" not in name.split(".") and not any(fnmatchcase(name, pattern) for pattern in exclude)
    }
    first_calls: Calls = {}
    with _hooked(watched, parts, first_calls) as running, _evaluating(model), _Attention(running, parts, exclude):
        run()
    for name, module in watched.items():
        if name and name not in parts and not any(module.children()) and any(True for _ in module.parameters()):
            raise ValueError(
                f"{name} ({type(module).__name__}) recorded nothing: it was not called in the forward pass, or returns "
                f"no numbers. Let loss() run the whole model, uncompiled, or leave it out: exclude={(name,)!r}."
            )
    if not parts:
        raise ValueError("no module of the model recorded anything; let loss() run the model that build() returns.")
    first_calls.pop(_stand_in(parts), None)
    if calls is not None:
        calls.update(first_calls)
    return {name: torch.cat([x.flatten(0, -2) for x in seen])[None] for name, seen in parts.items()}


def _stand_in(parts: dict[str, list[Tensor]]) -> str:
    """The model's output takes the place of that of its last module of the same shape, named; else it is "output"."""
    whole = parts.pop("", None)
    if whole is None:
        return ""
    last = [name for name, seen in parts.items() if seen[-1].shape == whole[-1].shape]
    name = last[-1] if last else "output"
    parts[name] = whole
    return name


@contextmanager
def _hooked(watched: Mapping[str, nn.Module], parts: dict[str, list[Tensor]], calls: Calls) -> Iterator[list[str]]:
    """While it lasts, outputs are appended to `parts`, and calls of modules with weights of their own are noted.

    Gives the names of the modules that are running.
    """
    running: list[str] = []

    def before(name: str) -> Callable[..., None]:
        return lambda module, inputs: running.append(name)

    def after(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            running.pop()
            if name not in calls and any(True for _ in module.parameters(recurse=False)):
                calls[name] = (module, *tree_map_only(Tensor, lambda x: x.detach().clone(), (args, kwargs)))
            if (x := _numbers_in(output)) is not None:
                parts.setdefault(name, []).append(x.detach().clone())

        return hook

    handles = [module.register_forward_pre_hook(before(name)) for name, module in watched.items()]
    handles += [module.register_forward_hook(after(name), with_kwargs=True) for name, module in watched.items()]
    try:
        yield running
    finally:
        for handle in handles:
            handle.remove()


def _numbers_in(output: Any) -> Tensor | None:
    """The first tensor of floating-point numbers that is no scalar, in what a module returned."""
    if isinstance(output, Tensor):
        return output if output.is_floating_point() and output.dim() > 0 else None
    values = output.values() if isinstance(output, Mapping) else output if isinstance(output, tuple | list) else ()
    return next((x for x in map(_numbers_in, values) if x is not None), None)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Dropout is off while it lasts."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


class _Attention(TorchFunctionMode):
    """While it lasts, what goes into an attention's softmax is appended to `parts`, under the running module's name."""

    def __init__(self, running: list[str], parts: dict[str, list[Tensor]], exclude: Sequence[str]) -> None:
        super().__init__()
        self.running, self.parts, self.exclude = running, parts, exclude

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            self._append("attention_logits", _attention_logits(*args, **kwargs))
        elif func in (torch.softmax, F.softmax, Tensor.softmax):
            x = (args[0] if args else kwargs["input"]).detach()
            self._append("softmax_input", x[x > _MASKED])
        return func(*args, **kwargs)

    def _append(self, what: str, x: Tensor) -> None:
        name = ".".join([*self.running[-1:], what]).removeprefix(".")
        if not any(fnmatchcase(name, pattern) for pattern in self.exclude):
            self.parts.setdefault(name, []).append(x[:, None].clone())


def _attention_logits(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """All logits that are not masked, in one row; the signature is that of torch."""
    query, key = query.detach(), key.detach()
    if enable_gqa:
        key = key.repeat_interleave(query.shape[-3] // key.shape[-3], -3)
    scores = query @ key.transpose(-2, -1) * (query.shape[-1] ** -0.5 if scale is None else scale)
    kept = torch.ones_like(scores, dtype=torch.bool)
    if is_causal:
        kept = kept.tril()
    if attn_mask is not None:
        kept = kept & (attn_mask if attn_mask.dtype == torch.bool else attn_mask > _MASKED)
    return scores[kept]
