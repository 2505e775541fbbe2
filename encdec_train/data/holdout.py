"""Rows that are held out where a data set has no test split."""

from __future__ import annotations

from typing import Any

import torch

from encdec_train.data.shards import Shards
from encdec_train.rng import Rng


def held_out(rows: Any, where: str, wanted: float, *, ordered: bool = False) -> tuple[Any, Any]:
    """The rows that are trained on, and those that are not: by row number alone, the same in every run.

    Args:
        rows: a `datasets.Dataset`; of `Shards` whole blocks are held out, so that nothing is read.
        where: names the data in the error.
        wanted: `data.held_out`, a share or a number of rows; at least one.
        ordered: the rows follow each other in time; then the last ones are held out.

    Raises:
        ValueError: there is one row only, or none would be left.
    """
    if wanted >= len(rows) > 1:
        raise ValueError(f"data.held_out: {where} has {len(rows)} rows, so {wanted:.0f} cannot be held out")
    if isinstance(rows, Shards):
        return rows.held_out(wanted if wanted < 1 else wanted / len(rows), where)
    if len(rows) < 2:
        raise ValueError(f"data: {where} has one row only, so none can be held out for testing")
    count = max(1, int(wanted if wanted >= 1 else wanted * len(rows)))
    if ordered:
        return rows.select(range(len(rows) - count)), rows.select(range(len(rows) - count, len(rows)))
    order = Rng(0).order("data.held_out", torch.arange(len(rows)))  # drawn, as sorted or cyclic rows are not rare
    kept, held = order[count:].sort().values, order[:count].sort().values
    return rows.select(kept.tolist()), rows.select(held.tolist())
