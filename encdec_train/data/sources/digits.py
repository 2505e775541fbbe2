"""Handwritten digits that ship with scikit-learn: 1,797 pictures of 8 x 8 in 17 greys (Alpaydin and Kaynak 1998)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from encdec_train.data.config import ImageDataConfig
from encdec_train.registry import sources

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(kw_only=True)
class DigitsConfig(ImageDataConfig):
    size: int = 8
    channels: int = 1
    patch: int = 2
    mean: list[float] = field(default_factory=lambda: [0.305])
    std: list[float] = field(default_factory=lambda: [0.376])


@sources.register("digits", DigitsConfig)
class Digits:
    """Rows {image: uint8 (8,8), label}; every fifth picture is in the test split."""

    def __init__(self, config: DigitsConfig) -> None:
        self.config = config

    def __call__(self, split: str) -> Dataset:
        from datasets import Dataset, Features, Image, Value
        from sklearn.datasets import load_digits

        found = load_digits()
        test = np.arange(len(found.target)) % 5 == 4
        chosen = test if split == "test" else ~test
        pictures = (found.images[chosen] * (255 / 16)).round().astype(np.uint8)
        rows = {"image": list(pictures), "label": found.target[chosen].tolist()}
        return Dataset.from_dict(rows, features=Features({"image": Image(), "label": Value("int64")}))
