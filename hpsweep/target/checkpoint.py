"""Checkpoints of a target run: one file per trial, replaced whole or not at all.

There is no state of a random generator to keep: masks, initial weights and the batch of a step are functions of the
trial's seed and the step. A mask is kept as what determines it and its hash; the masked weights in the file are zeros.
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from hpsweep.proxy.optimizer import Optimizer
from hpsweep.spec import Trial
from hpsweep.store import replacing

CHECKPOINT_VERSION = 1
"""Raised when a field of the checkpoint changes its meaning or is added."""


class Identity(NamedTuple):
    """What a run shares with the checkpoint that it goes on from."""

    trial: Trial
    data_hash: str
    mask_hash: str


class State(NamedTuple):
    """How far a run is: all that the next step depends on, beside the trial."""

    step: int  # steps taken
    weights: dict[str, Tensor]
    moments: dict[str, dict[str, Tensor]]  # AdamW's, by tensor
    train_losses: Float[Tensor, " step"]
    seconds: float


def mask_hash(masks: Mapping[str, Tensor]) -> str:
    """16 hexadecimal digits of a SHA-256 over the masks' names, shapes and bits."""
    digest = hashlib.sha256()
    for name in sorted(masks):
        kept = masks[name].cpu().numpy()
        digest.update(f"{name}/{kept.shape}/".encode())
        digest.update(np.packbits(kept).data)
    return digest.hexdigest()[:16]


def checkpoint_path(folder: str | Path, trial: Trial) -> Path:
    """Where the checkpoint of a trial lies in a results folder."""
    return Path(folder) / "checkpoints" / f"{trial.trial_id}.pt"


def save(path: Path, identity: Identity, state: State) -> None:
    """Put the checkpoint in the place of the one before, synced to disk; killed midway, the one before stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{path.name}.*.tmp"):  # by a process that was killed while it wrote
        left.unlink()
    trial = identity.trial
    content = {
        "checkpoint_version": CHECKPOINT_VERSION,
        "trial_id": trial.trial_id,
        "trial": trial.resolved,
        "data_hash": identity.data_hash,
        "mask": {"seed": trial.seed, "density": trial.density, "hash": identity.mask_hash},
        **state._asdict(),
    }
    with replacing(path) as temporary:
        torch.save(content, temporary)


def load(path: Path, identity: Identity) -> State | None:
    """The state in a checkpoint, on the CPU; None where there is no file.

    Raises ValueError for a file that cannot be read, one of a newer version, of another trial, other data or other
    masks.
    """
    if not path.exists():
        return None
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        version = content["checkpoint_version"]
    except (OSError, RuntimeError, EOFError, KeyError, TypeError, pickle.UnpicklingError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # of the system: the file may be whole
            raise
        raise ValueError(
            f"{path} is no checkpoint, or damaged ({type(error).__name__}); restore it, or remove it to begin anew."
        ) from None
    if version != CHECKPOINT_VERSION:
        raise ValueError(
            f"{path} is a checkpoint of version {version}; this hpsweep reads {CHECKPOINT_VERSION}. Use the version "
            "that wrote it, or remove it to begin anew."
        )
    ours = {"trial_id": identity.trial.trial_id, "data_hash": identity.data_hash, "mask hash": identity.mask_hash}
    theirs = {name: content[name] for name in ("trial_id", "data_hash")} | {"mask hash": content["mask"]["hash"]}
    for name, expected in ours.items():
        if theirs[name] != expected:
            raise ValueError(
                f"{path} has {name} {theirs[name]}, and this run has {expected}: it cannot be gone on from. "
                "Restore what it was made with, or remove it to begin anew."
            )
    return State(**{name: content[name] for name in State._fields})


def moments(optimizer: Optimizer) -> dict[str, dict[str, Tensor]]:
    """AdamW's moments and step of every tensor, by name, on the CPU."""
    return {
        name: {key: value[0].cpu() for key, value in vars(moments).items()}
        for name, moments in optimizer.moments.items()
    }


def restore_moments(optimizer: Optimizer, saved: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Put the moments of `moments` back."""
    for name, moments in optimizer.moments.items():
        for key, value in vars(moments).items():
            value[0] = saved[name][key]
