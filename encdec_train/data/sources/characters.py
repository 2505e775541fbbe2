"""Short phrases out of the box: the names of Unicode's characters, in a regular, controlled English.

`latin small letter e with acute`, `mongolian vowel separator`, `box drawings light vertical and left`. Python's
`unicodedata` holds them; a given Python version always gives the same rows.
"""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from encdec_train.data.config import DataConfig
from encdec_train.data.standard_library import split_rows
from encdec_train.registry import sources
from encdec_train.types import Mismatch

if TYPE_CHECKING:
    from datasets import Dataset

RULED = ("CJK ", "HANGUL SYLLABLE ")  # tens of thousands of names that a rule makes of a number


@dataclass(kw_only=True)
class CharactersConfig(DataConfig):
    column: str | None = "text"
    shortest: int = 3  # words; shorter names are left out

    def check(self) -> None:
        if self.shortest < 1:
            raise Mismatch(f"data 'characters'.shortest: {self.shortest} is below 1")


@sources.register("characters", CharactersConfig)
class Characters:
    """Rows of `text` (the name of a character) and `label` (its general category: Lu, Mn, So, ...)."""

    def __init__(self, config: CharactersConfig) -> None:
        config.check()
        self.config = config

    def __call__(self, split: str) -> Dataset:
        import datasets

        rows = list(self.names())
        Random(0).shuffle(rows)  # scripts stand in blocks: the first rows would be Latin only
        classes = sorted({category for category, _ in rows})
        features = datasets.Features(text=datasets.Value("string"), label=datasets.ClassLabel(names=classes))
        return datasets.Dataset.from_dict(split_rows(rows, split, classes), features=features)

    def names(self) -> Iterator[tuple[str, str]]:
        """(category, name in lower case) of every character that is called by words and not by a number."""
        for char in map(chr, range(sys.maxunicode + 1)):
            name = unicodedata.name(char, "")
            long = name.count(" ") + 1 >= self.config.shortest
            if long and not name.startswith(RULED) and not any(map(str.isdigit, name)):
                yield unicodedata.category(char), name.lower()
