"""Images of folders, arrays and Parquet files: what is read, what is held out, and what is said of bad input."""

import hashlib
import io
import json
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from hpsweep.images import ImageDataset, check_images, decode, is_images, load_images
from hpsweep.images.decode import numbered_labels

Pixels = npt.NDArray[np.uint8]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    load_images.cache_clear()
    yield
    load_images.cache_clear()


def made(count: int, shape: tuple[int, ...] = (6, 5), seed: int = 0) -> Pixels:
    """Images of random pixels, no two alike."""
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


def png(pixels: Pixels, **options: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", **options)
    return file.getvalue()


def is_held_out(content: bytes) -> bool:
    return hashlib.sha256(content).digest()[0] % 16 == 0


def write_folder(root: Path, images: Pixels, classes: int = 3) -> None:
    for number, image in enumerate(images):
        folder = root / f"class {number % classes}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number:04}.png").write_bytes(png(image))


def write_parquet(path: Path, images: list[bytes], labels: list[int], **schema: object) -> None:
    stored = pa.array(
        [{"bytes": image, "path": f"{i}.png"} for i, image in enumerate(images)],
        pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
    )
    table = pa.table({"image": stored, "label": labels})
    if schema:
        table = table.replace_schema_metadata({"huggingface": json.dumps(schema)})
    pq.write_table(table, path)


def pairs(images: Pixels, labels: npt.NDArray[np.int64]) -> list[tuple[bytes, int]]:
    return sorted(
        (np.ascontiguousarray(image).tobytes(), int(label)) for image, label in zip(images, labels, strict=True)
    )


def message(source: str) -> str:
    """The one line that loading `source` fails with."""
    with pytest.raises(ValueError, match="data source") as caught:
        load_images(source)
    text = str(caught.value)
    assert "\n" not in text
    assert source in text
    return text


def notes(dataset: ImageDataset, eval_sequences: int = 2) -> str:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_images(dataset, eval_sequences=eval_sequences)
    return " ".join(str(each.message) for each in caught)


# --- what is read ---


def test_a_folder_of_classes_is_read_whole_and_split_by_the_hash_of_its_files(tmp_path: Path) -> None:
    images = made(120)
    write_folder(tmp_path / "data", images)
    dataset = load_images(f"images:{tmp_path / 'data'}")
    assert dataset.class_names == ("class 0", "class 1", "class 2")
    assert dataset.classes == dataset.vocabulary == 3
    assert dataset.shape == (1, 6, 5)
    assert dataset.train_images.dtype == np.uint8
    assert dataset.train_labels.dtype == np.int64
    held_out = np.array([is_held_out(png(image)) for image in images])
    assert 0 < held_out.sum() < 30
    labels = np.arange(120) % 3
    assert pairs(dataset.train_images, dataset.train_labels) == pairs(images[~held_out], labels[~held_out])
    assert pairs(dataset.validation_images, dataset.validation_labels) == pairs(images[held_out], labels[held_out])
    assert load_images(f"images:{tmp_path / 'data'}") is dataset


def test_the_arrays_of_npz_and_npy_files_are_the_same_images(tmp_path: Path) -> None:
    images = made(100, (4, 6, 3))
    labels = np.arange(100) % 7
    np.savez(tmp_path / "a.npz", x=images, y=labels, other=np.arange(3))
    np.savez_compressed(tmp_path / "b.npz", images=images, labels=labels.astype(np.uint8))
    np.save(tmp_path / "x.npy", images)
    np.save(tmp_path / "y.npy", labels.astype(np.float32))
    sources = [
        f"npz:{tmp_path / 'a.npz'}?images=x&labels=y",
        f"npz:{tmp_path / 'b.npz'}",
        f"npy:{tmp_path / 'x.npy'}?labels={tmp_path / 'y.npy'}",
    ]
    found = [load_images(source) for source in sources]
    for dataset in found:
        held_out = np.array([is_held_out(image.tobytes()) for image in images])
        assert np.array_equal(dataset.train_images, images[~held_out])
        assert np.array_equal(dataset.train_labels, labels[~held_out])
        assert np.array_equal(dataset.validation_images, images[held_out])
        assert dataset.class_names == tuple("0123456")
        assert dataset.shape == (3, 4, 6)
    assert len({dataset.data_hash for dataset in found}) == 1


