"""Token ids of a whole data set as two flat arrays, and rows of pieces of them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

BATCH = 1000  # texts that are encoded at a time
LONGEST = 1 << 26  # characters; a longer text is taken for a mistake, as encoding it would take all memory
Broken = dict[int, str]  # row: why its text cannot be encoded


class BrokenText(ValueError):
    """A row without a text that can be encoded."""

    def __init__(self, rows: Any, row: int, why: str) -> None:
        super().__init__(f"row {row} of the data: {why}")
        self.rows, self.row, self.why = rows, row, why


@dataclass(frozen=True, eq=False)
class Documents:
    """Encoded documents, one after the other."""

    tokens: np.ndarray  # (T,) int32, mapped from a file
    bounds: np.ndarray  # (documents + 1,) int64
    broken: Broken = field(default_factory=dict)  # documents that are empty because they could not be read

    @property
    def lengths(self) -> np.ndarray:
        return np.diff(self.bounds)


@dataclass(frozen=True, eq=False)
class TokenRows(Sequence):
    """Row i = pieces `bounds[i]` to `bounds[i + 1]`, each a stretch of `tokens` and its random key."""

    tokens: np.ndarray  # (T,) int32
    start: np.ndarray  # (P,) int64 of each piece
    length: np.ndarray  # (P,) int64
    key: np.ndarray  # (P,) int64
    bounds: np.ndarray  # (R+1,) int64
    broken: Broken = field(default_factory=dict)  # rows that cannot be given
    left_out: Broken = field(default_factory=dict)  # rows of the data that are in no row here

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def __getitem__(self, i: int) -> list[tuple[np.ndarray, int]]:  # type: ignore[override]
        if not -len(self) <= i < len(self):
            raise IndexError(f"row {i} of {len(self)}")
        i %= len(self)
        if i in self.broken:
            raise ValueError(self.broken[i])
        return [
            (self.tokens[self.start[p] : self.start[p] + self.length[p]], int(self.key[p]))
            for p in range(self.bounds[i], self.bounds[i + 1])
        ]


def texts(rows: Any, column: str, broken: Broken | None = None) -> Iterator[list[str]]:
    """The column of a `datasets.Dataset` in batches. An empty text is a text.

    Args:
        rows: the data.
        column: that holds texts.
        broken: takes the rows that hold none that can be encoded, whose texts are empty then; none: they are errors.

    Raises:
        BrokenText: the first such row.
    """
    for first in range(0, len(rows), BATCH):
        found = _column(rows, column, first, min(first + BATCH, len(rows)))
        for i, text in enumerate(found):
            why = _fault(text, column)
            if why is not None and broken is None:
                raise BrokenText(rows, first + i, why)
            if why is not None and broken is not None:
                broken[first + i] = why
                found[i] = ""
        yield found


def _column(rows: Any, column: str, first: int, last: int) -> list[Any]:
    """Values of a column, an error where one cannot be read."""
    try:
        return list(rows[first:last][column])
    except (ValueError, OSError):  # one by one tells which it is
        return [_value(rows, column, i) for i in range(first, last)]


def _value(rows: Any, column: str, i: int) -> Any:
    try:
        return rows[i][column]
    except (ValueError, OSError) as error:
        return error


def _fault(text: Any, column: str) -> str | None:
    """Why a value cannot be encoded."""
    if isinstance(text, UnicodeDecodeError):
        return f"column '{column}' is not UTF-8 ({text.reason} at byte {text.start})"
    if isinstance(text, Exception):
        return f"column '{column}' cannot be read: {text}"
    if not isinstance(text, str):
        return f"column '{column}' holds {type(text).__name__}, not text"
    if len(text) > LONGEST:
        return f"column '{column}' holds {len(text):,} characters, more than {LONGEST:,}"
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return f"column '{column}' is not Unicode text ({error.reason} at character {error.start})"
    return None


def encode(
    rows: Any, column: str, tokenizer: Tokenizer, folder: Path | None, name: str, broken: Broken | None = None
) -> Documents:
    """Encode every row; a `folder` keeps the result under `name`, and gives it back if it is there.

    `broken` is as `texts` has it; what the folder gives back was broken in the same rows.
    """
    if folder is None:
        return Documents(*_encode(rows, column, tokenizer, broken), broken or {})
    files = [folder / f"{name}.npy", folder / f"{name}.bounds.npy"]
    if not all(file.is_file() for file in files):
        folder.mkdir(parents=True, exist_ok=True)
        for file, array in zip(files, _encode(rows, column, tokenizer, broken), strict=True):
            part = file.with_name(f"{file.name}.{os.getpid()}.part")
            with part.open("wb") as stream:
                np.save(stream, array)
            os.replace(part, file)
    return Documents(np.load(files[0], mmap_mode="r"), np.load(files[1]), broken or {})


def digest(rows: Any, column: str, tokenizer: Tokenizer, broken: Broken | None = None) -> str:
    """A hash of the texts and of the tokenizer; `broken` is as `texts` has it."""
    found = blake2b(tokenizer.to_str().encode(), digest_size=12)
    for batch in texts(rows, column, broken):
        for text in batch:
            data = text.encode()
            found.update(len(data).to_bytes(8, "little"))
            found.update(data)
    return found.hexdigest()


def _encode(rows: Any, column: str, tokenizer: Tokenizer, broken: Broken | None) -> tuple[np.ndarray, np.ndarray]:
    parts: list[np.ndarray] = [np.zeros(0, np.int32)]
    lengths: list[int] = [0]
    for batch in texts(rows, column, broken):
        for encoding in tokenizer.encode_batch_fast(batch, add_special_tokens=False):
            parts.append(np.asarray(encoding.ids, np.int32))
            lengths.append(len(encoding.ids))
    return np.concatenate(parts), np.cumsum(lengths, dtype=np.int64)
