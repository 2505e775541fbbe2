"""Files and folders of this machine, as the splits of a data set.

What a folder holds is read from the names of its files; which split a file belongs to, from the first folder
that is called like one, or from the first word of its name (`train/cat/1.png`, `test-00-of-02.parquet`).
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

Splits = dict[str, Any]  # split name -> datasets.Dataset

# What wins where a folder holds several kinds, first the most telling.
SUFFIXES = {
    "parquet": (".parquet",),
    "arrow": (".arrow",),
    "image": (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"),
    "audio": (".wav", ".flac", ".ogg", ".mp3", ".aiff", ".aif", ".opus"),
    "json": (".jsonl", ".json", ".ndjson"),
    "csv": (".csv", ".tsv"),
    "text": (".txt", ".text", ".md"),
    "webdataset": (".tar",),
}
KINDS = {suffix: kind for kind, suffixes in SUFFIXES.items() for suffix in suffixes}
ALLOWED = "parquet, arrow, csv, json, text, image, audio or tar files, or a folder of `Dataset.save_to_disk`"
NAMES = {
    "train": "train",
    "training": "train",
    "test": "test",
    "testing": "test",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
}


def open_path(path: Path) -> Splits:
    """All splits that lie at `path`, a file or a folder.

    Raises:
        ValueError: nothing there, nothing in it, nothing known in it, or a file that cannot be read.
    """
    _check_there(path)
    if path.is_dir() and ((path / "dataset_dict.json").exists() or (path / "state.json").exists()):
        return _saved(path)
    kind, root, splits = files_of(path)
    return _READERS.get(kind, _table)(kind, root, splits)


def files_of(path: Path) -> tuple[str, Path, dict[str, list[Path]]]:
    """The kind of data at `path`, the folder that holds them, and the files of each split.

    Raises:
        ValueError: nothing there, nothing in it, or nothing known in it.
    """
    _check_there(path)
    root = path if path.is_dir() else path.parent
    kind, files = _files(path)
    splits: dict[str, list[Path]] = {}
    for file in files:
        name = split_of(file.relative_to(root)) if path.is_dir() else None
        splits.setdefault(name or "train", []).append(file)
    return kind, root, splits


def _check_there(path: Path) -> None:
    if not path.exists():
        raise ValueError(f"data.path: {path} does not exist; allowed are {ALLOWED}, or the name of a hub data set")


def file_row(path: Path, split: str, row: int) -> str:
    """`row 3 of FILE` for a row of a split that lies at `path`; of the path where its files do not say how many."""
    kind, _, splits = files_of(path) if path.exists() else ("", path, {})
    files = splits.get(split, [])
    if kind == "parquet":
        import pyarrow.parquet as pq

        for file in files:
            count = pq.read_metadata(file).num_rows
            if row < count:
                return f"row {row} of {file}"
            row -= count
    return f"row {row} of {files[0] if len(files) == 1 else path}"


def split_of(file: Path) -> str | None:
    """'train', 'test' or 'validation': the first folder that is called so, or how the file's name begins."""
    for part in file.parts[:-1]:
        if part.lower() in NAMES:
            return NAMES[part.lower()]
    first = re.split(r"[^a-z]", file.name.lower(), maxsplit=1)[0]
    return NAMES.get(first)


def _files(path: Path) -> tuple[str, list[Path]]:
    """The kind of data at `path` and the files of that kind, in the order of their names."""
    if path.is_file():
        if path.suffix.lower() not in KINDS:
            raise ValueError(f"data.path: {path} is of no known kind; allowed are {ALLOWED}")
        return KINDS[path.suffix.lower()], [path]
    found: dict[str, list[Path]] = {}
    strange: Counter[str] = Counter()
    for folder, below, names in os.walk(path, followlinks=True):
        below[:] = sorted(name for name in below if not name.startswith("."))
        for name in sorted(names):
            file = Path(folder, name)
            kind = KINDS.get(file.suffix.lower())
            if kind and not name.startswith("."):
                found.setdefault(kind, []).append(file)
            else:
                strange[file.suffix or name] += 1
    if found:
        kind = next(kind for kind in SUFFIXES if kind in found)
        return kind, found[kind]
    if strange:
        seen = ", ".join(f"{number} of '{suffix}'" for suffix, number in strange.most_common(3))
        raise ValueError(f"data.path: {path} holds no known kind of file ({seen}); allowed are {ALLOWED}")
    raise ValueError(f"data.path: the folder {path} is empty; allowed are {ALLOWED}")