def test_parquet_holds_images_where_the_option_image_says_so(tmp_path: Path) -> None:
    images = made(64)
    encoded = [png(image) for image in images]
    labels = [number % 2 for number in range(64)]
    features = {"features": {"label": {"names": ["cat", "dog", "eel"], "_type": "ClassLabel"}}}
    (tmp_path / "data").mkdir()
    write_parquet(tmp_path / "data" / "0.parquet", encoded[:40], labels[:40], info=features)
    write_parquet(tmp_path / "data" / "1.parquet", encoded[40:], labels[40:], info=features)
    dataset = load_images(f"parquet:{tmp_path / 'data'}?image=image")
    assert dataset.class_names == ("cat", "dog", "eel")
    held_out = np.array([is_held_out(each) for each in encoded])
    assert np.array_equal(dataset.train_images[..., 0], images[~held_out])
    assert np.array_equal(dataset.train_labels, np.array(labels)[~held_out])
    assert "'eel'" in notes(dataset)  # none of 64 images


def test_a_parquet_column_of_bytes_and_labels_of_text_are_read(tmp_path: Path) -> None:
    images = made(64)
    names = [["dog", "cat"][number % 2] for number in range(64)]
    pq.write_table(pa.table({"png": [png(image) for image in images], "kind": names}), tmp_path / "a.parquet")
    dataset = load_images(f"parquet:{tmp_path / 'a.parquet'}?image=png&label=kind")
    assert dataset.class_names == ("cat", "dog")
    at = {image.tobytes(): name for image, name in zip(images, names, strict=True)}
    for image, label in zip(dataset.train_images, dataset.train_labels, strict=True):
        assert dataset.class_names[label] == at[image.tobytes()]


@pytest.mark.parametrize(
    ("source", "images"),
    [
        ("glyphs", True),
        ("glyphs?size=28", True),
        ("images:folder", True),
        ("npz:a.npz", True),
        ("npy:a.npy?labels=b", True),
        ("parquet:a?image=image&label=label", True),
        ("parquet:a?column=image", False),
        ("parquet:image", False),
        ("stdlib", False),
        ("text:images", False),
        ("bin:a?dtype=uint16&vocabulary=9", False),
    ],
)
def test_a_source_says_whether_it_holds_images(source: str, images: bool) -> None:
    assert is_images(source) == images


# --- one size ---


def test_images_are_made_of_one_size_by_their_middle_square(tmp_path: Path) -> None:
    for number in range(64):
        wide = np.full((20, 40), number, dtype=np.uint8)  # the number in the middle, white beside it
        wide[:, :10] = wide[:, 30:] = 255
        high = np.full((30, 10), 100 + number, dtype=np.uint8)
        high[:10] = high[20:] = 255
        for name, image in (("wide", wide), ("high", high)):
            (tmp_path / "data" / name).mkdir(parents=True, exist_ok=True)
            (tmp_path / "data" / name / f"{number}.png").write_bytes(png(image))
    dataset = load_images(f"images:{tmp_path / 'data'}?size=5")
    images = np.concatenate([dataset.train_images, dataset.validation_images])
    assert images.shape == (128, 5, 5, 1)
    assert (images == images[:, :1, :1]).all()  # nothing of what was beside
    assert sorted(images[:, 0, 0, 0].tolist()) == sorted([*range(64), *range(100, 164)])


