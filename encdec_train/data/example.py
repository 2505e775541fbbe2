"""One unbatched example, and the collate that makes `Units` of many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from encdec_train.rng import key_of, keys_of
from encdec_train.types import Batch, Sites, Units


@dataclass(frozen=True, eq=False, kw_only=True)
class Example:
    """What a transform makes of one row for one view: `Units` without the batch axis."""

    values: Tensor  # (N,C) float or uint8, or (N,) int64
    sample: int | Tensor  # random key: sample id, or (N,) of them where several documents are packed
    place: Tensor | None = None  # (N,); None = 0..N-1
    coords: Tensor | None = None  # (N,P) float
    fixed: Tensor | None = None  # (N,) bool
    valid: Tensor | None = None  # (N,) bool, False = padding inside a fixed length; None = all real
    doc: Tensor | None = None  # (N,) int64 document within the row, -1 = the padding at its end
    group: Tensor | None = None  # (N,) int64 sentence within the document
    word: Tensor | None = None  # (N,) int64 where its word begins within the document
    segments: Sequence[int] | None = None  # with doc: document lengths, then the padding's (maybe 0); sums to N
    edges: Tensor | None = None  # (2,E) int64 within the example
    grid: tuple[int, ...] | None = None
    max_len: int = 0  # static bound on a document's length


Row = dict[str, Example | list[Example]]  # view name -> example, or its crops


def crop_key(sample: int, crop: int) -> int:
    """The random key of one crop of a sample; crop 0 keeps the sample's own."""
    return sample if crop == 0 else key_of(sample, crop)


def crop_keys(sample: Tensor, crop: int) -> Tensor:
    """`crop_key` of a whole tensor of int64 samples, for crops that are cut on the device."""
    return sample if crop == 0 else keys_of(sample, crop)


def collate(rows: Sequence[Row]) -> Batch:
    """Batch the views of several rows. Crops become rows, crop-major."""
    batch: Batch = {}
    for view, first in rows[0].items():
        crops = len(first) if isinstance(first, list) else 1
        examples: list[Example] = []
        for crop in range(crops):
            for row in rows:
                found = row[view]
                examples.append(found[crop] if isinstance(found, list) else found)
        batch[view] = _units(examples, crops)
    return batch


def _units(examples: list[Example], crops: int) -> Units:
    lengths = [len(example.values) for example in examples]
    n, first = max(lengths), examples[0]
    ragged = min(lengths) < n
    sites = Sites(
        sample=_stack([_key(example, n) for example in examples], n),
        place=_stack([_place(example) for example in examples], n),
        valid=_valid(examples, n),
        coords=_optional([example.coords for example in examples], n),
        fixed=_optional([example.fixed for example in examples], n),
        doc=_optional([example.doc for example in examples], n),
        group=_optional([example.group for example in examples], n),
        word=_optional([example.word for example in examples], n),
        cu_seqlens=_bounds(examples),
        edges=_edges(examples, n),
        grid=None if ragged else first.grid,
        max_len=first.max_len,
    )
    return Units(values=_stack([example.values for example in examples], n), sites=sites, crops=crops)


def _valid(examples: Sequence[Example], n: int) -> Tensor | None:
    """(B,N) bool; None where nothing is padding."""
    rows = [_real(example) for example in examples]
    valid = _stack(rows, n)  # filled with False
    return None if bool(valid.all()) else valid


def _real(example: Example) -> Tensor:
    if example.valid is not None:
        return example.valid
    if example.doc is not None:
        return example.doc >= 0
    return torch.ones(len(example.values), dtype=torch.bool)


def _key(example: Example, n: int) -> Tensor:
    if isinstance(example.sample, Tensor):
        return example.sample
    return torch.full((n,), example.sample, dtype=torch.int64)


def _place(example: Example) -> Tensor:
    return torch.arange(len(example.values)) if example.place is None else example.place


def _stack(fields: Sequence[Tensor], n: int) -> Tensor:
    """(B,N,...): stacked, the short ones filled with zeros at the end."""
    if all(len(field) == n for field in fields):
        return torch.stack(list(fields))
    out = fields[0].new_zeros(len(fields), n, *fields[0].shape[1:])
    for row, field in zip(out, fields, strict=True):
        row[: len(field)] = field
    return out


def _optional(fields: Sequence[Tensor | None], n: int) -> Tensor | None:
    present = [field for field in fields if field is not None]
    return _stack(present, n) if len(present) == len(fields) else None


def _bounds(examples: Sequence[Example]) -> Tensor | None:
    """(S+1,) int32 bounds of the documents over the flat rows."""
    if examples[0].segments is None:
        return None
    lengths = [length for example in examples for length in example.segments or ()]
    return torch.from_numpy(np.cumsum([0, *lengths], dtype=np.int32))


def _edges(examples: Sequence[Example], n: int) -> Tensor | None:
    if examples[0].edges is None:
        return None
    return torch.cat([example.edges + i * n for i, example in enumerate(examples)], 1)  # type: ignore[operator, misc]
