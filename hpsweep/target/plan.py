"""What a card asks for: the target's trial, or why it cannot be trained, before any work."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from hpsweep.analysis.card import Card, target_numbers
from hpsweep.proxy.data import Dataset, check_dataset, load_dataset
from hpsweep.spec import TUNED, Trial

_SAME = 1e-9  # relative; a card's numbers passed through JSON in their shortest exact form


def target_trial(
    card: Card,
    *,
    data: str | None = None,
    steps: int | None = None,
    tokens: int | None = None,
    batch: int | None = None,
    seed: int | None = None,
    **changes: Any,
) -> tuple[Trial, Dataset]:
    """The trial that trains the card's target, and its data.

    Data and batch are the proxy's, the duration is the card's and the seed, of masks, initial weights and batches, that
    of the card's masks, unless given; `changes` are other fields of the trial, such as precision and eval_sequences.
    Raises ValueError where the duration is not known, the data is unfit or has another vocabulary than the target, and
    where the card's numbers are not those of the rules: these are what is trained.
    """
    if steps is not None and tokens is not None:
        raise ValueError(f"steps {steps} and tokens {tokens} both say how long to train; give one of them.")
    if steps is None and tokens is None and (tokens := card.target.get("tokens")) is None:
        raise ValueError("the card does not say how long its target is trained; give --tokens or --steps.")
    trial = _trial(card, data, batch, seed, {"steps": steps, "tokens": tokens, **changes})
    dataset = load_dataset(trial.data)
    if dataset.vocabulary != card.target["vocabulary"]:
        raise ValueError(
            f"the card's target has vocabulary {card.target['vocabulary']}, and the data {trial.data!r} has "
            f"{dataset.vocabulary}: give data of that vocabulary with --data, or make the card for this one."
        )
    check_dataset(dataset, context=trial.context, eval_sequences=trial.eval_sequences)
    for place, ours, theirs in _differences(target_numbers(trial, dataset.vocabulary), vars(card), ""):
        raise ValueError(
            f"the card says {place} is {theirs}, and the rules make it {ours}: it was changed, or made by other rules. "
            "Make the card anew."
        )
    if card.mask["density"] != trial.density:
        raise ValueError(f"the card's mask {card.mask} is not of density {trial.density:g}; make the card anew.")
    return trial, dataset


def _trial(card: Card, data: str | None, batch: int | None, seed: int | None, given: Mapping[str, Any]) -> Trial:
    try:
        fields = {
            "scheme": card.scheme,
            **{n: card.target[n] for n in ("width", "density", "depth", "head_size", "context", "tied")},
            **{n: card.base[n] for n in TUNED},
            **{n: card.proxy[n] for n in ("base_width", "base_density")},
            **{n: card.optimizer[n] for n in ("weight_decay_rule", "beta1", "beta2", "eps", "clip")},
            **{n: card.schedule[n] for n in ("warmup_fraction", "final_lr_fraction")},
            "data": card.proxy["data"] if data is None else data,
            "batch": card.proxy["batch"] if batch is None else batch,
            "seed": card.mask["seed"] if seed is None else seed,
        }
    except (KeyError, TypeError) as error:
        raise ValueError(f"the card is not whole ({error}); make it anew.") from None
    return Trial(**fields, **given)


def _differences(ours: Any, theirs: Any, place: str) -> Iterator[tuple[str, Any, Any]]:
    """(place, ours, theirs) wherever two pieces of plain data differ; numbers by more than rounding."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for name in ours:
            yield from _differences(ours[name], theirs.get(name), f"{place}.{name}".lstrip("."))
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            yield from _differences(a, b, f"{place}[{i}]")
    elif isinstance(ours, float) and isinstance(theirs, float | int):
        if not math.isclose(ours, theirs, rel_tol=_SAME):
            yield place, ours, theirs
    elif ours != theirs:
        yield place, ours, theirs
