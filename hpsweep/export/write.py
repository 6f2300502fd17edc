"""A card as the file of another trainer."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hpsweep.analysis.transfer.card import Card
from hpsweep.analysis.transfer.card_trial import card_trial, check_card, tokens_of
from hpsweep.architectures import nonzeros, tensors
from hpsweep.export.nanogpt import nanogpt_config, nanogpt_keys, nanogpt_warnings
from hpsweep.export.statement import statement
from hpsweep.rules.multipliers import tensor_numbers
from hpsweep.spec import Trial

_WIDTH = 118


def export(card: Card, to: str) -> str:
    """The text of a file for the trainer `to`: 'torch', 'hf' or 'nanogpt'.

    Each begins with what `statement` says of the card. Raises ValueError for another trainer, for a card whose numbers
    are not those of the rules, and for what the trainer cannot express, with the reason.
    """
    if to not in TRAINERS:
        raise ValueError(f"there is no export to {to!r}; allowed: {', '.join(TRAINERS)}.")
    return TRAINERS[to](card, checked_trial(card))


def exported(card: Card, to: str) -> dict[str, Any]:
    """The same as plain data: the card's statement, its parameter groups, and nanoGPT's keys or the script."""
    text = export(card, to)
    trial = checked_trial(card)
    data: dict[str, Any] = {"to": to, "statement": statement(card, trial), "parameter_groups": parameter_groups(card)}
    if to == "nanogpt":
        return data | {"warnings": nanogpt_warnings(card, trial), "keys": nanogpt_keys(card, trial)}
    return data | {"warnings": list(card.warnings), "script": text}


def checked_trial(card: Card) -> Trial:
    """The trial of the card's target; the duration is the proxy's steps where the card does not say."""
    tokens = tokens_of(card)
    duration = {"tokens": tokens}
    if tokens is None:
        duration = {"steps": card.proxy["steps"]}
    trial = card_trial(card, **duration)
    check_card(card, trial)
    return trial


def parameter_groups(card: Card) -> list[dict[str, Any]]:
    """Parameter groups of the reference GPT at the target's size, by tensor name.

    Tensors of equal kind are one group. `forward` multiplies what the tensor gives, in a second use as a tied readout
    the card's `readout_multiplier`.
    """
    trial = checked_trial(card)
    groups: dict[str, dict[str, Any]] = {}
    numbers = tensor_numbers(trial, card.target["vocabulary"])
    for name, (shape, kind) in tensors(trial, card.target["vocabulary"]).items():
        n = numbers[name]
        group = groups.setdefault(
            kind,
            {
                "kind": kind, "lr": n.lr, "weight_decay": n.weight_decay, "eps": trial.eps, "init_std": n.init_std,
                "forward": n.forward, "m_d": n.m_d, "m_rho": n.m_rho, "tensors": {},
            },
        )  # fmt: skip
        group["tensors"][name] = {"shape": list(shape), "nonzeros": nonzeros(shape, kind, trial.density)}
    return list(groups.values())


# --- the three files ---


_HF_NOTES = (
    "The proxies were GPTs with learned positions, exact GELU, LayerNorm with a gain only, no biases, no dropout.",
    "--model gpt2 differs in its biases (they begin at 0, with rate LR and no decay); GELU is set to the exact one.",
    "--model llama differs in rotary positions, RMSNorm, and SwiGLU (a third matrix of width x 4 width).",
    "Neither difference is corrected: what was tuned on one architecture may lie beside the optimum of another.",
    "Norm eps (1e-5) and dropout (0) are set to the proxies'; leave dropout at 0 with sparse matrices.",
    "Masks are drawn by tensor names, and so are not those of hpsweep train. BATCH is the proxy's, of one process.",
    "Multipliers that are hooks are not saved with a model: load() wires them anew.",
)


def _torch(card: Card, trial: Trial) -> str:
    title = "Plan, initial weights, parameter groups and optimizer of a torch module, with the numbers of a card."
    return _script(title, card, trial, (), "torch_body.txt")


def _hf(card: Card, trial: Trial) -> str:
    title = "GPT-2 or Llama of a card's target size under transformers.Trainer, with the numbers of the card."
    return _script(title, card, trial, _HF_NOTES, "huggingface_body.txt")


def _nanogpt(card: Card, trial: Trial) -> str:
    keys = nanogpt_keys(card, trial)
    title = "A config of nanoGPT-mup's supar branch, with the numbers of a card: python train.py THIS_FILE"
    warnings = [f"warning: here, {warning}" for warning in nanogpt_warnings(card, trial)]
    lines = _wrapped_lines([*_head(title), *statement(card, trial), *warnings])
    comment = "\n".join(f"# {line}".rstrip() for line in lines)
    return comment + "\n\n" + nanogpt_config(keys)


TRAINERS: dict[str, Callable[[Card, Trial], str]] = {"torch": _torch, "hf": _hf, "nanogpt": _nanogpt}


def _script(title: str, card: Card, trial: Trial, notes: Sequence[str], body: str) -> str:
    """A docstring with the statement and notes, the script, and in it the card's numbers as literals."""
    paragraphs = [*_head(title), *statement(card, trial)]
    if notes:
        paragraphs += ["", *notes]
    content = "\n".join(_wrapped_lines(paragraphs))
    # what would end the docstring, or be read as an escape in it
    content = content.replace("\\", "\\\\").replace('"""', "'''")
    docstring = f'"""{content}\n"""\n'
    script = (Path(__file__).parent / body).read_text()
    return docstring + "\n" + script.replace("# THE CARD'S NUMBERS\n", _literals(card, trial))


