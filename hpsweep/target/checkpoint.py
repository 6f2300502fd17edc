"""Checkpoints of a target run: one file per trial, replaced whole or not at all.

There is no state of a random generator to keep: masks, initial weights and the batch of a step are functions of the
trial's seed and the step. A mask is kept as what determines it and its hash; the masked weights in the file are zeros.

The file is torch's, with a last line that holds the SHA-256 of all before it: torch.load reads it, and a file of which
one bit has changed is refused. Then what is in it is compared with the run that goes on from it.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from hpsweep.proxy.optimizer import Optimizer
from hpsweep.records import open_regular
from hpsweep.spec import Trial
from hpsweep.store import replacing
from hpsweep.text import shown, visible

CHECKPOINT_VERSION = 2
"""Raised when a field of the checkpoint changes its meaning or is added. Version 1 had no SHA-256 of the file."""

_MARK = b"\nsha256 "
_TRAILER = len(_MARK) + 64  # bytes
_CHUNK = 2**24  # bytes that are hashed at a time


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


class Like(NamedTuple):
    """The tensors of a resumed run, each without its trial axis: a checkpoint has to have the same names and shapes."""

    weights: Mapping[str, Tensor]
    moments: Mapping[str, Mapping[str, Tensor]]
    masks: Mapping[str, Tensor]


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


def save_checkpoint(path: Path, identity: Identity, state: State) -> None:
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
    write_checkpoint(path, content)


def write_checkpoint(path: Path, content: Mapping[str, Any]) -> None:
    """Write the file of a checkpoint, whole or not at all."""
    with replacing(path) as temporary:
        torch.save(dict(content), temporary)
        with temporary.open("r+b") as file:
            digest = _digest(file, temporary.stat().st_size)
            file.seek(0, os.SEEK_END)
            file.write(_MARK + digest.encode())


def load_checkpoint(path: Path, identity: Identity, like: Like) -> State | None:
    """The state in a checkpoint, on the CPU; None where there is no file.

    `like`: tensors of the same run, whose names, shapes and types those in the file have to have. Raises ValueError
    for a file that cannot be read, is damaged or is of a newer version, for one of another trial, other data or other
    masks, and for a state that no such run could be in.
    """
    if not os.path.lexists(path):
        return None
    content = _read(path)
    version = content["checkpoint_version"]
    if version not in (1, CHECKPOINT_VERSION) or isinstance(version, bool):
        raise ValueError(
            f"{path} is a checkpoint of version {shown(version)}; this hpsweep reads {CHECKPOINT_VERSION}. Use the "
            "version that wrote it, or remove it to begin anew."
        )
    mask = content.get("mask")
    if isinstance(mask, dict):
        mask = mask.get("hash")
    theirs = {**content, "mask hash": mask}
    ours = {"trial_id": identity.trial.trial_id, "data_hash": identity.data_hash, "mask hash": identity.mask_hash}
    for name, expected in ours.items():
        if theirs.get(name) != expected:
            found = shown(theirs.get(name)).replace("'", "")
            raise ValueError(
                f"{path} has {name} {found}, and this run has {expected}: it cannot be gone on from. Restore what it "
                "was made with, or remove it to begin anew."
            )
    try:
        state = State(**{name: content[name] for name in State._fields})
        _check_state(state, like, identity.trial)
    except KeyError as error:
        raise _damaged(path, f"it has no {error}") from None
    except ValueError as error:
        raise _damaged(path, str(error)) from None
    return state


def _damaged(path: Path, why: str) -> ValueError:
    return ValueError(f"{path} is no checkpoint, or damaged ({why}); restore it, or remove it to begin anew.")


def _read(path: Path) -> dict[str, Any]:
    """What the file holds, once it is known to be as it was written. Raises ValueError for any other."""
    try:
        file = open_regular(path)
    except OSError as error:  # nothing is known of what is in it
        raise ValueError(f"{path} cannot be read ({error.strerror}); it is to be the file of a checkpoint.") from None
    with file:
        stated = _stated_digest(file)
        if stated is not None and _digest(file, os.fstat(file.fileno()).st_size - _TRAILER) != stated:
            raise _damaged(path, "its SHA-256 is not the one that it states")
        file.seek(0)
        try:
            if stated is None:  # as version 1 was
                record = zipfile.ZipFile(file).testzip()
                if record:
                    raise _damaged(path, f"{record} is not what was written")
            file.seek(0)
            content = torch.load(file, map_location="cpu", weights_only=True)
        except ValueError:
            raise
        except Exception as error:  # of a file that is none, torch and zipfile raise whatever they come across
            raise _damaged(path, type(error).__name__) from None
    if not isinstance(content, dict) or "checkpoint_version" not in content:
        raise _damaged(path, "it has no checkpoint_version")
    if stated is None and content["checkpoint_version"] == CHECKPOINT_VERSION:
        raise _damaged(path, "its SHA-256 is missing")
    return content


def _stated_digest(file: IO[bytes]) -> str | None:
    """The SHA-256 in the last line of the file; None where there is none."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _TRAILER))
    mark = file.read(len(_MARK))
    digest = file.read()
    if mark != _MARK:
        return None
    return digest.decode("ascii", errors="replace")


