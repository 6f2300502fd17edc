"""The batches of images of a trial, as tensors: what a model of the user's own is trained on and measured on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from hpsweep.images.dataset import held_out_places, image_batch, scaled_images
from hpsweep.images.sources import load_images
from hpsweep.spec import Trial


@dataclass(frozen=True)
class ImageBatches:
    """Images and labels of a source, drawn by seed and step: equal seeds have equal batches."""

    source: str

    @property
    def vocabulary(self) -> int:
        """The number of classes."""
        return load_images(self.source).classes

    @property
    def data_hash(self) -> str:
        """The hash of the images."""
        return load_images(self.source).data_hash

    def train(self, trial: Trial) -> Iterator[tuple[Tensor, Tensor]]:
        """Images (batch, channels, height, width) in float32 and labels (batch,) of every step."""
        dataset = load_images(self.source)
        for step in range(trial.total_steps):
            images, labels = image_batch(dataset, trial.seed, step, trial.batch)
            yield torch.from_numpy(images), torch.from_numpy(labels)

    def held_out(self, trial: Trial) -> Iterator[tuple[Tensor, Tensor]]:
        """The held-out images, as `image_eval` has them, in batches of the trial's size."""
        dataset = load_images(self.source)
        places = held_out_places(dataset, trial.eval_sequences)
        for start in range(0, len(places), trial.batch):
            some = places[start : start + trial.batch]
            images = scaled_images(dataset, dataset.validation_images[some])
            yield torch.from_numpy(images), torch.from_numpy(dataset.validation_labels[some])
