"""Open a data set: an embedded one, or whatever `data.path` names, or several."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from encdec_train.data.config import DataConfig
from encdec_train.data.holdout import held_out
from encdec_train.data.local import file_row
from encdec_train.data.mixture import Mixture, MixtureConfig, mix
from encdec_train.data.shards import Shards
from encdec_train.registry import sources
from encdec_train.types import Mismatch


def open_rows(data: DataConfig) -> dict[str, Sequence[dict[str, Any]]]:
    """Rows by split: "train", and "test" for probes (part of the training rows if the data have none).

    Of a mixture "train" is a `Mixture`, and "test" the rows of the set that is probed.
    """
    if isinstance(data, MixtureConfig):
        return _open_mixture(data)
    if data.path is not None:
        from encdec_train.data.sources.files import open_files

        train, test = open_files(data, "train"), open_files(data, "test")
    else:
        if data.streaming:
            raise Mismatch("data.streaming: an embedded data set is in memory; a stream is read from data.path")
        source = sources.part(data)(data)
        train = source(data.train)
        train, test = (
            held_out(train, sources.name(data), data.held_out, ordered=data.ordered)
            if data.test is None
            else (train, source(data.test))
        )
    if data.limit is not None:
        train = train.select(range(min(data.limit, len(train))))
    return {"train": train, "test": test}


def row_name(data: DataConfig, rows: Any, row: int) -> str:
    """What a row is called in messages: by its file where that is known, and its number there."""
    if isinstance(rows, Mixture):
        (part,), (own,) = rows.find(np.array([row]))
        name = list(rows.parts)[part]
        found = (
            row_name(data.mix[name], rows.parts[name], int(own)) if isinstance(data, MixtureConfig) else f"row {own}"
        )
        return f"{name}: {found}"
    if isinstance(rows, Shards):
        return rows.name(*rows.find(row))
    indices = getattr(rows, "_indices", None)  # of rows that were chosen
    row = row if indices is None else indices.column(0)[row].as_py()
    return f"row {row} of the data" if data.path is None else file_row(Path(data.path), data.train, row)


def _open_mixture(data: MixtureConfig) -> dict[str, Sequence[dict[str, Any]]]:
    """Each set as if it stood alone; what is wrong with one is said under its name."""
    opened = {}
    for name, part in data.mix.items():
        try:
            opened[name] = open_rows(part)
        except (ValueError, Mismatch) as error:
            said = str(error)
            raise ValueError(said.replace("data.", f"data.mix.{name}.", 1) if said.startswith("data.") else said) from (
                error
            )
    train = mix(data, {name: rows["train"] for name, rows in opened.items()})
    if data.limit is not None:
        train = train.map(lambda rows: rows.select(range(min(data.limit or 0, len(rows)))))
    return {"train": train, "test": opened[data.first]["test"]}
