"""Layers whose weight in use is computed from other tensors: weight and spectral norm, orthogonal matrices, pruning.

The rules are of the weight in use, and the optimizer trains what it is computed from, so that no plan has it right.
What a forward of the user's own computes is not seen; a mask that it may multiply by is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.utils import parametrize, prune
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

REMEDIES = {
    "parametrization": "torch.nn.utils.parametrize.remove_parametrizations({module}, {tensor!r})",
    "pruning": "torch.nn.utils.prune.remove({module}, {tensor!r})",
    "weight norm": "torch.nn.utils.remove_weight_norm({module}, {tensor!r})",
    "spectral norm": "torch.nn.utils.remove_spectral_norm({module}, {tensor!r})",
}
"""What computes a weight -> the call that leaves the weight itself."""


def computed_weights(model: nn.Module) -> list[tuple[str, str, str]]:
    """(name of a module, name of its weight, what computes it: a key of `REMEDIES`) of all such weights."""
    found = []
    for name, module in model.named_modules():
        if parametrize.is_parametrized(module):
            found += [(name, tensor, "parametrization") for tensor in module.parametrizations]
        for hook in module._forward_pre_hooks.values():
            if isinstance(hook, prune.BasePruningMethod):
                found.append((name, hook._tensor_name, "pruning"))
            elif isinstance(hook, WeightNorm):
                found.append((name, hook.name, "weight norm"))
            elif isinstance(hook, SpectralNorm):
                found.append((name, hook.name, "spectral norm"))
    return found


def computed_prefixes(name: str) -> tuple[str, str]:
    """What the names begin with of the tensors that a weight of this name is computed from."""
    inside, _, tensor = name.rpartition(".")
    inside = f"{inside}." if inside else ""
    return name, f"{inside}parametrizations.{tensor}."


@contextmanager
def at_rest(model: nn.Module) -> Iterator[None]:
    """Weights that are computed stay as they are when they are read: a spectral norm goes on with every reading."""
    lists = [module for module in model.modules() if isinstance(module, parametrize.ParametrizationList)]
    modes = {module: module.training for each in lists for module in each.modules()}
    for module in modes:
        module.training = False
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def own_masks(model: nn.Module) -> dict[str, tuple[str, float]]:
    """Name of a weight -> (name of a buffer of its module with its shape that holds zeros and ones, share of ones)."""
    found = {}
    for name, module in model.named_modules():
        prefix = f"{name}." if name else ""
        for weight, parameter in module.named_parameters(recurse=False):
            for buffer, values in module.named_buffers(recurse=False):
                if parameter.dim() < 2 or values.shape != parameter.shape or values.is_meta or values.is_complex():
                    continue
                ones = (values == 1).float().mean().item()
                if 0 < ones < 1 and bool(((values == 0) | (values == 1)).all()):
                    found[prefix + weight] = prefix + buffer, ones
    return found


def refusal_text(model: nn.Module) -> str:
    """Why a model with such weights has no plan, and the calls that leave plain ones; '' for one with plain weights."""
    found = computed_weights(model)
    if not found:
        return ""
    name, tensor, how = found[0]
    calls = "\n".join(f"  {call}" for call in _calls(found))
    more = f", and {len(found) - 1} more" if len(found) > 1 else ""
    where = f"{name}.{tensor}" if name else tensor
    return (
        f"{where} is computed by a {how}{more}: neither the density nor the multipliers of a plan would be those of "
        f"the weight in use. Leave plain weights, before parametrize and in a base that is a module too:\n{calls}"
    )


def make_plain(base: nn.Module) -> None:
    """Leave plain weights in a base that was built here, as the model was made to have."""
    for name, tensor, how in computed_weights(base):
        module = base.get_submodule(name)
        if how == "parametrization":
            parametrize.remove_parametrizations(module, tensor)
        elif how == "pruning":
            prune.remove(module, tensor)  # type: ignore[no-untyped-call]
        elif how == "weight norm":
            nn.utils.remove_weight_norm(module, tensor)
        else:
            nn.utils.remove_spectral_norm(module, tensor)


def _calls(found: Iterable[tuple[str, str, str]]) -> list[str]:
    """One call for every weight, or one loop for several of a kind."""
    by_kind: dict[tuple[str, str], list[str]] = {}
    for name, tensor, how in found:
        names = by_kind.setdefault((how, tensor), [])
        if name not in names:
            names.append(name)
    calls = []
    for (how, tensor), names in by_kind.items():
        if len(names) == 1:
            module = f"model.get_submodule({names[0]!r})"
            calls.append(REMEDIES[how].format(module=module, tensor=tensor))
        else:
            call = REMEDIES[how].format(module="model.get_submodule(name)", tensor=tensor)
            calls.append(f"for name in {names!r}: {call}")
    return calls
