"""Parts of exported files: the statement at their head, and scripts with the card's numbers as literals."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hpsweep.analysis.transfer.card import Card
from hpsweep.export.statement import statement_lines
from hpsweep.spec import Trial

_WIDTH = 118


def script_text(title: str, card: Card, trial: Trial, *, notes: Sequence[str], body: str) -> str:
    """A docstring with the statement and notes, the script of the file `body`, and in it the card's numbers."""
    if notes:
        notes = ["", *notes]
    content = "\n".join(head_lines(title, card, trial, notes))
    # what would end the docstring, or be read as an escape in it
    content = content.replace("\\", "\\\\").replace('"""', "'''")
    docstring = f'"""{content}\n"""\n'
    script = (Path(__file__).parent / body).read_text()
    return docstring + "\n" + script.replace("# THE CARD'S NUMBERS\n", _literals(card, trial))


def head_lines(title: str, card: Card, trial: Trial, notes: Sequence[str]) -> list[str]:
    """What every file begins with, in lines of its width: the title, what is said of the card, and notes."""
    version = f"Written by hpsweep from a card of schema version {Card.schema_version}:"
    return _wrapped_lines([title, "", version, "", *statement_lines(card, trial), *notes])


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
