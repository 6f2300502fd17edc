"""How hard the glyphs are: what drawing one takes, and how well two simple classifiers tell them apart.

Ridge regression of the classes on the pixels is linear; the nearest neighbour compares pixels. Both are measured on
the held-out images, after training on the first TRAIN images.

Cost: half a minute on one core.
Run: python -m benchmarks.glyphs
"""

from __future__ import annotations

import time

import numpy as np
import numpy.typing as npt

from hpsweep.images import image_eval, load_images, scaled_images
from hpsweep.images.glyphs import drawn_glyphs, glyph_image

SOURCE = "glyphs"
TRAIN = 20_000
EVAL = 2_000
DRAWN = 2_000
RIDGE = 1e-3  # of the sum of squares of a pixel

Floats = npt.NDArray[np.floating]
Integers = npt.NDArray[np.int64]


def milliseconds_per_glyph() -> float:
    """Of processor time, over DRAWN glyphs."""
    glyphs = drawn_glyphs(28, 62)
    begun = time.process_time()
    for number in range(DRAWN):
        glyph_image(number, glyphs, 28)
    return (time.process_time() - begun) / DRAWN * 1000


def ridge_answers(images: Floats, labels: Integers, others: Floats) -> Integers:
    """The class of each of the other images by ridge regression on pixels."""
    pixels = np.c_[images, np.ones(len(images), np.float32)]
    square = pixels.T @ pixels
    square[np.diag_indices_from(square)] += RIDGE * len(images)
    weights = np.linalg.solve(square, pixels.T @ np.eye(labels.max() + 1, dtype=np.float32)[labels])
    answers: Integers = (np.c_[others, np.ones(len(others), np.float32)] @ weights).argmax(axis=1)
    return answers


def nearest_answers(images: Floats, labels: Integers, others: Floats) -> Integers:
    """The class of the image that is nearest to each of the others, pixel by pixel."""
    apart = (images**2).sum(axis=1) - 2 * others @ images.T
    answers: Integers = labels[apart.argmin(axis=1)]
    return answers


def main() -> None:
    """Print the figures of docs/sweeps.md."""
    print(f"{milliseconds_per_glyph():.2f} ms of a core per glyph")
    dataset = load_images(SOURCE)
    print(f"{len(dataset.train_images)} training and {len(dataset.validation_images)} held-out images")
    images = scaled_images(dataset, dataset.train_images[:TRAIN]).reshape(TRAIN, -1)
    labels = dataset.train_labels[:TRAIN]
    others, truth = image_eval(dataset, EVAL)
    others = others.reshape(EVAL, -1)
    for name, answers in (("ridge", ridge_answers), ("nearest neighbour", nearest_answers)):
        right = (answers(images, labels, others) == truth).mean()
        print(f"{name}: {100 * right:.1f} % of {EVAL} held-out images right, after {TRAIN} of training")
    print(f"guessing: {100 / dataset.classes:.1f} %")


if __name__ == "__main__":
    main()
