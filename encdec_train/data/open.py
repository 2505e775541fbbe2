"""Open a data set: an embedded one, or whatever `data.path` names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from encdec_train.data.config import DataConfig
from encdec_train.registry import sources


def open_rows(data: DataConfig) -> dict[str, Sequence[dict[str, Any]]]:
    """Rows by split: "train", and "test" for probes (a tenth of the training rows if the data have none)."""
    rows = {"train": _open(data, data.train)}
    if data.test is not None:
        rows["test"] = _open(data, data.test)
    else:
        count = len(rows["train"])
        held = set(range(9, count, 10))
        rows["test"] = rows["train"].select(sorted(held))
        rows["train"] = rows["train"].select([i for i in range(count) if i not in held])
    if data.limit is not None:
        rows["train"] = rows["train"].select(range(min(data.limit, len(rows["train"]))))
    return rows


def _open(data: DataConfig, split: str) -> Any:
    if data.path is not None:
        from encdec_train.data.sources.files import open_files

        return open_files(data, split)
    return sources.part(data)(data)(split)
