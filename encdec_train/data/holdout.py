"""Rows that are held out where a data set has no test split."""

from __future__ import annotations

from typing import Any

import torch

from encdec_train.data.shards import Shards
from encdec_train.rng import Rng

SHARE = 10  # one row in so many


def held_out(rows: Any, where: str, *, ordered: bool = False) -> tuple[Any, Any]:
    """The rows that are trained on, and the tenth that is not: by row number alone, the same in every run.

    Args:
        rows: a `datasets.Dataset`; of `Shards` whole blocks are held out, so that nothing is read.
        where: names the data in the error.
        ordered: the rows follow each other in time; then the last ones are held out.

    Raises:
        ValueError: there is one row only.
    """
    if isinstance(rows, Shards):
        return rows.held_out(SHARE, where)
    if len(rows) < 2:
        raise ValueError(f"data: {where} has one row only, so none can be held out for testing")
    count = max(1, len(rows) // SHARE)
    if ordered:
        return rows.select(range(len(rows) - count)), rows.select(range(len(rows) - count, len(rows)))
    order = Rng(0).order("data.held_out", torch.arange(len(rows)))  # drawn, as sorted or cyclic rows are not rare
    kept, held = order[count:].sort().values, order[:count].sort().values
    return rows.select(kept.tolist()), rows.select(held.tolist())
