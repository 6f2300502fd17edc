"""What a module of the user's own trains on and is measured on: text from hpsweep's data, or batches of their own."""

from __future__ import annotations

import functools
import hashlib
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from hpsweep.own_training.build import seed_all
from hpsweep.own_training.code import loaded_function
from hpsweep.proxy.data import load_dataset, token_windows, train_offsets, validation_windows
from hpsweep.spec import Model, Source, Trial
from hpsweep.units import is_images

Batch = tuple[Any, Any]
"""Inputs and targets: tensors, or tuples and mappings of them."""


class Batches(Protocol):
    """The batches of trials of one shape."""

    @property
    def vocabulary(self) -> int | None:
        """The tokens or classes of the data; None where that is not known."""

    @property
    def data_hash(self) -> str:
        """A hash of what is trained on."""

    def train(self, trial: Trial) -> Iterator[Batch]:
        """The batches of the trial's steps, in their order, by its seed."""

    def held_out(self, trial: Trial) -> Iterable[Batch]:
        """The batches that it is measured on, the same for every trial."""


@dataclass(frozen=True)
class TextBatches:
    """Windows of tokens of a source, drawn as for the built-in GPT: equal seeds have equal batches."""

    source: str

    @property
    def vocabulary(self) -> int:
        """The number of tokens."""
        return load_dataset(self.source).vocabulary

    @property
    def data_hash(self) -> str:
        """The hash of the tokens."""
        return load_dataset(self.source).data_hash

    def train(self, trial: Trial) -> Iterator[Batch]:
        """Inputs and targets, each (batch, context), of every step."""
        data = load_dataset(self.source)
        offsets = train_offsets(
            data, seed=trial.seed, steps=trial.total_steps, batch=trial.batch, context=trial.context
        )
        for of_step in offsets:
            inputs, targets = token_windows(data.train, of_step, trial.context)
            yield torch.from_numpy(inputs), torch.from_numpy(targets)

    def held_out(self, trial: Trial) -> Iterator[Batch]:
        """The windows that are held out, in batches of the trial's size."""
        data = load_dataset(self.source)
        inputs, targets = validation_windows(data, trial.eval_sequences, trial.context)
        for start in range(0, len(inputs), trial.batch):
            some = slice(start, start + trial.batch)
            yield torch.from_numpy(inputs[some]), torch.from_numpy(targets[some])


@dataclass(frozen=True)
class OwnBatches:
    """What a function of the user's own gives: batches(trial, part)."""

    function: Source
    first: Trial
    """The trial whose first and held-out batches are hashed."""
    vocabulary: int | None = None

    @functools.cached_property
    def data_hash(self) -> str:
        """A hash of the first batch of training and of all that is held out, at seed 0."""
        digest = hashlib.sha256()
        trial = self.first.replace(seed=0)
        for inputs, targets in (*itertools.islice(self.train(trial), 1), *self.held_out(trial)):
            for tensor in (*tensors_in(inputs), *tensors_in(targets)):
                digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
                digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()[:16]

    def train(self, trial: Trial) -> Iterator[Batch]:
        """The batches of training. Raises ValueError where there are fewer than the trial has steps."""
        seed_all(trial.seed)
        number = 0
        for batch in itertools.islice(self._called(trial, "train"), trial.total_steps):
            number += 1
            yield pair_of(batch, self.function)
        if number < trial.total_steps:
            raise ValueError(
                f"{self.function} gave {number} training batches, and the trial has {trial.total_steps} steps; "
                "let it go on for as long as it is asked, such as by `while True`."
            )

    def held_out(self, trial: Trial) -> Iterator[Batch]:
        """The batches that are held out."""
        for batch in self._called(trial, "held_out"):
            yield pair_of(batch, self.function)

    def _called(self, trial: Trial, part: str) -> Iterable[Any]:
        given = loaded_function(self.function)(trial, part)
        if not isinstance(given, Iterable):
            raise ValueError(f"{self.function} returned {given!r} for part {part!r}; it must return batches.")
        return given


def pair_of(batch: Any, function: Source) -> Batch:
    """Inputs and targets. Raises ValueError where a batch is something else."""
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        raise ValueError(f"{function} gave a batch that is no pair of inputs and targets: {type(batch).__name__}.")
    return batch[0], batch[1]


def batches_of(model: Model, trial: Trial, hashed: Trial | None = None) -> Batches:
    """The batches of a trial: those of the user's own function, or what hpsweep reads of its data.

    `hashed` is the trial whose batches of the user's function are hashed, the same in the driver and in every worker:
    what other trials get may differ by their batch and context.
    """
    if isinstance(model.batches, Source):
        return OwnBatches(model.batches, hashed or trial)
    if is_images(trial.data):
        from hpsweep.images.batches import ImageBatches

        return ImageBatches(trial.data)
    return TextBatches(trial.data)


def tensors_in(value: Any) -> Iterator[Tensor]:
    """The tensors of a tensor, or of tuples, lists and mappings of them, in their order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from tensors_in(each)
    elif isinstance(value, tuple | list):
        for each in value:
            yield from tensors_in(each)


def moved(value: Any, device: torch.device) -> Any:
    """The tensors of a batch on the device."""
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, dict):
        return {name: moved(each, device) for name, each in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(moved(each, device) for each in value)
    return value
