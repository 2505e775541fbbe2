"""Seasonal series: a daily profile that repeats, a trend and noise, in several channels; the profile is the label.

Synthesised as in the additive model of classical decomposition (Cleveland et al. 1990, STL: trend + seasonal +
remainder). The channels of a row share a profile, and differ in phase, size, trend and noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations
from typing import TYPE_CHECKING

import numpy as np
import torch

from encdec_train.data.config import SeriesDataConfig
from encdec_train.registry import sources
from encdec_train.rng import Rng
from encdec_train.types import Mismatch

if TYPE_CHECKING:
    from datasets import Dataset

# A day has four parts of unlike levels. Profiles differ in their order alone, and a day may begin anywhere: what is
# there at all, and how much of it, tells nothing.
LEVELS = np.array([-3.0, -1.0, 1.0, 3.0]) / 5.0**0.5  # of unit variance
PROFILES = [(0, *rest) for rest in permutations((1, 2, 3))]


@dataclass(kw_only=True)
class SeasonsConfig(SeriesDataConfig):
    column: str | None = "series"
    length: int = 96
    channels: int = 2
    patch: int = 8
    seed: int = 0  # of all that is drawn
    rows: int = 2000  # of the training split; a quarter of that in the test split
    period: int = 24  # steps of a day
    noise: float = 1.0  # deviation of the noise; a profile has 1
    slope: float = 0.3  # deviation of the trend's whole rise

    def check(self) -> None:
        if self.rows < 4:
            raise Mismatch(f"data 'seasons'.rows: {self.rows} is below 4")
        if self.period < len(LEVELS):
            raise Mismatch(f"data 'seasons'.period: {self.period} steps do not hold {len(LEVELS)} levels")
        for name in ("noise", "slope"):
            if getattr(self, name) < 0:
                raise Mismatch(f"data 'seasons'.{name}: {getattr(self, name)} is below 0")


@sources.register("seasons", SeasonsConfig)
class Seasons:
    """Rows {series: length lists of channels numbers, label: the order of the levels of a day}."""

    def __init__(self, config: SeasonsConfig) -> None:
        config.check()
        self.config = config

    def __call__(self, split: str) -> Dataset:
        from datasets import Array2D, ClassLabel, Dataset, Features

        config, train = self.config, split == self.config.train
        label = np.arange(config.rows if train else config.rows // 4) % len(PROFILES)  # classes take turns
        names = ["".join(map(str, profile)) for profile in PROFILES]
        shape = (config.length, config.channels)
        features = Features({"series": Array2D(shape, "float32"), "label": ClassLabel(names=names)})
        series = self.draw(Rng(config.seed, int(not train)), label)
        found = Dataset.from_dict({"series": list(series), "label": label}, features=features)
        return found.with_format("numpy", columns=["series"], output_all_columns=True)  # as lists it reads slower

    def draw(self, rng: Rng, label: np.ndarray) -> np.ndarray:
        """float32 (rows,length,channels)."""
        config = self.config
        row, channel = torch.arange(len(label))[:, None, None], torch.arange(config.channels)
        step = torch.arange(config.length)[:, None]

        def draw(kind: str, tag: str, *more: torch.Tensor) -> np.ndarray:
            numbers: torch.Tensor = getattr(rng, kind)(f"seasons.{tag}", row, channel, *more)
            return numbers.double().numpy()

        phase = (step.numpy() / config.period + draw("uniform", "phase")) % 1.0  # (rows,length,channels)
        profile = LEVELS[np.array(PROFILES)][label]  # (rows,4)
        part = (phase * len(LEVELS)).astype(int)
        series = np.take_along_axis(profile[:, None], part.reshape(len(label), 1, -1), 2).reshape(part.shape)
        time = (step.numpy() + 0.5) / config.length - 0.5
        series = series + config.slope * 12**0.5 * draw("normal", "slope") * time
        series += config.noise * draw("normal", "noise", step)
        size = 10.0 ** (2 * draw("uniform", "size") - 1)
        return (size * (series + 10 * draw("uniform", "level"))).astype(np.float32)
