"""Images with labels as they are stored: in folders of classes, arrays and Parquet files. Nothing is decoded here."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from hpsweep.proxy.documents import error_line, files_under, is_visible, quoted_names
from hpsweep.proxy.token_file import check_file

SUFFIXES = (".png", ".jpg", ".jpeg")
"""How the names of images in folders end, in lower or upper case."""

_SPLITS = {"train", "training", "val", "valid", "validation", "dev", "test", "testing"}
_BATCH = 256  # rows of a Parquet file that are read together


class Content(NamedTuple):
    """One image as it is stored. `where`: how an error names it."""

    where: str
    data: bytes
    label: int | float | str


class Contents(NamedTuple):
    """The images of a source.

    read: gives them, in the same order each time. shape: (height, width, channels) of data that are pixels, None of
    encoded images. class_names: of labels that are numbers, if the source has any.
    """

    read: Callable[[], Iterator[Content]]
    shape: tuple[int, int, int] | None = None
    class_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def folder_contents(folder: Path) -> Contents:
    """FOLDER/CLASS/*.png, .jpg and .jpeg, in the order of classes and paths."""
    if not folder.is_dir():
        what = "is no folder; give the one that holds a folder for every class"
        if not folder.exists():
            what = "does not exist; check the path"
        raise ValueError(f"{folder.absolute()} {what}.")
    classes = sorted(path.name for path in folder.iterdir() if path.is_dir() and is_visible(path.name))
    if not classes:
        raise ValueError(f"{folder.absolute()} has no folders in it; give one that holds a folder for every class.")
    if {name.lower() for name in classes} <= _SPLITS:
        raise ValueError(
            f"the folders in {folder.absolute()} are {quoted_names(classes)}, which are no classes; give one of them, "
            f"such as images:{folder / classes[0]}."
        )
    found = [(name, path) for name in classes for path in files_under(folder / name)]
    images = [(name, path) for name, path in found if path.name.lower().endswith(SUFFIXES)]
    for name in sorted(set(classes) - {name for name, _ in images}):
        raise ValueError(f"{folder.absolute() / name} holds no {', '.join(SUFFIXES)} files; add some, or remove it.")
    notes = []
    others = [path for _, path in found if not path.name.lower().endswith(SUFFIXES)]
    if others:
        notes.append(
            f"{len(others)} of {len(found)} files are not read, for they are no .png, .jpg or .jpeg: {others[0]}."
        )

    def read() -> Iterator[Content]:
        for name, path in images:
            yield Content(str(path), path.read_bytes(), name)

    return Contents(read, notes=tuple(notes))


# --- arrays ---


def npz_arrays(path: Path, images: str, labels: str) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Two arrays of a .npz file, by name."""
    check_file(path)
    archive = _loaded(path)
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise ValueError(f"{path} is one array, as in a .npy; write npy:{path}?labels=PATH, with its labels.")
    with archive:
        for option, name in (("images", images), ("labels", labels)):
            if name not in archive:
                raise ValueError(f"{path}: no array {name!r}; there is {quoted_names(archive)}. Give ?{option}=NAME.")
        try:
            return archive[images], archive[labels]
        except (EOFError, OSError, ValueError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path}: {error_line(error)}; write it again, without objects.") from error


def two_arrays(images: Path, labels: str | None) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """The arrays of two .npy files."""
    if labels is None:
        raise ValueError("no labels; write npy:PATH?labels=PATH, two .npy files.")
    found = []
    for path in (images, Path(labels).expanduser()):
        check_file(path)
        array = _loaded(path)
        if not isinstance(array, np.ndarray):
            array.close()
            raise ValueError(f"{path} is an archive of arrays, as .npz are; write npz:{path}?images=NAME&labels=NAME.")
        found.append(array)
    return found[0], found[1]


def _loaded(path: Path) -> Any:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (EOFError, OSError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is no file of numpy.save or savez ({error_line(error)}); write it again.") from error


def array_contents(images: npt.NDArray[Any], labels: npt.NDArray[Any]) -> Contents:
    """The images of an array of uint8, (images, height, width) or (images, height, width, channels)."""
    if images.dtype != np.uint8:
        raise ValueError(
            f"images are {images.dtype}, not uint8; write them as (255 * x).round().astype('uint8') where they are in "
            "[0, 1]."
        )
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.shape[3] not in (1, 3) or not images.size:
        remedy = ""
        if images.ndim == 4 and images.shape[1] in (1, 3):
            remedy = "; x.transpose(0, 2, 3, 1) puts the channels last"
        raise ValueError(
            f"images have the shape {images.shape}; give (images, height, width) or (images, height, width, 1 or 3)"
            f"{remedy}."
        )
    if labels.shape != images.shape[:1]:
        raise ValueError(f"labels have the shape {labels.shape}; give one number per image, ({len(images)},).")

    def read() -> Iterator[Content]:
        for number, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
            yield Content(f"image {number}", image.tobytes(), label)

    _, height, width, channels = images.shape
    return Contents(read, shape=(height, width, channels))


# --- Parquet ---


def parquet_contents(path: Path, image: str, label: str) -> Contents:
    """Encoded images of a column of bytes, or of structs with a field `bytes`, and their labels."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    files = files_under(path, (".parquet",))
    names: tuple[str, ...] = ()
    for file in files:
        try:
            schema = pq.read_schema(file)
        except (pa.ArrowException, OSError) as error:
            raise ValueError(
                f"{file} is no Parquet file that can be read ({error_line(error)}); fetch it again."
            ) from error
        for option, name in (("image", image), ("label", label)):
            if schema.names.count(name) != 1:
                raise ValueError(
                    f"{file}: no column {name!r}, or two; there is {quoted_names(schema.names)}. Give &{option}=NAME."
                )
        _check_image_column(file, image, schema.field(image).type)
        names = names or _stored_names(schema, label)

    def read() -> Iterator[Content]:
        for file in files:
            try:
                yield from _rows(file, image, label)
            except (pa.ArrowException, OSError) as error:
                raise ValueError(f"{file}: {error_line(error)}") from error

    return Contents(read, class_names=names)


def _check_image_column(file: Path, name: str, kind: Any) -> None:
    import pyarrow as pa

    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        kind = kind.field("bytes").type
    if not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        raise ValueError(
            f"{file}: column {name!r} is {kind}, and no encoded images: give one of bytes, or of structs with a field "
            "`bytes`, as Hugging Face's datasets store an Image."
        )


def _rows(file: Path, image: str, label: str) -> Iterator[Content]:
    import pyarrow.parquet as pq

    row = 0
    with pq.ParquetFile(file, page_checksum_verification=True) as opened:
        for batch in opened.iter_batches(_BATCH, columns=[image, label]):
            labels = batch.column(label).to_pylist()
            for stored, number in zip(batch.column(image).to_pylist(), labels, strict=True):
                row += 1
                where = f"{file}, row {row}"
                data = stored
                if isinstance(stored, dict):
                    data = stored["bytes"]
                if data is None:
                    raise ValueError(
                        f"{where}: column {image!r} holds no bytes, as where images lie in other files: embed them."
                    )
                if number is None:
                    raise ValueError(f"{where}: column {label!r} is null; remove rows without a label first.")
                yield Content(where, data, number)


def _stored_names(schema: Any, label: str) -> tuple[str, ...]:
    """The names of classes that Hugging Face's datasets keep in a file, if it is one of theirs."""
    stored = (schema.metadata or {}).get(b"huggingface", b"{}")
    try:
        names: Sequence[str] = json.loads(stored)["info"]["features"][label]["names"]
    except (KeyError, TypeError, ValueError):  # another label, or another writer
        return ()
    return tuple(map(str, names))
