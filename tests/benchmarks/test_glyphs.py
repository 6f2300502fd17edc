"""What the glyphs are measured with."""

import numpy as np

from benchmarks.glyphs import nearest_answers, ridge_answers


def test_both_classifiers_tell_apart_what_is_apart_and_know_the_nearest() -> None:
    rng = np.random.default_rng(0)
    centres = np.eye(3, 8, dtype=np.float32) * 5
    labels = np.arange(300) % 3
    images = (centres[labels] + rng.normal(size=(300, 8)) / 5).astype(np.float32)
    others = (centres + rng.normal(size=(3, 8)) / 5).astype(np.float32)
    assert ridge_answers(images, labels, others).tolist() == [0, 1, 2]
    assert nearest_answers(images, labels, others).tolist() == [0, 1, 2]


def test_the_nearest_neighbour_is_no_straight_line() -> None:
    images = np.array([[0, 0], [1, 1], [0, 1], [1, 0]], dtype=np.float32)
    labels = np.array([0, 0, 1, 1])
    assert nearest_answers(images, labels, images * 0.9).tolist() == labels.tolist()
