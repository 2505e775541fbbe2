"""A text made of columns of its row: `translate English to German: {en}`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from encdec_train.registry import did_you_mean

COLUMN = re.compile(r"\{([^{}]+)\}")


def columns(template: str) -> list[str]:
    """The columns that a template names, each once."""
    return list(dict.fromkeys(COLUMN.findall(template)))


def fill(template: str, row: Mapping[str, Any]) -> str:
    """The template with the row's columns in their places.

    Raises:
        ValueError: the row has no such column.
    """

    def value(found: re.Match[str]) -> str:
        name = found.group(1)
        if name not in row:
            raise ValueError(
                f"transform 'text'.template: there is no column '{name}'{did_you_mean(name, row)}; "
                f"the data have {', '.join(row)}"
            )
        return str(row[name])

    return COLUMN.sub(value, template)


class Filled:
    """Rows with a column `text`, which a template makes of their others."""

    def __init__(self, rows: Any, template: str) -> None:
        self.rows, self.template = rows, template

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, some: slice) -> dict[str, list[str]]:
        held = self.rows[some]
        count = len(next(iter(held.values())))
        return {"text": [fill(self.template, {name: held[name][i] for name in held}) for i in range(count)]}