def _digest(file: IO[bytes], size: int) -> str:
    """The SHA-256 of the first `size` bytes."""
    digest = hashlib.sha256()
    file.seek(0)
    while size > 0:
        chunk = file.read(min(size, _CHUNK))
        if not chunk:  # the file is shorter
            break
        digest.update(chunk)
        size -= len(chunk)
    return digest.hexdigest()


def _check_state(state: State, like: Like, trial: Trial) -> None:
    """Raise ValueError for a state that no run of the trial could be in, or whose tensors differ from `like`."""
    if type(state.step) is not int or not 0 < state.step <= trial.total_steps:
        raise ValueError(f"step is {shown(state.step)}; allowed: whole numbers in [1, {trial.total_steps}]")
    if type(state.seconds) is not float or not 0 <= state.seconds < np.inf:
        raise ValueError(f"seconds is {shown(state.seconds)}; allowed: numbers in [0, inf)")
    _check_tensor("train_losses", state.train_losses, torch.empty(state.step))
    _check_names("weights", state.weights, like.weights)
    _check_names("moments", state.moments, like.moments)
    for name, weight in like.weights.items():
        moments = state.moments[name]
        _check_tensor(f"weights.{name}", state.weights[name], weight)
        _check_names(f"moments.{name}", moments, like.moments[name])
        for key, moment in like.moments[name].items():
            _check_tensor(f"moments.{name}.{key}", moments[key], moment)
        step = int(moments["step"])
        if step != state.step:
            raise ValueError(f"moments.{name} is of step {step}, and not of {state.step}")
        if bool((moments["exp_avg_sq"] < 0).any()):
            raise ValueError(f"moments.{name} has negative mean squares")
    for name, mask in like.masks.items():
        pruned = state.weights[name].masked_fill(mask.cpu(), 0.0)
        if bool(pruned.any()):
            raise ValueError(f"weights.{name} is not zero where its mask is")


def _check_names(place: str, found: Any, expected: Mapping[str, Any]) -> None:
    if not isinstance(found, dict):
        raise ValueError(f"{place} is {shown(found)}, and no dictionary")
    odd = sorted(map(str, found.keys() ^ expected.keys()))
    if odd:
        raise ValueError(f"{place} has {len(found)} entries, unlike this run in {visible(', '.join(odd[:5]))}")


def _check_tensor(place: str, found: Any, expected: Tensor) -> None:
    """Raise ValueError unless the tensor has shape and type of the other, and finite numbers only."""
    if not isinstance(found, Tensor) or found.layout != torch.strided:
        raise ValueError(f"{place} is a {type(found).__name__}, and no dense tensor")
    if found.shape != expected.shape or found.dtype != expected.dtype:
        raise ValueError(
            f"{place} has shape {list(found.shape)} of {found.dtype}, and this run has {list(expected.shape)} of "
            f"{expected.dtype}"
        )
    if not bool(found.isfinite().all()):
        raise ValueError(f"{place} has numbers that are not finite")


def optimizer_moments(optimizer: Optimizer) -> dict[str, dict[str, Tensor]]:
    """AdamW's moments and step of every tensor, by name; views of the optimizer's own."""
    found = {}
    for name, moments in optimizer.moments.items():
        found[name] = {key: value[0] for key, value in vars(moments).items()}
    return found


def restore_moments(optimizer: Optimizer, saved: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Copy `saved`, made by `optimizer_moments`, into the optimizer."""
    for name, moments in optimizer.moments.items():
        for key, value in vars(moments).items():
            value[0] = saved[name][key]
