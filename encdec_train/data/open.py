"""Open a data set: an embedded one, or whatever `data.path` names, or several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from encdec_train.data.config import DataConfig
from encdec_train.data.holdout import held_out
from encdec_train.data.mixture import MixtureConfig, mix
from encdec_train.registry import sources
from encdec_train.types import Mismatch


def open_rows(data: DataConfig) -> dict[str, Sequence[dict[str, Any]]]:
    """Rows by split: "train", and "test" for probes (a tenth of the training rows if the data have none).

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
            held_out(train, sources.name(data), ordered=data.ordered)
            if data.test is None
            else (train, source(data.test))
        )
    if data.limit is not None:
        train = train.select(range(min(data.limit, len(train))))
    return {"train": train, "test": test}


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
