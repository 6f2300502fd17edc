"""What a card asks for: the target's trial, or why it cannot be trained, before any work."""

from __future__ import annotations

from typing import Any

from hpsweep.analysis.transfer.card import Card
from hpsweep.analysis.transfer.card_trial import card_trial, check_card, tokens_of
from hpsweep.proxy.data import Dataset, check_dataset, load_dataset
from hpsweep.spec import BUILT_IN, Trial


def trial_to_train(
    card: Card,
    *,
    data: str | None = None,
    steps: int | None = None,
    tokens: int | None = None,
    batch: int | None = None,
    **changes: Any,
) -> tuple[Trial, Dataset]:
    """The trial that trains the card's target, and its data.

    Data and batch are the proxy's, the duration is the card's and the seed, of masks, initial weights and batches, that
    of the card's masks, unless given; `changes` are other fields of the trial, such as precision and eval_sequences.
    Raises ValueError where the duration is not known, the data is unfit or has another vocabulary than the
    target, and where the card's numbers are not those of the rules: these are what is trained.
    """
    model = card.proxy.get("model", BUILT_IN)
    if model != BUILT_IN:
        raise ValueError(
            f"the card was tuned on {model}, and what is trained here is the built-in gpt; train your own model by "
            "plan = card.plan(model, base=...), or by a script of hpsweep export."
        )
    if steps is not None and tokens is not None:
        raise ValueError(f"steps {steps} and tokens {tokens} both say how long to train; give one of them.")
    if steps is None and tokens is None:
        tokens = tokens_of(card)
    if steps is None and tokens is None:
        raise ValueError("the card does not say how long its target is trained; give --tokens or --steps.")
    given = {"data": data, "batch": batch, "steps": steps, "tokens": tokens}
    changes |= {name: value for name, value in given.items() if value is not None}
    trial = card_trial(card, **changes)
    check_card(card, trial)
    dataset = load_dataset(trial.data)
    if dataset.vocabulary != card.target["vocabulary"]:
        raise ValueError(
            f"the card's target has vocabulary {card.target['vocabulary']}, and the data {trial.data!r} has "
            f"{dataset.vocabulary}: give data of that vocabulary with --data, or make the card for this one."
        )
    check_dataset(dataset, context=trial.context, eval_sequences=trial.eval_sequences)
    return trial, dataset
