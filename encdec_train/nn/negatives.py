"""Whom a prediction is to be told from: others of its own document, or of the whole batch."""

from __future__ import annotations

import torch
from torch import Tensor

from encdec_train.rng import Rng
from encdec_train.types import Sites


def documents(sites: Sites, where: Tensor) -> Tensor:
    """(M,) int64: a number for the document that each row at `where` stands in, below B*N."""
    row = where // sites.n
    if sites.doc is None:
        return row
    return row * sites.n + sites.doc.flatten()[where].clamp_min(0)


def draw_negatives(
    group: Tensor, real: Tensor, count: int, rng: Rng, tag: str, sample: Tensor, place: Tensor
) -> Tensor:
    """(M,count) int64: for each row others of its group, uniformly with replacement.

    A row without others, and a row that is not real, gets its own index, which means none.

    Args:
        group: (M,) number of the group, a document for example, in any order.
        real: (M,) bool; the rest is neither drawn nor drawn for.
        count: K.
        rng: keyed by `tag`.
        tag: of this draw.
        sample: (M,) random key of the row's sample.
        place: (M,) its place there, the other half of the key.
    """
    m = len(group)
    own = torch.arange(m, device=group.device)
    order = (group * 2 + ~real).argsort(stable=True)  # real rows first within each group
    position = torch.empty_like(own).scatter(0, order, own)
    same = torch.searchsorted(group[order], group)  # where its group begins in `order`
    rank = (position - same)[:, None]
    size = torch.searchsorted((group * 2 + ~real)[order], group * 2 + 1) - same  # real ones
    others = (size - 1).clamp_min(0)[:, None]
    key = torch.arange(count, device=own.device)
    drawn = rng.integers(tag + ".negative", others, sample[:, None], place[:, None], key)
    drawn = drawn + (drawn >= rank)
    found = order[(same[:, None] + drawn).clamp_max(m - 1)]
    return torch.where(real[:, None] & (others > 0), found, own[:, None])
