"""Rows that stay in their files: parquet, lines of json, and tar files as webdataset writes them.

What is read at first is where rows lie: of parquet the footers, of tar files the headers, of json the ends of lines.
From then on a row has a number, and reading it costs its block alone: a row group, or some rows that follow each other.
So the order of a stream can be a pure function of numbers (`draws.Stream`), and going on costs no second reading.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import torch

from encdec_train.data.local import reason
from encdec_train.rng import Rng

ROWS = 1000  # of a block of a file that has no row groups
BYTES = 1 << 22  # of such a block at most, but for one row
THREADS = 16  # that look into files at a time
TEXTS = (".txt", ".text", ".json", ".cls")  # members of a tar file that are no bytes


@dataclass(frozen=True)
class Block:
    """Rows that are read together."""

    file: str
    first: int  # number of its first row in the file
    rows: int
    start: int  # number of its row group, or of its first byte
    size: int = 0  # bytes; row groups know theirs


class Shards(Sequence[dict[str, Any]]):
    """The rows of many files, in their order; the last block that was asked for is kept.

    Args:
        kind: of the files, a key of `READERS`.
        blocks: where the rows lie.
        buffer: rows among which the order of a stream is drawn.
        prepare: what is done to the rows of any blocks, as a `datasets.Dataset`, when they are read.
    """

    def __init__(
        self,
        kind: str,
        blocks: Sequence[Block],
        buffer: int,
        prepare: Callable[[Any], Any] | None = None,
    ) -> None:
        self.kind, self.blocks, self.buffer, self.prepare = kind, list(blocks), buffer, prepare
        self.counts = np.array([block.rows for block in self.blocks], np.int64)  # (blocks,)
        self.ends = np.cumsum(self.counts)  # (blocks,)
        self.opened = 0  # blocks that were read
        self._columns: Any = None  # the features of what lies in the files
        self._features: Any = None
        self._kept: tuple[tuple[int, ...], Any] = ((), None)

    def __len__(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": ((), None)}

    @property
    def features(self) -> Any:
        """Names and kinds of the columns, as the first block has them."""
        if self._features is None:
            self._features = self.table([0]).features
        return self._features

    @property
    def column_names(self) -> list[str]:
        return list(self.features)

    def through(self, prepare: Callable[[Any], Any]) -> Shards:
        """The same rows, with something else done to them when they are read."""
        return Shards(self.kind, self.blocks, self.buffer, prepare)

    def of(self, blocks: Sequence[Block]) -> Shards:
        """Other rows of the same kind."""
        return Shards(self.kind, blocks, self.buffer, self.prepare)

    def table(self, numbers: Sequence[int]) -> Any:
        """The rows of some blocks, one after the other, as a `datasets.Dataset` in memory.

        Raises:
            ValueError: a block cannot be read, or has other columns; its file is named.
        """
        import datasets
        import pyarrow as pa

        if self._kept[0] != tuple(numbers):
            self._kept = ((), None)  # two of them are never held
            tables = [self._read(self.blocks[i]) for i in numbers]
            rows = datasets.Dataset(pa.concat_tables(tables), fingerprint="blocks")
            self._kept = (tuple(numbers), rows if self.prepare is None else self.prepare(rows))
        return self._kept[1]

    def _read(self, block: Block) -> Any:
        """The Arrow table of one block, with the columns of the first that was read."""
        from datasets.table import table_cast

        try:
            found = READERS[self.kind](block, self._columns)
        except (OSError, ValueError, KeyError, TypeError, tarfile.TarError) as error:
            raise ValueError(f"{self.kind} rows from {block.first} on of {block.file}: {reason(error)}") from error
        self.opened += 1
        if self._columns is None:
            self._columns = found.features
        if list(found.features) != list(self._columns):
            raise ValueError(
                f"data.path: {block.file} has the columns {', '.join(found.features)}, "
                f"other files have {', '.join(self._columns)}"
            )
        return table_cast(found.data.table, self._columns.arrow_schema)

    def find(self, row: int) -> tuple[int, int]:
        """The block that holds a row, and its number therein."""
        if not -len(self) <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        row %= len(self)
        number = int(np.searchsorted(self.ends, row, side="right"))
        return number, row - int(self.ends[number] - self.counts[number])

    def name(self, number: int, row: int) -> str:
        """What a row of a block is called in messages."""
        return f"row {self.blocks[number].first + row} of {self.blocks[number].file}"

    def rows(self, ids: Sequence[int]) -> Any:
        """Some rows as a `datasets.Dataset`."""
        places = [self.find(row) for row in ids]
        numbers = sorted({number for number, _ in places})
        before = dict(zip(numbers, np.cumsum([0, *self.counts[numbers]]).tolist(), strict=False))
        return self.table(numbers).select([before[number] + row for number, row in places])

    def __getitem__(self, key: Any) -> Any:
        """A row, or of a slice the columns as lists."""
        if isinstance(key, slice):
            return self.rows(range(*key.indices(len(self))))[:]
        number, row = self.find(key)
        return self.table([number])[row]

    def __getitems__(self, ids: Sequence[int]) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.rows(ids).__getitems__(list(range(len(ids))))
        return found

    def select(self, ids: range) -> Shards:
        """The first rows."""
        assert ids.start == 0 and ids.step == 1, "only the beginning of a stream can be selected"
        number, row = self.find(len(ids) - 1)
        return self.of([*self.blocks[:number], replace(self.blocks[number], rows=row + 1)])

    def few(self, count: int) -> Shards:
        """At least `count` rows in blocks that are evenly spread, if there are as many."""
        every = max(1, len(self) // max(count, 1))
        return self.of(self.blocks[::every])

    def held_out(self, share: float, where: str) -> tuple[Shards, Shards]:
        """The blocks that are trained on, and a share of them that is not, the same in every run.

        Raises:
            ValueError: there is one block only.
        """
        if len(self.blocks) < 2:
            raise ValueError(
                f"data.test: {where} has no test split and one block of rows only, so none can be held out; "
                "data.test=train takes the training rows"
            )
        count = min(max(1, int(len(self.blocks) * share)), len(self.blocks) - 1)
        held = set(Rng(0).order("data.held_out", torch.arange(len(self.blocks)))[:count].tolist())
        kept = [block for i, block in enumerate(self.blocks) if i not in held]
        return self.of(kept), self.of([block for i, block in enumerate(self.blocks) if i in held])


def look(kind: str, files: Sequence[str], buffer: int) -> Shards:
    """The rows of files; nothing is read but where they lie.

    Args:
        kind: of the files.
        files: paths, or addresses that fsspec opens (`hf://...`).
        buffer: rows among which the order of a stream is drawn.

    Raises:
        ValueError: a file cannot be read, or is of a kind whose rows cannot be reached one by one.
    """
    if kind not in INDEXERS:
        raise ValueError(f"data.streaming: {kind} files cannot be streamed; allowed are {', '.join(INDEXERS)}")

    def blocks(file: str) -> list[Block]:
        try:
            return list(INDEXERS[kind](file))
        except (OSError, ValueError, tarfile.TarError) as error:
            raise ValueError(f"data.path: {file} cannot be read as {kind}: {reason(error)}") from error

    with ThreadPoolExecutor(THREADS) as pool:
        return Shards(kind, [block for found in pool.map(blocks, files) for block in found], buffer)


def _open(file: str) -> Any:
    import fsspec

    return fsspec.open(file, "rb")


def _index_parquet(file: str) -> Iterator[Block]:
    import pyarrow.parquet as pq

    with _open(file) as stream:
        metadata = pq.read_metadata(stream)
    first = 0
    for group in range(metadata.num_row_groups):
        rows = metadata.row_group(group).num_rows
        if rows:
            yield Block(file, first, rows, group)
        first += rows


def _read_parquet(block: Block, columns: Any) -> Any:
    import datasets
    import pyarrow.parquet as pq

    with _open(block.file) as stream:
        table = pq.ParquetFile(stream).read_row_group(block.start, use_threads=False)
    return datasets.Dataset(table.slice(0, block.rows), fingerprint="block")


def _index_json(file: str) -> Iterator[Block]:
    with _open(file) as stream:
        yield from _grouped(file, _lines(stream))


def _lines(stream: Any) -> Iterator[tuple[int, int]]:
    """Where each line that is not blank begins and ends."""
    at = 0
    for line in stream:
        if at == 0 and line.lstrip().startswith(b"["):
            raise ValueError("it is one list; each line must be a row")
        if line.strip():
            yield at, at + len(line)
        at += len(line)


def _grouped(file: str, places: Iterator[tuple[int, int]]) -> Iterator[Block]:
    """Blocks of rows that lie at `places`, each from a first byte to behind its last."""
    first, rows, start, stop = 0, 0, 0, 0
    for begin, end in places:
        if rows == ROWS or (rows and end - start > BYTES):
            yield Block(file, first, rows, start, stop - start)
            first, rows = first + rows, 0
        start = begin if rows == 0 else start
        rows, stop = rows + 1, end
    if rows:
        yield Block(file, first, rows, start, stop - start)


def _bytes(block: Block) -> bytes:
    with _open(block.file) as stream:
        stream.seek(block.start)
        found: bytes = stream.read(block.size)
    return found


def _read_json(block: Block, columns: Any) -> Any:
    lines = [line for line in _bytes(block).split(b"\n") if line.strip()]
    return _dataset([_object(line) for line in lines[: block.rows]], columns)


def _object(line: bytes) -> dict[str, Any]:
    """Nothing where it is broken."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _dataset(rows: list[dict[str, Any]], columns: Any) -> Any:
    """Columns that a row does not have are empty there, and so is what is no text in a column of texts."""
    import datasets

    names = list(columns) if columns is not None else list(dict.fromkeys(name for row in rows for name in row))
    table = {name: [row.get(name) for row in rows] for name in names}
    for name, values in table.items():
        texts = sum(isinstance(value, str) for value in values)
        known = columns[name] == datasets.Value("string") if columns is not None else False
        if known or (columns is None and 2 * texts > sum(value is not None for value in values)):
            table[name] = [value if _is_text(value) else None for value in values]
    return datasets.Dataset.from_dict(table, features=columns)


