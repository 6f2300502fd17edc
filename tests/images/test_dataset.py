"""Batches and held-out images: drawn by (seed, step) alone, as text is, and scaled by what is trained on."""

import subprocess
import sys

import numpy as np
import pytest

from hpsweep.images import ImageDataset, image_batch, image_eval, scaled_images
from hpsweep.images.dataset import dataset_of, record_type
from hpsweep.proxy.data import train_offsets


def numbered(train: int = 100, validation: int = 30, shape: tuple[int, ...] = (2, 3, 1)) -> ImageDataset:
    """Images whose pixels are their position, of the held-out ones plus 200; labels are the position modulo 5."""
    records = np.zeros(train + validation, record_type(shape))
    place = np.concatenate([np.arange(train), np.arange(validation)])
    records["held_out"] = np.arange(train + validation) >= train
    records["label"] = place % 5
    records["image"] = (place + 200 * records["held_out"])[:, None, None, None]
    return dataset_of("made", records, tuple("abcde"), [])


def positions(images: np.ndarray, dataset: ImageDataset) -> list[int]:
    """The pixel of each image, as it was before scaling."""
    pixels = (images[:, 0, 0, 0] * dataset.std[0] + dataset.mean[0]) * 255
    return pixels.round().astype(int).tolist()


def test_a_batch_is_drawn_as_windows_of_text_are() -> None:
    dataset = numbered()
    for seed in (0, 3):
        expected = train_offsets(101, seed=seed, steps=9, batch=7, context=1)  # 100 starts
        for step in range(9):
            images, labels = image_batch(dataset, seed, step, 7)
            assert positions(images, dataset) == expected[step].tolist()
            assert labels.tolist() == (expected[step] % 5).tolist()


def test_batches_of_other_seeds_and_steps_differ() -> None:
    dataset = numbered()
    batches = {
        tuple(positions(image_batch(dataset, seed, step, 16)[0], dataset)) for seed in range(3) for step in range(3)
    }
    assert len(batches) == 9


def test_a_late_step_draws_no_more_than_its_own_images() -> None:
    dataset = numbered()
    late, _ = image_batch(dataset, 0, 10**12, 3)  # at once, and not after as many draws
    assert late.shape == (3, 1, 2, 3)


def test_shapes_and_types_are_those_that_models_take() -> None:
    dataset = numbered(shape=(4, 6, 3))
    images, labels = image_batch(dataset, 0, 0, 8)
    assert images.shape == (8, 3, 4, 6)
    assert images.dtype == np.float32
    assert images.flags["C_CONTIGUOUS"]
    assert labels.shape == (8,)
    assert labels.dtype == np.int64
    assert dataset.shape == (3, 4, 6)


def test_held_out_images_are_spread_evenly_and_none_comes_twice() -> None:
    dataset = numbered()
    images, labels = image_eval(dataset, 10)
    assert positions(images, dataset) == [200 + 3 * i for i in range(10)]
    assert labels.tolist() == [3 * i % 5 for i in range(10)]
    assert positions(image_eval(dataset, 30)[0], dataset) == list(range(200, 230))


@pytest.mark.parametrize("count", [0, 31])
def test_more_held_out_images_than_there_are_are_refused(count: int) -> None:
    with pytest.raises(ValueError, match="'made' holds out 30, of 130 images"):
        image_eval(numbered(), count)


def test_training_images_are_scaled_to_mean_0_and_std_1_by_channel() -> None:
    rng = np.random.default_rng(0)
    records = np.zeros(60, record_type((5, 4, 3)))
    records["held_out"][50:] = True
    records["label"] = np.arange(60) % 2
    records["image"] = rng.integers(0, 256, (60, 5, 4, 3)) // np.array([1, 2, 5])
    dataset = dataset_of("made", records, ("a", "b"), [])
    pixels = records["image"][:50] / 255
    assert dataset.mean == pytest.approx(pixels.mean(axis=(0, 1, 2)), rel=1e-12)
    assert dataset.std == pytest.approx(pixels.std(axis=(0, 1, 2)), rel=1e-12)
    scaled = scaled_images(dataset, dataset.train_images)
    assert scaled.shape == (50, 3, 5, 4)
    assert scaled.mean(axis=(0, 2, 3)) == pytest.approx(np.zeros(3), abs=1e-5)
    assert scaled.std(axis=(0, 2, 3)) == pytest.approx(np.ones(3), rel=1e-5)
    one = scaled_images(dataset, dataset.validation_images[3])
    expected = (records["image"][53, 1, 2, 1] / 255 - dataset.mean[1]) / dataset.std[1]
    assert one[1, 1, 2] == pytest.approx(expected, rel=1e-5)


def test_statistics_of_many_images_are_those_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = numbered(train=200)
    monkeypatch.setattr("hpsweep.images.dataset.CHUNK", 50)
    parts = numbered(train=200)
    assert parts.mean == whole.mean
    assert parts.std == whole.std
    assert parts.data_hash == whole.data_hash


def test_the_hash_tells_apart_numbers_of_classes_and_not_their_names() -> None:
    records = np.zeros(40, record_type((2, 2, 1)))
    records["held_out"][30:] = True
    records["label"] = np.arange(40) % 2
    records["image"] = np.arange(160).reshape(40, 2, 2, 1)
    hashes = [dataset_of("made", records, names, []).data_hash for names in (("a", "b"), ("c", "d"), ("a", "b", "c"))]
    assert hashes[0] == hashes[1] != hashes[2]


def test_images_are_imported_without_what_they_do_not_need() -> None:
    others = ("torch", "ray", "optuna", "matplotlib", "PIL", "pandas", "pyarrow")
    code = f"import sys, hpsweep.images; print([name for name in {others} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
