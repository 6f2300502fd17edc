"""A card as a config of nanoGPT-mup's supar branch, or why that branch cannot train it.

By the names of tensors, with m = mup_width_multiplier, and r = 1 - sparsity if supar_enabled, else 1, it takes:

    c_attn, c_fc   init std init_std (m r)^-1/2, rate learning_rate / (m r)
    c_proj         the same, its init std x (2 n_layer)^-1/2
    wte, wpe       init std init_std, rate learning_rate, summed, and multiplied by mup_input_alpha
    gains          rate learning_rate
    logits         multiplied by 1 / head size, or by 1 / its root if mup_disable_attention_scaling
    lm_head        is wte; its input is multiplied by mup_output_alpha / m

Weight decay is one number for all matrices. Without mup_enabled there are no multipliers. Read in model.py and train.py
of the fork cat-state/nanoGPT-mup, commit 40c3904.
"""

from __future__ import annotations

import math
from typing import Any

from hpsweep.analysis.transfer.card import Card
from hpsweep.export.script import head_lines
from hpsweep.schemes import scales_density, scales_width
from hpsweep.spec import Trial

_TITLE = "A config of nanoGPT-mup's supar branch, with the numbers of a card: python train.py THIS_FILE"
TORCH_EPS = 1e-8  # of torch.optim.AdamW, which the branch leaves as it is
DATA_VOCABULARY = 50304  # of a data set without meta.pkl


def file_text(card: Card, trial: Trial) -> str:
    """The config. Raises ValueError for a card that the branch cannot express, with the reason."""
    keys = nanogpt_keys(card, trial)
    warnings = [f"warning: here, {warning}" for warning in nanogpt_warnings(card, trial)]
    lines = head_lines(_TITLE, card, trial, warnings)
    comment = "\n".join(f"# {line}".rstrip() for line in lines)
    return comment + "\n\n" + nanogpt_config(keys)


def file_data(card: Card, trial: Trial) -> dict[str, Any]:
    """What the branch does otherwise than the card says, and the keys of the config by name."""
    return {"warnings": nanogpt_warnings(card, trial), "keys": nanogpt_keys(card, trial)}


def nanogpt_keys(card: Card, trial: Trial) -> dict[str, Any]:
    """The keys of the config by name. Raises ValueError for a card that the branch cannot express, with the reason."""
    for reason in refusals(card, trial):
        raise ValueError(f"nanoGPT cannot express this card: {reason}")
    mup = scales_width(trial.scheme)
    supar = scales_density(trial.scheme)
    # Only width multiplier x density matters to hidden matrices: a sparse base is a wider multiplier, which the output
    # alpha takes back for the readout.
    base_density = trial.base_density if supar else 1.0
    return {
        "out_dir": f"out-{trial.scheme}-{trial.width}",
        "eval_interval": 250,
        "eval_iters": 200,
        "log_interval": 10,
        "dataset": "openwebtext",
        "gradient_accumulation_steps": 1,
        "batch_size": trial.batch,
        "block_size": trial.context,
        "n_layer": trial.depth,
        "n_head": trial.width // trial.head_size,
        "n_embd": trial.width,
        "dropout": 0.0,
        "bias": False,
        "init_std": trial.init_std,
        "learning_rate": trial.lr,
        "max_iters": trial.total_steps - 1,  # it takes one step more
        "weight_decay": trial.weight_decay,
        "beta1": trial.beta1,
        "beta2": trial.beta2,
        "grad_clip": trial.clip,
        "decay_lr": True,
        "warmup_iters": trial.warmup_steps,
        "lr_decay_iters": max(trial.total_steps - 1, trial.warmup_steps + 1),
        "min_lr": trial.lr * trial.final_lr_fraction,
        "mup_enabled": mup,
        "mup_disable_attention_scaling": mup and _same(card.attention_scale, trial.head_size**-0.5),
        "mup_disable_hidden_lr_scaling": False,
        "mup_width_multiplier": trial.m_d / base_density if mup else 1.0,
        "mup_input_alpha": trial.alpha_input if mup else 1.0,
        "mup_output_alpha": trial.alpha_output / base_density if mup else 1.0,
        "supar_enabled": supar,
        "sparsity": 1.0 - trial.density,
        "seed": trial.seed,
    }