def test_arrays_are_made_of_one_size_and_gray_too(tmp_path: Path) -> None:
    images = np.repeat(made(100, (1, 1, 1)), 8 * 8 * 3).reshape(100, 8, 8, 3)
    np.savez(tmp_path / "a.npz", images=images, labels=np.arange(100) % 2)
    dataset = load_images(f"npz:{tmp_path / 'a.npz'}?size=4&channels=1")
    assert dataset.shape == (1, 4, 4)
    found = np.concatenate([dataset.train_images, dataset.validation_images])
    assert sorted(found[:, 0, 0, 0].tolist()) == sorted(images[:, 0, 0, 0].tolist())
    assert load_images(f"npz:{tmp_path / 'a.npz'}?channels=3").shape == (3, 8, 8)


def test_gray_palettes_and_clear_parts_become_what_people_see(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "data" / name).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(60):
        clear = np.zeros((4, 4, 4), dtype=np.uint8)
        clear[..., :3] = rng.integers(0, 256, (4, 4, 3))
        clear[:2, :, 3] = 255  # the lower half cannot be seen
        (tmp_path / "data" / "a" / f"{number}.png").write_bytes(png(clear))
        palette = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)).quantize(7)
        palette.save(tmp_path / "data" / "b" / f"{number}.PNG")
    dataset = load_images(f"images:{tmp_path / 'data'}")
    assert dataset.shape == (3, 4, 4)
    assert (dataset.train_images[dataset.train_labels == 0][:, 2:] == 255).all()
    assert (dataset.train_images[dataset.train_labels == 0][:, :2] < 255).any()


def test_photographs_are_turned_as_their_camera_was_held(tmp_path: Path) -> None:
    for number in range(64):
        exif = Image.Exif()
        exif[0x0112] = 6  # a quarter to the right
        pixels = np.zeros((8, 16), dtype=np.uint8)
        pixels[:, 8:] = 100 + number  # the right half, which is the lower one
        folder = tmp_path / "data" / str(number % 2)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / f"{number}.jpg", exif=exif)
    dataset = load_images(f"images:{tmp_path / 'data'}")
    assert dataset.shape == (1, 16, 8)
    assert dataset.train_images[:, :6].max() < 50 < dataset.train_images[:, 10:].min()


# --- the hash and the cache ---


def test_the_hash_tells_apart_a_pixel_a_label_and_the_number_of_classes(tmp_path: Path) -> None:
    images = made(100)
    labels = np.arange(100) % 5
    other_images = images.copy()
    other_images[57, 1, 1] ^= 1
    other_labels = labels.copy()
    other_labels[57] = (labels[57] + 1) % 5
    more = labels.copy()
    more[57] = 5
    hashes = set()
    for number, (x, y) in enumerate(
        [(images, labels), (other_images, labels), (images, other_labels), (images, more), (images[::-1], labels)]
    ):
        np.savez(tmp_path / f"{number}.npz", images=x, labels=y)
        dataset = load_images(f"npz:{tmp_path / f'{number}.npz'}")
        assert len(dataset.data_hash) == 16
        assert int(dataset.data_hash, 16)
        hashes.add(dataset.data_hash)
    assert len(hashes) == 5


def test_images_are_decoded_once_and_again_where_a_file_or_an_option_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(tmp_path / "data", made(100))
    source = f"images:{tmp_path / 'data'}"
    first = load_images(source)
    files = list((tmp_path / "cache").rglob("*.npy"))
    assert len(files) == 1

    def reloaded(source: str) -> tuple[ImageDataset, int]:
        load_images.cache_clear()
        opened = []
        original = Image.open
        with monkeypatch.context() as patched:
            patched.setattr(Image, "open", lambda file, **rest: opened.append(1) or original(file, **rest))
            return load_images(source), len(opened)

    again, opened = reloaded(source)
    assert opened <= 1
    assert again.data_hash == first.data_hash
    assert reloaded(f"{source}?size=3")[1] > 100
    path = next(tmp_path.glob("data/class 1/*.png"))
    path.write_bytes(png(made(1, seed=9)[0]))
    changed, opened = reloaded(source)
    assert opened > 100
    assert changed.data_hash != first.data_hash