def _is_text(value: Any) -> bool:
    """Half of a surrogate pair alone is none."""
    try:
        return isinstance(value, str) and bool(value.encode() or True)
    except UnicodeEncodeError:
        return False


def _index_tar(file: str) -> Iterator[Block]:
    with _open(file) as stream, tarfile.open(fileobj=stream, mode="r:") as archive:
        yield from _grouped(file, _samples(archive))


def _samples(archive: tarfile.TarFile) -> Iterator[tuple[int, int]]:
    """Where the members of each sample begin and end: those that follow each other and are called alike."""
    key, start, stop = None, 0, 0
    for member in archive:
        if not member.isfile():
            continue
        if key is not None and _key(member.name) != key:
            yield start, stop
        if _key(member.name) != key:
            key, start = _key(member.name), member.offset
        stop = member.offset_data + -(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
    if key is not None:
        yield start, stop


def _key(name: str) -> str:
    """`folder/0001.seg.png` belongs to `folder/0001`."""
    path = PurePosixPath(name)
    return str(path.with_name(path.name.split(".")[0]))


def _read_tar(block: Block, columns: Any) -> Any:
    """A column for each suffix, as webdataset has them, and `__key__`."""
    rows: dict[str, dict[str, Any]] = {}
    with tarfile.open(fileobj=io.BytesIO(_bytes(block) + bytes(2 * tarfile.BLOCKSIZE)), mode="r:") as archive:
        for member in archive:
            stream = archive.extractfile(member)
            if stream is not None:
                key = _key(member.name)
                suffix = PurePosixPath(member.name).name.partition(".")[2].lower()
                content = stream.read()
                row = rows.setdefault(key, {"__key__": key})
                row[suffix] = _plain(content, suffix)
    return _dataset(list(rows.values())[: block.rows], columns)


def _plain(content: bytes, suffix: str) -> Any:
    if f".{suffix.rpartition('.')[2]}" not in TEXTS:
        return content
    text = content.decode("utf-8", "surrogateescape")
    return int(text) if suffix == "cls" else json.loads(text) if suffix == "json" else text


INDEXERS: dict[str, Callable[[str], Iterator[Block]]] = {
    "parquet": _index_parquet,
    "json": _index_json,
    "webdataset": _index_tar,
}
READERS: dict[str, Callable[[Block, Any], Any]] = {
    "parquet": _read_parquet,
    "json": _read_json,
    "webdataset": _read_tar,
}
