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
    """The column in batches, of a `datasets.Dataset` or of a list of rows.

    Raises:
        ValueError: a row without text.
    """
    for first in range(0, len(rows), BATCH):
        last = min(first + BATCH, len(rows))
        if hasattr(rows, "select_columns"):
            found = rows[first:last][column]
        else:
            found = [rows[i][column] for i in range(first, last)]
        for i, text in enumerate(found):
            if not isinstance(text, str):
                raise ValueError(f"row {first + i}: column '{column}' holds {type(text).__name__}, not text")
        yield list(found)


def encode(rows: Any, column: str, tokenizer: Tokenizer, folder: Path | None) -> Documents:
    """Encode every row once; a `folder` keeps the result under the hash of the texts and the tokenizer."""
    if folder is None:
        return Documents(*_encode(rows, column, tokenizer))
    name = f"tokens-{_digest(rows, column, tokenizer)}"
    files = [folder / f"{name}.npy", folder / f"{name}.bounds.npy"]
    if not all(file.is_file() for file in files):
        folder.mkdir(parents=True, exist_ok=True)
        for file, array in zip(files, _encode(rows, column, tokenizer), strict=True):
            part = file.with_name(f"{file.name}.{os.getpid()}.part")
            with part.open("wb") as stream:
                np.save(stream, array)
            os.replace(part, file)
    return Documents(np.load(files[0], mmap_mode="r"), np.load(files[1]))


def _digest(rows: Any, column: str, tokenizer: Tokenizer) -> str:
    digest = blake2b(tokenizer.to_str().encode(), digest_size=12)
    for batch in texts(rows, column):
        for text in batch:
            data = text.encode("utf-8", "surrogatepass")
            digest.update(len(data).to_bytes(8, "little"))
            digest.update(data)
    return digest.hexdigest()


def _encode(rows: Any, column: str, tokenizer: Tokenizer) -> tuple[np.ndarray, np.ndarray]:
    parts: list[np.ndarray] = [np.zeros(0, np.int32)]
    lengths: list[int] = [0]
    for batch in texts(rows, column):
        for encoding in tokenizer.encode_batch_fast(batch, add_special_tokens=False):
            parts.append(np.asarray(encoding.ids, np.int32))
            lengths.append(len(encoding.ids))
    return np.concatenate(parts), np.cumsum(lengths, dtype=np.int64)
