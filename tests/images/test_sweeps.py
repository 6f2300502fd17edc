"""Images in a sweep: batches for a model of the user's own, and refused with the built-in GPT before any work."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from hpsweep.images import image_batch, image_eval, load_images
from hpsweep.images.batches import ImageBatches
from hpsweep.proxy.data import load_dataset
from hpsweep.spec import Sweep, Trial
from hpsweep.sweep import run as driver
from hpsweep.sweep.estimate import plan

GLYPHS = "glyphs?size=8&classes=5&count=300"
TRIAL = Trial(width=32, depth=1, head_size=16, context=8, batch=6, steps=7, eval_sequences=16, data=GLYPHS)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    load_images.cache_clear()
    yield
    load_images.cache_clear()


def test_a_sweep_of_the_built_in_gpt_on_images_is_refused_before_any_work(tmp_path: Path) -> None:
    sweep = Sweep(name="images", base=TRIAL)
    for work in (driver.run_sweep, plan):
        with pytest.raises(ValueError, match="images, which need a model of your own; the built-in GPT is trained on"):
            work(sweep, tmp_path / "results")
    assert not (tmp_path / "results").exists()
    assert not (tmp_path / "cache").exists()  # nothing was drawn


@pytest.mark.parametrize("source", ["images:absent", "npz:absent", "parquet:absent?image=image"])
def test_images_are_refused_wherever_tokens_are_read(source: str) -> None:
    with pytest.raises(ValueError, match=r"data source .* need a model of your own") as caught:
        load_dataset(source)
    assert "\n" not in str(caught.value)


def test_the_batches_of_a_trial_are_those_of_its_seed_and_steps() -> None:
    dataset = load_images(GLYPHS)
    batches = ImageBatches(GLYPHS)
    assert batches.vocabulary == 5
    assert batches.data_hash == dataset.data_hash
    for seed in (0, 1):
        given = list(batches.train(TRIAL.replace(seed=seed, lr=0.5)))
        assert len(given) == 7
        for step, (images, labels) in enumerate(given):
            expected_images, expected_labels = image_batch(dataset, seed, step, 6)
            assert torch.equal(images, torch.from_numpy(expected_images))
            assert torch.equal(labels, torch.from_numpy(expected_labels))


def test_all_trials_are_measured_on_the_same_images() -> None:
    expected_images, expected_labels = image_eval(load_images(GLYPHS), 16)
    for batch in (6, 16, 40):
        given = list(ImageBatches(GLYPHS).held_out(TRIAL.replace(batch=batch, seed=batch)))
        assert torch.equal(torch.cat([images for images, _ in given]), torch.from_numpy(expected_images))
        assert torch.equal(torch.cat([labels for _, labels in given]), torch.from_numpy(expected_labels))
        assert max(len(images) for images, _ in given) <= batch


def test_too_few_held_out_images_are_refused() -> None:
    with pytest.raises(ValueError, match=r"1024 validation images: .* holds out 20, of 320 images"):
        next(ImageBatches(GLYPHS).held_out(TRIAL.replace(eval_sequences=1024)))
