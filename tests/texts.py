"""Ids for tests: documents of given lengths, padded or packed, with the same random keys in both."""

from __future__ import annotations

import torch

from encdec_train.data.example import Example, collate
from encdec_train.types import Spec, Units, Vocabulary

WORDS = Vocabulary(size=60, pad=0, bos=2, eos=3, mask=4, specials=5)


def view(length: int = 0, max_len: int = 16, words: Vocabulary = WORDS) -> Spec:
    return Spec(kind="ids", width=words.size, length=length, max_len=max_len, vocabulary=words)


def documents(lengths: list[int], words: Vocabulary = WORDS) -> list[torch.Tensor]:
    """[CLS], ordinary ids, [SEP]."""
    generator = torch.Generator().manual_seed(0)
    bodies = [torch.randint(words.specials, words.size, (n - 2,), generator=generator) for n in lengths]
    return [torch.cat([torch.tensor([words.bos]), body, torch.tensor([words.eos])]) for body in bodies]


def fixed(ids: torch.Tensor, words: Vocabulary = WORDS) -> torch.Tensor:
    return (ids == words.bos) | (ids == words.eos)


def padded(docs: list[torch.Tensor]) -> Units:
    """One document per row; document i has the random key i."""
    bound = max(map(len, docs))
    examples = [Example(values=ids, sample=key, fixed=fixed(ids), max_len=bound) for key, ids in enumerate(docs)]
    return collate([{"text": example} for example in examples])["text"]


def packed(docs: list[torch.Tensor], rows: list[list[int]], length: int) -> Units:
    """Documents `rows[r]` side by side in row r."""
    bound = max(map(len, docs))
    return collate([{"text": _row([(key, docs[key]) for key in row], length, bound)} for row in rows])["text"]


def _row(docs: list[tuple[int, torch.Tensor]], length: int, bound: int) -> Example:
    rest = length - sum(len(ids) for _, ids in docs)
    filler = torch.zeros(rest, dtype=torch.int64)
    ids = torch.cat([ids for _, ids in docs] + [filler])
    return Example(
        values=ids,
        sample=torch.cat([torch.full((len(ids),), key) for key, ids in docs] + [filler]),
        place=torch.cat([torch.arange(len(ids)) for _, ids in docs] + [filler]),
        doc=torch.cat([torch.full((len(ids),), i) for i, (_, ids) in enumerate(docs)] + [filler - 1]),
        fixed=fixed(ids),
        segments=[*(len(ids) for _, ids in docs), rest],
        max_len=bound,
    )


def unpack(values: torch.Tensor, units: Units, rows: list[list[int]]) -> dict[int, torch.Tensor]:
    """Values (B,N,...) of packed rows by document."""
    assert units.sites.doc is not None
    return {key: values[r][units.sites.doc[r] == i] for r, row in enumerate(rows) for i, key in enumerate(row)}
