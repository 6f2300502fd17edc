"""Glyphs: what is drawn, that it is drawn once, and that an image is a function of its number."""

import multiprocessing
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from hpsweep.images import ImageDataset, cache, glyphs, load_images
from hpsweep.images.glyphs import CHARACTERS, FONTS, drawn_glyphs, glyph_image

SMALL = "glyphs?size=12&classes=5&count=150"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    load_images.cache_clear()
    yield
    load_images.cache_clear()


def message(source: str) -> str:
    with pytest.raises(ValueError, match="data source") as caught:
        load_images(source)
    return str(caught.value)


def reloaded(source: str) -> ImageDataset:
    load_images.cache_clear()
    return load_images(source)


def test_of_sixteen_glyphs_the_last_is_held_out() -> None:
    dataset = load_images(SMALL)
    assert dataset.shape == (1, 12, 12)
    assert dataset.class_names == tuple("01234")
    assert len(dataset.train_images) == 150
    assert len(dataset.validation_images) == 10
    drawn = drawn_glyphs(12, 5)
    numbers = [number for number in range(160) if number % 16 != 15]
    for found_images, found_labels, expected in (
        (dataset.train_images, dataset.train_labels, numbers),
        (dataset.validation_images, dataset.validation_labels, range(15, 160, 16)),
    ):
        for image, label, number in zip(found_images, found_labels, expected, strict=True):
            own_label, own_image = glyph_image(number, drawn, 12)
            assert label == own_label
            assert np.array_equal(image, own_image)


def test_more_glyphs_begin_with_the_same_ones() -> None:
    few = load_images(SMALL)
    more = load_images(SMALL.replace("150", "300"))
    assert np.array_equal(more.train_images[:150], few.train_images)
    assert np.array_equal(more.validation_labels[:10], few.validation_labels)
    assert more.data_hash != few.data_hash


def test_every_class_and_font_is_drawn_about_as_often_and_no_image_twice() -> None:
    dataset = load_images("glyphs?size=8&classes=10&count=4000")
    counts = np.bincount(dataset.train_labels)
    assert len(counts) == 10
    assert np.abs(counts - 400).max() < 5 * np.sqrt(400)
    assert len({image.tobytes() for image in dataset.train_images}) == 4000


def test_every_font_has_every_character_and_no_two_fonts_draw_all_alike() -> None:
    drawn = drawn_glyphs(28, 62)
    assert [len(fonts) for fonts in drawn] == [21] * 62
    ink = np.array([[np.asarray(image).sum() / 255 for image in fonts] for fonts in drawn])
    assert ink.min() > 0.01 * 56**2  # also an i has as much
    pages = {b"".join(drawn[c][f].tobytes() for c in range(62)) for f in range(21)}
    assert len(pages) == 21
    for character, fonts in zip(CHARACTERS, drawn, strict=True):
        for name, image in zip(FONTS, fonts, strict=True):
            rows, columns = np.nonzero(np.asarray(image))
            for places in (rows, columns):  # in the middle, and whole: none is at the edge of the square
                assert abs(places.min() + places.max() + 1 - 112) <= 1, (character, name)
                assert places.min() > 10


def test_an_image_shows_its_character_lighter_than_the_ground() -> None:
    drawn = drawn_glyphs(28, 62)
    for number in range(200):
        label, image = glyph_image(number, drawn, 28)
        assert 0 <= label < 62
        assert image.shape == (28, 28, 1)
        assert image.dtype == np.uint8
        border = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
        assert image.max() > border.mean() + 20


def test_a_glyph_is_known_by_its_pixels_but_not_at_once() -> None:
    """Held-out images are often nearest to the mean image of their class, and not always."""
    dataset = load_images("glyphs?size=16&classes=4&count=2000")
    images = dataset.train_images[..., 0].reshape(2000, -1) / 255
    means = np.array([images[dataset.train_labels == label].mean(axis=0) for label in range(4)])
    others = dataset.validation_images[..., 0].reshape(-1, 256) / 255
    nearest = ((others[:, None] - means) ** 2).sum(axis=-1).argmin(axis=1)
    right = (nearest == dataset.validation_labels).mean()
    assert 0.4 < right < 0.99


