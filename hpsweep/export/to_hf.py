"""A card as a script for transformers.Trainer, which trains GPT-2 or Llama of the target's size."""

from __future__ import annotations

from typing import Any

from hpsweep.analysis.transfer.card import Card
from hpsweep.export.script import script_text
from hpsweep.spec import Trial

_TITLE = "GPT-2 or Llama of a card's target size under transformers.Trainer, with the numbers of the card."

_NOTES = (
    "The proxies were GPTs with learned positions, exact GELU, LayerNorm with a gain only, no biases, no dropout.",
    "--model gpt2 differs in its biases (they begin at 0, with rate LR and no decay); GELU is set to the exact one.",
    "--model llama differs in rotary positions, RMSNorm, and SwiGLU (a third matrix of width x 4 width).",
    "Neither difference is corrected: what was tuned on one architecture may lie beside the optimum of another.",
    "Norm eps (1e-5) and dropout (0) are set to the proxies'; leave dropout at 0 with sparse matrices.",
    "Masks are drawn by tensor names, and so are not those of hpsweep train. BATCH is the proxy's, of one process.",
    "Multipliers that are hooks are not saved with a model: load() wires them anew.",
)


def file_text(card: Card, trial: Trial) -> str:
    """The script."""
    return script_text(_TITLE, card, trial, notes=_NOTES, body="to_hf.txt")


def file_data(card: Card, trial: Trial) -> dict[str, Any]:
    """The card's warnings, and the script."""
    return {"warnings": list(card.warnings), "script": file_text(card, trial)}
