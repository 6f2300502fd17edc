"""A dataset of images, and what is taken from it: batches by (seed, step), and a fixed held-out set."""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hpsweep.rules.masks import random_stream

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]
Records = npt.NDArray[np.void]  # of record_type

CHUNK = 2**22  # pixels looked at together, so that a memory map never has to fit into memory


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageDataset:
    """Training and held-out images of one source, read-only, each label in [0, classes).

    mean, std: of the training images' pixels / 255, one per channel.
    data_hash: 16 hexadecimal digits of a SHA-256 over number of classes, pixels, labels and what is held out; equal
    images have equal hashes, whatever their source. `notes` says what is odd about them, a sentence each.
    """

    source: str
    train_images: Pixels  # (images, height, width, channels); may be a memory map
    train_labels: Integers  # (images,)
    validation_images: Pixels
    validation_labels: Integers
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    data_hash: str
    notes: tuple[str, ...] = ()

    @property
    def classes(self) -> int:
        """The number of classes."""
        return len(self.class_names)

    @property
    def vocabulary(self) -> int:
        """The number of classes, which a model tells apart as it does the tokens of a vocabulary."""
        return self.classes

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of an image, as models take it."""
        _, height, width, channels = self.train_images.shape
        return channels, height, width


def check_images(dataset: ImageDataset, *, eval_sequences: int) -> None:
    """Nothing, when `eval_sequences` images are held out.

    Raises ValueError with how many are and the remedy otherwise, and warns of what is odd: call it before any work.
    """
    held_out_places(dataset, eval_sequences)
    for note in dataset.notes:
        warnings.warn(f"data source {dataset.source!r}: {note}", stacklevel=2)


def image_batch(dataset: ImageDataset, seed: int, step: int, batch: int) -> tuple[Floats, Integers]:
    """Images (batch, channels, height, width), as `scaled_images` scales them, and labels (batch,) of a training step.

    They are drawn uniformly, with replacement: image number `step x batch + index` of a run is a function of that
    number, the seed and the number of training images alone. So trials of one seed see the same images in the same
    order, whatever their learning rate, and the first steps of a longer run are those of a shorter one.
    """
    number = len(dataset.train_images)
    start = step * batch
    stream = random_stream("batches", seed)
    stream.advance(start // 4)  # of which each gives four numbers
    draws = stream.random_raw(start % 4 + batch)[start % 4 :]
    places = (draws % np.uint64(number)).astype(np.int64)  # modulo bias < number / 2^64
    return scaled_images(dataset, dataset.train_images[places]), dataset.train_labels[places]


def image_eval(dataset: ImageDataset, count: int) -> tuple[Floats, Integers]:
    """`count` held-out images (count, channels, height, width) and labels (count,): fixed, spread evenly, none twice.

    Raises ValueError with the number that is held out when there are fewer.
    """
    places = held_out_places(dataset, count)
    return scaled_images(dataset, dataset.validation_images[places]), dataset.validation_labels[places]


def scaled_images(dataset: ImageDataset, images: Pixels) -> Floats:
    """(pixels / 255 - mean) / std by channel, from (..., height, width, channels) to (..., channels, height, width)."""
    std = 255 * np.array(dataset.std)
    factor = (1 / std).astype(np.float32)
    offset = (255 * np.array(dataset.mean) / std).astype(np.float32)
    return np.ascontiguousarray(np.moveaxis(images * factor - offset, -1, -3))


def held_out_places(dataset: ImageDataset, count: int) -> Integers:
    """Which of the held-out images `image_eval` takes. Raises ValueError as it does."""
    number = len(dataset.validation_images)
    if not 1 <= count <= number:
        raise ValueError(
            f"{count} validation images: {dataset.source!r} holds out {number}, of {number + len(dataset.train_images)}"
            " images. Use fewer eval_sequences, or more images."
        )
    return np.arange(count, dtype=np.int64) * number // count


# --- from records ---


def record_type(shape: tuple[int, ...]) -> np.dtype[np.void]:
    """What is kept of an image of (height, width, channels)."""
    return np.dtype([("held_out", "?"), ("label", "<i8"), ("image", "u1", shape)])


def dataset_of(source: str, records: Records, class_names: tuple[str, ...], notes: list[str]) -> ImageDataset:
    """The dataset of records, of which those that are held out come last.

    Raises ValueError where nothing is trained on or held out, of one class alone, and for a channel of one value.
    """
    first_held_out = int(np.searchsorted(records["held_out"], True))
    for number, part in ((first_held_out, "training"), (len(records) - first_held_out, "validation")):
        if not number:
            raise ValueError(f"no {part} images, of {len(records)}: too few; give more data.")
    labels = records["label"].astype(np.int64)
    images = records["image"]
    train_images = images[:first_held_out]
    if labels.min() == labels.max():
        only = class_names[labels[0]]
        raise ValueError(f"all {len(labels)} images are of one class, {only!r}: nothing to learn; give two or more.")
    mean, std = _pixel_statistics(train_images)
    return ImageDataset(
        source=source,
        train_images=train_images,
        train_labels=labels[:first_held_out],
        validation_images=images[first_held_out:],
        validation_labels=labels[first_held_out:],
        class_names=class_names,
        mean=mean,
        std=std,
        data_hash=records_hash(records, len(class_names)),
        notes=(*notes, *_untrained(labels[:first_held_out], class_names)),
    )


def records_hash(records: Records, classes: int) -> str:
    """The data_hash of an ImageDataset."""
    digest = hashlib.sha256(f"{classes}/{len(records)}/{records.dtype['image'].shape}/".encode())
    for start, stop in _parts(records):
        digest.update(np.ascontiguousarray(records[start:stop]).data)
    return digest.hexdigest()[:16]


def _untrained(labels: Integers, class_names: tuple[str, ...]) -> list[str]:
    """What to say of classes without training images."""
    missing = np.flatnonzero(np.bincount(labels, minlength=len(class_names)) == 0)
    if not len(missing):
        return []
    first = class_names[missing[0]]
    return [
        f"{len(missing)} of {len(class_names)} classes have no training images, such as {first!r}: do labels begin at "
        "0, and is none left out?"
    ]


def _pixel_statistics(images: Pixels) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of pixels / 255, by channel: from counts of the 256 values, so exact."""
    channels = images.shape[-1]
    counts = np.zeros((channels, 256), dtype=np.int64)
    for start, stop in _parts(images):
        for channel in range(channels):
            counts[channel] += np.bincount(images[start:stop, ..., channel].ravel(), minlength=256)
    number = counts[0].sum()
    values = np.arange(256) / 255
    mean = counts @ values / number
    std = np.sqrt((counts * (values - mean[:, None]) ** 2).sum(axis=1) / number)
    if not std.all():
        channel = int(np.argmin(std))
        raise ValueError(
            f"channel {channel} of {channels} has the value {255 * mean[channel]:.0f} in every pixel of the training "
            "images, so that it says nothing: were they filled? If so, leave the channel out, or ask for channels=1."
        )
    return tuple(map(float, mean)), tuple(map(float, std))


def _parts(images: npt.NDArray[Any]) -> list[tuple[int, int]]:
    """(start, stop) of the images that are looked at together."""
    size = max(1, images[0].nbytes)
    each = max(1, CHUNK // size)
    return [(start, min(start + each, len(images))) for start in range(0, len(images), each)]
