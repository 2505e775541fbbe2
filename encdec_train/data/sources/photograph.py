"""One photograph of those that ship with scikit-learn: a temple in China, or a dahlia."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from encdec_train.data.config import ImageDataConfig
from encdec_train.registry import sources

if TYPE_CHECKING:
    from datasets import Dataset


class Picture(Enum):
    """Which photograph."""

    china = "china"
    flower = "flower"


@dataclass(kw_only=True)
class PhotographConfig(ImageDataConfig):
    picture: Picture = Picture.china
    size: int = 64  # the middle square, made so small
    patch: int = 1
    mean: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    std: list[float] = field(default_factory=lambda: [1.0, 1.0, 1.0])
    label: str | None = None


@sources.register("photograph", PhotographConfig)
class Photograph:
    """One row {image: uint8 (427,640,3)}; it is both splits, as there is nothing to learn but the picture."""

    def __init__(self, config: PhotographConfig) -> None:
        self.config = config

    def __call__(self, split: str) -> Dataset:
        from datasets import Dataset, Features, Image
        from sklearn.datasets import load_sample_image

        pixels = load_sample_image(f"{self.config.picture.value}.jpg")
        return Dataset.from_dict({"image": [pixels]}, features=Features({"image": Image()}))
