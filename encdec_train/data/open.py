"""Open a data set: an embedded one, or whatever `data.path` names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from encdec_train.data.config import DataConfig
from encdec_train.data.holdout import held_out
from encdec_train.registry import sources


def open_rows(data: DataConfig) -> dict[str, Sequence[dict[str, Any]]]:
    """Rows by split: "train", and "test" for probes (a tenth of the training rows if the data have none)."""
    if data.path is not None:
        from encdec_train.data.sources.files import open_files

        train, test = open_files(data, "train"), open_files(data, "test")
    else:
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