# --- drawn once ---


def test_glyphs_are_drawn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    first = load_images(SMALL)
    monkeypatch.setattr(glyphs, "glyph_image", None)
    again = reloaded(SMALL)
    assert again is not first
    assert again.data_hash == first.data_hash
    assert np.array_equal(again.train_images, first.train_images)


def test_another_version_of_what_draws_draws_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load_images(SMALL)
    monkeypatch.setattr("PIL.__version__", "0.0.1")
    again = reloaded(SMALL)
    assert len(list((tmp_path / "cache").rglob("glyphs-*.npy"))) == 2
    assert again.data_hash == first.data_hash  # for the images are the same, so that their losses can be compared


def test_another_way_to_draw_draws_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load_images(SMALL)
    changed = tmp_path / "glyphs.py"
    changed.write_text("# another way")
    monkeypatch.setattr(glyphs, "__file__", str(changed))
    reloaded(SMALL)
    assert len(list((tmp_path / "cache").rglob("glyphs-*.npy"))) == 2


def test_images_are_kept_also_where_no_library_may_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_flag=os.ST_NOEXEC))
    assert load_images(SMALL).classes == 5
    assert len(list((tmp_path / "cache").rglob("glyphs-*.npy"))) == 1


def test_processes_that_ask_together_draw_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    with context.Pool(3) as pool:
        hashes = pool.map(_hash_and_count, [str(tmp_path / "count")] * 3, chunksize=1)
    assert len(set(hashes)) == 1
    assert (tmp_path / "count").read_text() == "drawn\n"


def _hash_and_count(log: str) -> str:
    original = glyphs.drawn_glyphs

    def noted(size: int, classes: int) -> object:
        with Path(log).open("a") as file:
            file.write("drawn\n")
        return original(size, classes)

    glyphs.drawn_glyphs = noted  # type: ignore[assignment]
    return load_images("glyphs?size=16&classes=20&count=2000").data_hash


def test_drawing_that_was_cut_short_leaves_nothing_that_is_taken_for_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        original = glyph_image

        def failing(number: int, *rest: object) -> object:
            if number == 100:
                raise KeyboardInterrupt
            return original(number, *rest)  # type: ignore[arg-type]

        patched.setattr(glyphs, "glyph_image", failing)
        with pytest.raises(KeyboardInterrupt):
            load_images(SMALL)
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.suffix in (".npy", ".tmp")]
    assert len(load_images(SMALL).train_images) == 150


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    load_images(SMALL)
    (path,) = (tmp_path / "cache").rglob("*.npy")
    left = path.with_name(f".{path.name.rpartition('-')[0]}.999999.tmp")
    path.rename(left)
    assert reloaded(SMALL).classes == 5
    assert path.exists()
    assert not left.exists()


def test_without_locks_images_are_made_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(cache.fcntl, "flock", flock)
    assert load_images(SMALL).classes == 5
    assert len(list((tmp_path / "cache").rglob("*.npy"))) == 1


def test_a_full_disk_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache.np.lib.format, "write_array_header_2_0", full)
    found = message(SMALL)
    assert f"{160 * (1 + 8 + 12 * 12)} bytes find no room" in found
    assert "set XDG_CACHE_HOME" in found


# --- bad input ---


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("glyphs:fonts", "glyphs takes no path"),
        ("glyphs?font=a", "unknown option 'font'; glyphs takes the options size, classes, count"),
        ("glyphs?size=7", "size is 7; give a whole number in [8, 256]"),
        ("glyphs?classes=63", "classes is 63; give a whole number in [2, 62]"),
        ("glyphs?classes=1", "classes is 1"),
        ("glyphs?count=many", "count is many"),
        ("glyphs?count=-1", "count is -1"),
    ],
)
def test_bad_options_are_refused(source: str, words: str) -> None:
    assert words in message(source)


def test_a_font_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(glyphs, "FONTS", ("Comic.ttf", *FONTS))
    assert "matplotlib's font Comic.ttf is not there; install matplotlib" in message(SMALL)