@pytest.mark.parametrize("damage", [lambda path: cut(path, -9), lambda path: cut(path, 0), lambda path: flip(path)])
def test_a_damaged_file_in_the_cache_is_made_anew(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    write_folder(tmp_path / "data", made(100))
    first = load_images(f"images:{tmp_path / 'data'}")
    expected = first.train_images.copy()
    (path,) = (tmp_path / "cache").rglob("*.npy")
    content = path.read_bytes()
    del first
    damage(path)
    load_images.cache_clear()
    again = load_images(f"images:{tmp_path / 'data'}")
    assert np.array_equal(again.train_images, expected)
    assert [each.read_bytes() for each in (tmp_path / "cache").rglob("*.npy")] == [content]


def cut(path: Path, end: int) -> None:
    path.write_bytes(path.read_bytes()[:end])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-3] ^= 4
    path.write_bytes(content)


# --- bad input ---


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("stdlib?x=FOLDER", ["holds no images", "glyphs, images:FOLDER"]),
        ("images:", ["no path", "images:PATH"]),
        ("images:FOLDER/absent", ["FOLDER/absent does not exist", "check the path"]),
        ("images:FOLDER/file", ["FOLDER/file is no folder"]),
        ("images:FOLDER/empty", ["has no folders in it"]),
        ("images:FOLDER/absent?sise=3", ["unknown option 'sise'", "images takes the options size, channels"]),
        ("images:FOLDER/absent?size=0", ["size is 0", "[1, 4096]"]),
        ("images:FOLDER/absent?size=2.5", ["size is 2.5", "whole number"]),
        ("images:FOLDER/absent?channels=2", ["channels is 2", "3, which is RGB"]),
        ("images:FOLDER/absent?size=3&size=4", ["'size' is given twice"]),
        ("npz:FOLDER/absent.npz", ["absent.npz is no file"]),
        ("npz:FOLDER/file", ["is no file of numpy.save or savez"]),
        ("npy:FOLDER/file", ["no labels", "npy:PATH?labels=PATH"]),
        ("parquet:FOLDER/absent?image=image", ["FOLDER/absent does not exist"]),
        ("parquet:FOLDER/file?image=image", ["no Parquet file that can be read"]),
        (
            "parquet:FOLDER/file?image=a&column=b",
            ["unknown option 'column'", "parquet of images takes the options image"],
        ),
    ],
)
def test_a_bad_source_is_refused_with_what_is_allowed(tmp_path: Path, source: str, words: list[str]) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("no images")
    text = message(source.replace("FOLDER", str(tmp_path)))
    assert all(re.sub("FOLDER/", f"{tmp_path}/", word) in text for word in words), text


