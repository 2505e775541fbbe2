"""Numbers in words and in digits: pairs to translate that need no download.

A digit stands for a word or for what was left out (zeros), and the word after it says where it stands: the target
cannot be written without reading the source in its order.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any

from encdec_train.data.config import PairDataConfig
from encdec_train.data.sources.files import TextsConfig
from encdec_train.registry import sources
from encdec_train.rng import key_of
from encdec_train.types import Mismatch

if TYPE_CHECKING:
    from datasets import Dataset

ONES = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
    *("ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
TENS = ("", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")


def _views() -> dict[str, Any]:
    return {"source": TextsConfig(column="words"), "target": TextsConfig(column="digits")}


@dataclass(kw_only=True)
class NumeralsConfig(PairDataConfig):
    label: str | None = None
    rows: int = 10_000  # of the training split; the test split has a tenth
    below: int = 1_000_000  # the largest number, which is never drawn
    views: dict[str, Any] = field(default_factory=_views)

    def check(self) -> None:
        if self.rows < 10:
            raise Mismatch(f"data 'numerals'.rows: {self.rows} is below 10")
        if not 10 <= self.below <= 1_000_000:
            raise Mismatch(f"data 'numerals'.below: {self.below} is not between 10 and a million")


@sources.register("numerals", NumeralsConfig)
class Numerals:
    """Rows {words, digits}: "forty two thousand and seven" and "4 2 0 0 7"; a number is in one split only."""

    def __init__(self, config: NumeralsConfig) -> None:
        config.check()
        self.config = config

    def __call__(self, split: str) -> Dataset:
        from datasets import Dataset

        training = split == self.config.train
        count = self.config.rows if training else self.config.rows // 10
        random = Random(key_of("numerals", split))
        numbers: list[int] = []
        while len(numbers) < count:
            digits = random.randint(1, len(str(self.config.below - 1)))  # short numbers are as frequent as long ones
            number = random.randrange(min(10**digits, self.config.below))
            if (key_of(number) % 10 != 0) == training:
                numbers.append(number)
        return Dataset.from_list([{"words": spoken(n), "digits": " ".join(str(n))} for n in numbers])


def spoken(number: int) -> str:
    """A number below a million in words."""
    thousands, rest = divmod(number, 1000)
    if not thousands:
        return " ".join(_hundreds(rest)) or ONES[0]
    joint = ["and"] if 0 < rest < 100 else []
    return " ".join([*_hundreds(thousands), "thousand", *joint, *_hundreds(rest)])


def _hundreds(number: int) -> list[str]:
    hundreds, rest = divmod(number, 100)
    words = [ONES[hundreds], "hundred"] if hundreds else []
    if rest and hundreds:
        words.append("and")
    if rest >= 20:
        words.append(TENS[rest // 10])
        rest %= 10
    return [*words, ONES[rest]] if rest else words