def _head(title: str) -> list[str]:
    return [title, "", f"Written by hpsweep from a card of schema version {Card.schema_version}:", ""]


def _literals(card: Card, trial: Trial) -> str:
    """The card's numbers as the constants of a script."""
    constants = {
        "SCHEME": card.scheme,
        "TARGET": card.target,
        "BASE_WIDTH": trial.base_width,
        "BASE_DENSITY": trial.base_density,
        "BASE_HEAD_SIZE": trial.base_head_size,
        "LR": trial.lr,
        "INIT_STD": trial.init_std,
        "ALPHA_INPUT": trial.alpha_input,
        "ALPHA_ATTENTION": trial.alpha_attention,
        "ALPHA_OUTPUT": trial.alpha_output,
        "EMBEDDING_LR_MULT": trial.embedding_lr_mult,
        "WEIGHT_DECAY": trial.weight_decay,
        "WEIGHT_DECAY_RULE": trial.weight_decay_rule,
        "BETAS": (trial.beta1, trial.beta2),
        "EPS": trial.eps,
        "CLIP": trial.clip,
        "WARMUP_FRACTION": trial.warmup_fraction,
        "FINAL_LR_FRACTION": trial.final_lr_fraction,
        "BATCH": trial.batch,
        "STEPS": trial.total_steps,
        "MASK_SEED": trial.seed,
        "M_D": trial.m_d,
        "READOUT_MULTIPLIER": card.readout_multiplier,
    }
    return "".join(f"{name} = {_literal(value)}\n" for name, value in constants.items())


def _literal(value: Any) -> str:
    """A value as Python text: exact floats, double quotes, a line per entry of a dictionary."""
    if isinstance(value, dict):
        lines = [f"    {_literal(name)}: {_literal(entry)},\n" for name, entry in value.items()]
        return "{\n" + "".join(lines) + "}"
    if isinstance(value, str):
        return json.dumps(value)
    return repr(value)


def _wrapped_lines(paragraphs: Sequence[str]) -> list[str]:
    """The paragraphs in lines of the file's width; what goes on is indented."""
    lines = []
    for text in paragraphs:
        wrapped = textwrap.wrap(text, _WIDTH, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)
        lines += wrapped or [""]  # an empty paragraph is an empty line
    return lines