def test_a_file_that_is_no_image_is_named(tmp_path: Path) -> None:
    write_folder(tmp_path / "data", made(50))
    broken = tmp_path / "data" / "class 2" / "9999.jpg"
    broken.write_text("<html>not found</html>")
    assert f"{broken} is no image that can be read" in message(f"images:{tmp_path / 'data'}")
    broken.write_bytes(b"")
    assert f"{broken} is no image that can be read" in message(f"images:{tmp_path / 'data'}")
    whole = png(made(1, (40, 40))[0])
    broken.write_bytes(whole[: len(whole) // 2])
    assert f"{broken} is no image that can be read" in message(f"images:{tmp_path / 'data'}")


def test_what_pillow_would_run_a_program_for_is_no_image(tmp_path: Path) -> None:
    write_folder(tmp_path / "data", made(50))
    file = tmp_path / "data" / "class 0" / "a.png"
    Image.fromarray(made(1)[0]).save(file, "EPS")
    assert f"{file} is no image that can be read (it begins with b'%!PS-Ado')" in message(f"images:{tmp_path / 'data'}")


def test_an_image_of_16_bits_is_refused_and_not_cut(tmp_path: Path) -> None:
    write_folder(tmp_path / "data", made(50))
    deep = tmp_path / "data" / "class 0" / "deep.png"
    Image.fromarray(np.full((6, 5), 40_000, dtype=np.uint16)).save(deep)
    assert f"{deep} has more than 8 bits per channel" in message(f"images:{tmp_path / 'data'}")


def test_images_that_differ_are_refused_with_the_options_that_make_them_alike(tmp_path: Path) -> None:
    write_folder(tmp_path / "data", made(50))
    (tmp_path / "data" / "class 2" / "other.png").write_bytes(png(made(1, (9, 5, 3))[0]))
    text = message(f"images:{tmp_path / 'data'}")
    assert "other.png is 5 x 9 and in colour" in text
    assert "is 5 x 6 and gray" in text
    assert "?size=28&channels=1" in text
    assert load_images(f"images:{tmp_path / 'data'}?size=4&channels=3").shape == (3, 4, 4)


def test_images_that_differ_are_refused_also_where_they_were_made_alike_before(tmp_path: Path) -> None:
    write_folder(tmp_path / "data", made(50, (6, 6)))
    (tmp_path / "data" / "class 2" / "other.png").write_bytes(png(made(1, (9, 5))[0]))
    assert load_images(f"images:{tmp_path / 'data'}?size=6").shape == (1, 6, 6)
    assert "images differ" in message(f"images:{tmp_path / 'data'}")


def test_a_file_that_changes_while_it_is_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path / "data", made(50))
    original = decode.pixels_of

    def changing(*given: object) -> Pixels:  # is called after all files were hashed
        (tmp_path / "data" / "class 2" / "0047.png").write_bytes(png(made(1, seed=9)[0]))
        return original(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(decode, "pixels_of", changing)
    assert "the data was changed while it was read; try again" in message(f"images:{tmp_path / 'data'}")


def test_folders_that_are_splits_and_not_classes_are_refused(tmp_path: Path) -> None:
    for name in ("train", "val"):
        write_folder(tmp_path / "data" / name, made(50))
    text = message(f"images:{tmp_path / 'data'}")
    assert "'train', 'val'" in text
    assert f"images:{tmp_path / 'data' / 'train'}" in text


def test_a_class_without_images_and_one_class_alone_are_refused(tmp_path: Path) -> None:
    write_folder(tmp_path / "data", made(100), classes=1)
    assert "of one class, 'class 0'" in message(f"images:{tmp_path / 'data'}")
    (tmp_path / "data" / "class 1").mkdir()
    (tmp_path / "data" / "class 1" / "labels.txt").write_text("cat")
    assert "class 1 holds no .png, .jpg, .jpeg files" in message(f"images:{tmp_path / 'data'}")


def test_too_few_images_are_refused_by_loading_or_by_what_the_sweep_evaluates(tmp_path: Path) -> None:
    write_folder(tmp_path / "few", made(3))
    assert "no validation images, of 3" in message(f"images:{tmp_path / 'few'}")
    write_folder(tmp_path / "data", made(100))
    dataset = load_images(f"images:{tmp_path / 'data'}")
    held_out = len(dataset.validation_images)
    check_images(dataset, eval_sequences=held_out)
    with pytest.raises(ValueError, match=f"holds out {held_out}, of 100 images. Use fewer eval_sequences"):
        check_images(dataset, eval_sequences=held_out + 1)


@pytest.mark.parametrize(
    ("images", "labels", "words"),
    [
        (made(20).astype(np.float32) / 255, np.arange(20), ["float32, not uint8", "(255 * x).round()"]),
        (made(20, (30,)), np.arange(20), ["(20, 30)", "(images, height, width)"]),
        (made(20, (3, 8, 8)), np.arange(20), ["(20, 3, 8, 8)", "x.transpose(0, 2, 3, 1)"]),
        (made(0), np.arange(0), ["(0, 6, 5, 1)"]),
        (made(20), np.arange(19), ["labels have the shape (19,)", "(20,)"]),
        (made(20), np.arange(20)[:, None], ["labels have the shape (20, 1)"]),
        (made(20), np.arange(20) + 0.5, ["the label of image 0 is 0.5, no whole number"]),
        (made(20), np.arange(20) - 1, ["the label of image 0 is -1", "0 to 19"]),
        (made(20), np.arange(20) * 100, ["the label of image 1 is 100", "0 to 19"]),
        (made(20), np.array([np.nan] * 20), ["the label of image 0 is nan"]),
        (np.full((300, 4, 4), 7, dtype=np.uint8), np.arange(300) % 2, ["no validation images"]),
    ],
)
def test_bad_arrays_are_refused(
    tmp_path: Path, images: npt.NDArray[np.generic], labels: npt.NDArray[np.generic], words: list[str]
) -> None:
    np.savez(tmp_path / "a.npz", images=images, labels=labels)
    text = message(f"npz:{tmp_path / 'a.npz'}")
    assert all(word in text for word in words), text


def test_arrays_of_other_names_and_of_objects_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x_train=made(20), y_train=np.arange(20))
    text = message(f"npz:{tmp_path / 'a.npz'}")
    assert "no array 'images'; there is 'x_train', 'y_train'. Give ?images=NAME" in text
    np.savez(tmp_path / "b.npz", images=np.array([made(1)[0], made(1, (2, 2))[0]], dtype=object), labels=np.arange(2))
    assert "without objects" in message(f"npz:{tmp_path / 'b.npz'}")
    np.save(tmp_path / "c.npy", made(20))
    assert "write npy:" in message(f"npz:{tmp_path / 'c.npy'}")
    assert "write npz:" in message(f"npy:{tmp_path / 'a.npz'}?labels={tmp_path / 'c.npy'}")


def test_a_channel_of_one_value_is_refused(tmp_path: Path) -> None:
    images = made(100, (4, 4, 3))
    images[..., 1] = 9
    np.savez(tmp_path / "a.npz", images=images, labels=np.arange(100) % 2)
    assert "channel 1 of 3 has the value 9" in message(f"npz:{tmp_path / 'a.npz'}")


def test_bad_columns_and_rows_of_parquet_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    source = f"parquet:{path}?image=image"
    encoded = [png(image) for image in made(40)]
    write_parquet(path, encoded, [0, 1] * 20)
    assert "no column 'lable', or two; there is 'image', 'label'. Give &label=NAME" in message(f"{source}&label=lable")
    assert "no column 'img'" in message(f"parquet:{path}?image=img")
    assert "'label' is int64, and no encoded images" in message(f"parquet:{path}?image=label")
    write_parquet(path, [*encoded[:-1], None], [0, 1] * 20)  # type: ignore[list-item]
    assert "row 40: column 'image' holds no bytes" in message(source)
    write_parquet(path, encoded, [0, 1] * 19 + [0, None])  # type: ignore[list-item]
    assert "row 40: column 'label' is null" in message(source)
    write_parquet(path, [*encoded[:-1], b"GIF89a"], [0, 1] * 20)
    assert "row 40 is no image that can be read" in message(source)


def test_labels_are_numbered_in_sorted_order_of_their_text() -> None:
    labels, names = numbered_labels(["b", "a", "c", "a"], ())
    assert labels.tolist() == [1, 0, 2, 0]
    assert names == ("a", "b", "c")
    assert labels.dtype == np.int64


# --- notes ---


def test_copies_classes_without_images_and_files_that_are_not_read_are_told(tmp_path: Path) -> None:
    images = made(100)
    images[1] = images[0]  # of another class
    images[40:60] = images[20:40]  # of the same
    np.savez(tmp_path / "a.npz", images=images, labels=np.arange(100) % 4 + 1)
    text = notes(load_images(f"npz:{tmp_path / 'a.npz'}"))
    assert "21 % of the images are copies" in text
    assert "1 of 79 images stand in two classes" in text
    assert "1 of 5 classes have no training images, such as '0'" in text
    write_folder(tmp_path / "data", made(100))
    (tmp_path / "data" / "class 0" / "a.webp").write_text("")
    assert "1 of 101 files are not read" in notes(load_images(f"images:{tmp_path / 'data'}"))


def test_good_images_have_no_notes(tmp_path: Path) -> None:
    write_folder(tmp_path / "data", made(100))
    assert notes(load_images(f"images:{tmp_path / 'data'}")) == ""
