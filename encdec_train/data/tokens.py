"""Token ids of a whole data set as two flat arrays, and rows of pieces of them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

BATCH = 1000  # texts that are encoded at a time


@dataclass(frozen=True, eq=False)
class Documents:
    """Encoded documents, one after the other."""

    tokens: np.ndarray  # (T,) int32, mapped from a file
    bounds: np.ndarray  # (documents + 1,) int64

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

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def __getitem__(self, i: int) -> list[tuple[np.ndarray, int]]:  # type: ignore[override]
        if not -len(self) <= i < len(self):
            raise IndexError(f"row {i} of {len(self)}")
        i %= len(self)
        return [
            (self.tokens[self.start[p] : self.start[p] + self.length[p]], int(self.key[p]))
            for p in range(self.bounds[i], self.bounds[i + 1])
        ]


def texts(rows: Any, column: str) -> Iterator[list[str]]:
    """The column of a `datasets.Dataset` in batches.

    Raises:
        ValueError: a row without text.
    """
    for first in range(0, len(rows), BATCH):
        found = rows[first : first + BATCH][column]
        for i, text in enumerate(found):
            if not isinstance(text, str):
                kind = type(text).__name__
                raise ValueError(f"row {first + i} of the data: column '{column}' holds {kind}, not text")
        yield list(found)


def encode(rows: Any, column: str, tokenizer: Tokenizer, folder: Path | None, name: str) -> Documents:
    """Encode every row; a `folder` keeps the result under `name`, and gives it back if it is there."""
    if folder is None:
        return Documents(*_encode(rows, column, tokenizer))
    files = [folder / f"{name}.npy", folder / f"{name}.bounds.npy"]
    if not all(file.is_file() for file in files):
        folder.mkdir(parents=True, exist_ok=True)
        for file, array in zip(files, _encode(rows, column, tokenizer), strict=True):
            part = file.with_name(f"{file.name}.{os.getpid()}.part")
            with part.open("wb") as stream:
                np.save(stream, array)
            os.replace(part, file)
    return Documents(np.load(files[0], mmap_mode="r"), np.load(files[1]))


def digest(rows: Any, column: str, tokenizer: Tokenizer) -> str:
    """A hash of the texts and of the tokenizer."""
    found = blake2b(tokenizer.to_str().encode(), digest_size=12)
    for batch in texts(rows, column):
        for text in batch:
            data = text.encode("utf-8", "surrogatepass")
            found.update(len(data).to_bytes(8, "little"))
            found.update(data)
    return found.hexdigest()


def _encode(rows: Any, column: str, tokenizer: Tokenizer) -> tuple[np.ndarray, np.ndarray]:
    parts: list[np.ndarray] = [np.zeros(0, np.int32)]
    lengths: list[int] = [0]
    for batch in texts(rows, column):
        for encoding in tokenizer.encode_batch_fast(batch, add_special_tokens=False):
            parts.append(np.asarray(encoding.ids, np.int32))
            lengths.append(len(encoding.ids))
    return np.concatenate(parts), np.cumsum(lengths, dtype=np.int64)