def _saved(path: Path) -> Splits:
    """What `save_to_disk` wrote: one set, or several by name."""
    import datasets

    try:
        found = datasets.load_from_disk(str(path))
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"data.path: {path} cannot be read as a saved data set: {reason(error)}") from error
    return dict(found) if isinstance(found, datasets.DatasetDict) else {"train": found}


def _table(kind: str, root: Path, splits: dict[str, list[Path]], **options: Any) -> Splits:
    """Rows with columns, converted once and then mapped from the cache of `datasets`."""
    import datasets

    check = _CHECKS.get(kind)
    for files in splits.values():
        for file in files:
            if check:
                check(file)
    if kind == "csv" and any(file.suffix.lower() == ".tsv" for files in splits.values() for file in files):
        options["sep"] = "\t"
    names = {split: [str(file) for file in files] for split, files in splits.items()}
    try:
        return dict(datasets.load_dataset(kind, data_files=names, **options))
    except (datasets.exceptions.DatasetGenerationError, OSError, ValueError) as error:
        every = [file for files in names.values() for file in files]
        where = every[0] if len(every) == 1 else f"one of {len(every)} {kind} files in {root}"
        said = reason(error)
        if isinstance(error.__cause__, datasets.table.CastError):
            said = "not all have the same columns; name one of them, or keep them in folders of their own"
        raise ValueError(f"data.path: {where} cannot be read as {kind}: {said}") from error


def _check_parquet(file: Path) -> None:
    """The footer is read: that names the file where the builder would not."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        pq.read_metadata(file)
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"data.path: {file} cannot be read as parquet: {reason(error)}") from error


def _check_filled(file: Path) -> None:
    if not file.stat().st_size:
        raise ValueError(f"data.path: {file} is an empty file")


def _text(kind: str, root: Path, splits: dict[str, list[Path]]) -> Splits:
    """Class folders: one row per file. Else passages between blank lines, or lines where there are none."""
    classes = _classes(root, splits)
    if classes:
        return _media("text", root, splits)
    with next(iter(splits.values()))[0].open(encoding="utf-8", errors="replace") as file:
        passages = "\n\n" in file.read(1 << 20)
    return _table("text", root, splits, sample_by="paragraph" if passages else "line")


def _media(kind: str, root: Path, splits: dict[str, list[Path]]) -> Splits:
    """One row per file, opened when it is asked for; the folder beneath the split's is the class."""
    import datasets

    media = {"image": datasets.Image(decode=False), "audio": datasets.Audio(decode=False)}
    classes = _classes(root, splits)
    number = {name: i for i, name in enumerate(classes)}
    out: Splits = {}
    for split, files in splits.items():
        columns: dict[str, list[Any]] = {kind: [_content(kind, file) for file in files]}
        if classes:
            columns["label"] = [number[_class(file.relative_to(root)) or ""] for file in files]
        rows = datasets.Dataset.from_dict(columns)
        rows = rows.cast_column(kind, media[kind]) if kind in media else rows
        out[split] = rows.cast_column("label", datasets.ClassLabel(names=classes)) if classes else rows
    return out


def _content(kind: str, file: Path) -> str:
    """The text of a file, or the path of one that is opened later."""
    return file.read_text(encoding="utf-8", errors="replace") if kind == "text" else str(file)


def _classes(root: Path, splits: dict[str, list[Path]]) -> list[str]:
    """Names of the class folders of all splits; none unless every file lies in one and there are two."""
    found = {_class(file.relative_to(root)) for files in splits.values() for file in files}
    return sorted(name for name in found if name) if None not in found and len(found) > 1 else []


def _class(file: Path) -> str | None:
    """The first folder that is not a split's."""
    return next((part for part in file.parts[:-1] if part.lower() not in NAMES), None)


def reason(error: BaseException) -> str:
    """The innermost cause of an error, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


_READERS: dict[str, Callable[..., Splits]] = {"image": _media, "audio": _media, "text": _text}
_CHECKS: dict[str, Callable[[Path], None]] = {
    "parquet": _check_parquet,
    "csv": _check_filled,
    "json": _check_filled,
}
