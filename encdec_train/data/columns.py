"""What the columns of an opened data set hold, and how pictures come out of them."""

from __future__ import annotations

import io
from collections.abc import Collection
from functools import partial
from typing import Any

from encdec_train.data.local import reason
from encdec_train.registry import did_you_mean

COLUMN_KINDS = ("image", "audio", "text", "label", "number", "list", "other")
USUAL = {  # names that win over the first column that fits
    "image": ("image", "img", "picture"),
    "audio": ("audio", "sound", "speech"),
    "text": ("text", "content", "sentence", "document", "body"),
}
SOUNDS = (b"RIFF", b"fLaC", b"OggS", b"ID3", b"FORM", b"\xff\xfb")  # how sound files begin


def column_kind(feature: Any) -> str:
    """One of `COLUMN_KINDS`."""
    import datasets

    if isinstance(feature, datasets.Image):
        return "image"
    if isinstance(feature, datasets.Audio):
        return "audio"
    if isinstance(feature, datasets.ClassLabel):
        return "label"
    if isinstance(feature, datasets.Value):
        dtype = feature.dtype
        if "string" in dtype:
            return "text"
        return "number" if dtype.startswith(("int", "uint", "float", "bool", "double")) else "other"
    listed = isinstance(feature, list) or type(feature).__name__ in {"List", "LargeList", "Sequence"}
    return "list" if listed or type(feature).__name__.startswith("Array") else "other"


def content_column(dataset: Any, wanted: str | None, kinds: Collection[str]) -> str:
    """The column that holds the content: `wanted`, or else the one with a usual name, or the first that fits.

    Args:
        dataset: an opened `datasets.Dataset`.
        wanted: `data.column`.
        kinds: what the transform can read, of the kinds of `column_kind`.

    Raises:
        ValueError: there is no such column, or none of these kinds; what exists is listed.
    """
    found = {name: column_kind(feature) for name, feature in dataset.features.items()}
    held = ", ".join(f"{name} ({kind})" for name, kind in found.items())
    need = " or ".join(kinds)
    if wanted is not None:
        if wanted not in found:
            guess = did_you_mean(wanted, found)
            raise ValueError(f"data.column: there is no column '{wanted}'{guess}; there are {held}")
        if found[wanted] not in kinds:
            raise ValueError(f"data.column: '{wanted}' holds {found[wanted]}, the transform reads {need}")
        return wanted
    fitting = [name for name, kind in found.items() if kind in kinds]
    if not fitting:
        raise ValueError(f"data.column: no column holds {need}, which the transform reads; there are {held}")
    usual = [name for kind in kinds for name in USUAL.get(kind, ())]
    return min(fitting, key=lambda name: usual.index(name.lower()) if name.lower() in usual else len(usual))


def undecoded(dataset: Any) -> Any:
    """Image and Audio columns as `{"bytes", "path"}`; those that lost their type are found again."""
    import datasets

    types = {"image": datasets.Image, "audio": datasets.Audio}
    for name, feature in dataset.features.items():
        kind = column_kind(feature)
        kind = _encoded(dataset, name) if kind == "other" else kind
        if kind in types and getattr(feature, "decode", True):
            dataset = dataset.cast_column(name, types[kind](decode=False))
    return dataset


def decoding(dataset: Any, where: str) -> Any:
    """Pictures are decoded by Pillow when a row is read; sounds stay encoded, for soundfile to read.

    Args:
        dataset: as `undecoded` gives it. Its columns must not be renamed any more.
        where: names the data in errors about pictures without a name.
    """
    pictures = [name for name, feature in dataset.features.items() if column_kind(feature) == "image"]
    return dataset.with_transform(partial(_decode, pictures, where)) if pictures else dataset


def read_image(value: dict[str, Any], where: str) -> Any:
    """A loaded PIL picture from `{"bytes", "path"}`.

    Raises:
        ValueError: it cannot be read; its file is named, or `where` it lies.
    """
    from PIL import Image

    name = f"{value['path']} in {where}" if value["bytes"] is not None and value["path"] else value["path"] or where
    try:
        with Image.open(value["path"] if value["bytes"] is None else io.BytesIO(value["bytes"])) as image:
            image.load()
            return image
    except (OSError, SyntaxError, ValueError) as error:  # Pillow raises all three for broken files
        said = "it is not a picture" if "cannot identify" in str(error) else reason(error)
        raise ValueError(f"data.path: the picture {name} cannot be read: {said}") from error


def _decode(pictures: list[str], where: str, rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
    for name in pictures:
        if name in rows:
            rows[name] = [None if value is None else read_image(value, where) for value in rows[name]]
    return rows


def _encoded(dataset: Any, name: str) -> str:
    """'image' or 'audio' for a column of encoded bytes that lost its type, told by how the first begins."""
    if not len(dataset):
        return "other"
    value = dataset[0][name]
    if isinstance(value, dict) and isinstance(value.get("bytes"), bytes):
        value = value["bytes"]
    if not isinstance(value, bytes):
        return "other"
    return "audio" if value.startswith(SOUNDS) and value[8:12] != b"WEBP" else "image"