def _same(scale: float, other: float) -> bool:
    return math.isclose(scale, other, rel_tol=1e-9)


def refusals(card: Card, trial: Trial) -> list[str]:
    """Why the branch cannot train what the card says; empty if it can."""
    reasons = []
    factor = trial.embedding_lr_mult
    if factor != 1:
        reasons.append(
            f"embedding_lr_mult is {factor!r}, and it has one rate for embeddings and norm gains. A forward "
            "multiplier x t with init std and rate / t trains alike, which could make up for it in all matrices, but "
            f"not in the gains, whose rate would be {factor * factor:g} x the card's. Tune with embedding_lr_mult 1 or "
            "export --to torch or --to hf."
        )
    size = trial.head_size
    scale = card.attention_scale
    if not _same(scale, 1 / size) and not _same(scale, size**-0.5):
        reasons.append(
            f"attention logits are multiplied by {scale!r} (base_head_size {trial.base_head_size}, alpha_attention "
            f"{trial.alpha_attention!r}), and at head size {size} it has {1 / size!r} and {size**-0.5!r}. Make a card "
            "whose target has heads of the base's size, tuned with alpha_attention 1, or export --to torch or --to hf."
        )
    if not trial.tied:
        reasons.append(
            "the readout is not tied, and its readout is the token embedding. Make a card of tied models, or export "
            "--to torch or --to hf."
        )
    if not scales_width(trial.scheme) and trial.density < 1:
        reasons.append(
            f"scheme {trial.scheme} at density {trial.density!r}: without mup_enabled its sparse matrices keep "
            "PyTorch's own initial weights, not those of init_std. Export --to torch or --to hf."
        )
    hidden = card.kinds["hidden"]["weight_decay"]
    embedding = card.kinds["embedding"]["weight_decay"]
    if hidden != embedding:
        reasons.append(
            f"the weight decay rule {trial.weight_decay_rule} makes the decay {hidden!r} for hidden matrices and "
            f"{embedding!r} for embeddings, and it has one number. Make a card with weight_decay_rule coupled or no "
            "decay, or export --to torch or --to hf."
        )
    return reasons


def nanogpt_warnings(card: Card, trial: Trial) -> list[str]:
    """What a run of the branch does otherwise than the card says, though the parametrization is the card's."""
    notes = ["after warm-up the rate falls by a cosine, not linearly; warm-up begins at 0 and is one step longer."]
    if trial.eps != TORCH_EPS:
        notes.append(f"eps is torch's {TORCH_EPS!r} and has no key; the card has {trial.eps!r}.")
    if card.target["tokens"] is None:
        notes.append(
            f"the card does not say how long the target is trained: max_iters is the proxy's {trial.total_steps} "
            "steps; set max_iters, warmup_iters and lr_decay_iters."
        )
    notes.append(
        f"the vocabulary has no key: {card.target['vocabulary']} has to be vocab_size of the data set's meta.pkl; "
        f"without one the model has {DATA_VOCABULARY}."
    )
    if trial.density < 1:
        notes.append(
            "masks are drawn by coin flips (the density is approximate), differ between data-parallel processes, and "
            "are not in checkpoints: init_from = 'resume' draws others. Train in one process without a break."
        )
    if card.readout_multiplier != 1:
        notes.append("the readout's multiplier acts only where targets are given: samples are drawn without it.")
    if scales_density(trial.scheme) and trial.base_density != 1:
        notes.append(
            f"the base density {trial.base_density!r} has no key: mup_width_multiplier and mup_output_alpha are "
            "divided by it, which gives every tensor the card's numbers."
        )
    return notes


FIX = """\
# train.py does not hand init_std to the model, which would begin with 0.02; from here on it does.
if "GPTConfig" in globals():
    _config = GPTConfig  # noqa: F821

    def GPTConfig(**settings):
        return _config(**{"init_std": init_std, **settings})
"""
"""In the scope of train.py, where its configurator executes a config."""


def nanogpt_config(keys: dict[str, Any]) -> str:
    """The config file's lines below its head: one NAME = value each, and the one repair that the card needs."""
    lines = [f"{name} = {value!r}" for name, value in keys.items()]
    return "\n".join(lines) + "\n\n" + FIX
