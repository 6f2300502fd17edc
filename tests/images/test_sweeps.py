"""Images in a sweep: taken with a model of the user's own, and refused with the built-in GPT before any work."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from hpsweep.images import ImageDataset, load_images
from hpsweep.proxy.data import load_dataset
from hpsweep.spec import Sweep, Trial
from hpsweep.sweep import run as driver
from hpsweep.sweep.packing import Cost

GLYPHS = "glyphs?size=8&classes=5&count=300"
TRIAL = Trial(width=32, depth=1, head_size=16, context=8, batch=2, steps=6, eval_sequences=16, data=GLYPHS)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    load_images.cache_clear()
    yield
    load_images.cache_clear()


def of_own_model(*trials: Trial) -> Sweep:
    """What the driver asks of a sweep whose model is the user's own."""
    return SimpleNamespace(name="own", trials=trials, own_code=object())  # type: ignore[return-value]


def test_a_sweep_of_the_built_in_gpt_on_images_is_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="images, which need a model of your own; the built-in GPT is trained on text"):
        driver.run(Sweep(name="images", base=TRIAL), tmp_path / "results")
    assert not (tmp_path / "results").exists()
    assert not (tmp_path / "cache").exists()  # nothing was drawn


@pytest.mark.parametrize("source", ["images:absent", "npz:absent", "parquet:absent?image=image"])
def test_images_are_refused_wherever_tokens_are_read(source: str) -> None:
    with pytest.raises(ValueError, match=r"data source .* need a model of your own") as caught:
        load_dataset(source)
    assert "\n" not in str(caught.value)


def test_a_model_of_ones_own_is_given_images_and_classes_for_its_vocabulary(tmp_path: Path) -> None:
    text = TRIAL.replace(data="stdlib")
    datasets = driver.checked_datasets(of_own_model(TRIAL, text), tmp_path)
    assert isinstance(datasets[GLYPHS], ImageDataset)
    assert datasets[GLYPHS] is load_images(GLYPHS)
    assert datasets[GLYPHS].vocabulary == 5
    assert datasets["stdlib"] is load_dataset("stdlib")
    assert Cost(datasets)(TRIAL) > 0


def test_too_few_images_for_a_trial_are_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"1024 validation images: .* holds out 20, of 320 images"):
        driver.checked_datasets(of_own_model(TRIAL, TRIAL.replace(eval_sequences=1024)), tmp_path)


def test_rows_of_other_images_are_not_mixed(tmp_path: Path) -> None:
    datasets = driver.checked_datasets(of_own_model(TRIAL), tmp_path)
    stored = {"data": GLYPHS, "data_hash": load_images(GLYPHS).data_hash}
    driver.check_hashes(tmp_path, [stored], datasets)
    with pytest.raises(ValueError, match="cannot be compared"):
        driver.check_hashes(tmp_path, [{**stored, "data_hash": "0" * 16}], datasets)
