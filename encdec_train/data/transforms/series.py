"""Time series: windows of several channels, each normalised by itself and cut into patches.

Nie et al. 2023, "A Time Series is Worth 64 Words" (PatchTST, arXiv:2211.14730), section 3.1: channels are
independent, so each is a document of its row; a window is brought to zero mean and unit deviation channel by
channel, before anything is hidden (section 3.1, "Instance Normalization", as `RevInCB` in the authors' code).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from encdec_train.data.columns import column_kind
from encdec_train.data.config import DataConfig, SeriesDataConfig
from encdec_train.data.example import Example, Row, crop_key
from encdec_train.data.transform import Drawing, Transform
from encdec_train.registry import transforms
from encdec_train.rng import Rng
from encdec_train.types import Mismatch, Plan, Spec, Units


@dataclass(kw_only=True)
class SeriesTransformConfig:
    patch: int | None = None  # steps of a patch; none: the data set's own
    normalize: bool = True  # each channel of a window to zero mean and unit variance


@transforms.register("series", SeriesTransformConfig)
class SeriesTransform(Transform):
    """view `series`: channels * patches sites of `patch` steps, channel after channel; a channel is a document."""

    config: SeriesTransformConfig
    data: SeriesDataConfig

    def __init__(self, config: SeriesTransformConfig, data: DataConfig) -> None:
        if not isinstance(data, SeriesDataConfig):
            raise Mismatch(f"transform 'series' needs series, data gives {type(data).__name__}")
        super().__init__(config, data)
        self.patch = config.patch or data.patch
        if data.channels < 1 or self.patch < 1 or data.length < self.patch or data.length % self.patch:
            raise Mismatch(
                f"transform 'series': {data.channels} channels of {data.length} steps: no whole patches of {self.patch}"
            )
        self.patches = data.length // self.patch

    def specs(self) -> dict[str, Spec]:
        length = self.data.channels * self.patches
        return {"series": Spec(kind="values", width=self.patch, length=length, max_len=self.patches, coords=1)}

    def items(self, rows: Sequence[dict[str, Any]], *, clean: bool) -> Sequence[Any]:
        """The rows; of one long series all windows, or those that do not overlap for probes."""
        if self.data.column is not None:
            return rows
        return Windows(steps(rows, self.data), self.data.length, self.data.length if clean else 1)

    def __call__(self, item: Any, sample: int, rng: Rng, *, clean: bool) -> Row:
        values = self.window(item, sample, rng, clean=clean)
        if self.config.normalize:
            values = normalize(values)
        channels, patches = self.data.channels, self.patches
        number = torch.arange(channels).repeat_interleave(patches)
        place = torch.arange(patches).repeat(channels)
        keys = torch.tensor([crop_key(sample, channel) for channel in range(channels)])
        example = Example(
            values=torch.from_numpy(values.T.reshape(channels * patches, self.patch).astype(np.float32)),
            sample=keys[number],
            place=place,
            coords=place[:, None].float(),
            doc=number if channels > 1 else None,
            max_len=patches,
        )
        return {"series": example}

    def window(self, item: Any, sample: int, rng: Rng, *, clean: bool) -> np.ndarray:
        """(length,C) of a row: anywhere in a longer series, its end for probes."""
        if isinstance(item, np.ndarray):
            return item
        values = np.asarray(item[self.data.column], dtype=np.float64)
        values = values[:, None] if values.ndim == 1 else values
        if values.ndim != 2 or values.shape[1] != self.data.channels:
            shape = tuple(values.shape)
            raise ValueError(f"a series of shape {shape} has not {self.data.channels} channels (data.channels)")
        spare = len(values) - self.data.length
        if spare < 0:
            raise ValueError(f"a series of {len(values)} steps is shorter than {self.data.length} (data.length)")
        if not np.isfinite(values).all():
            raise ValueError("a series holds values that are missing or not finite")
        start = spare
        if spare and not clean:
            start = int(rng.integers("series.window", spare + 1, sample))
        return values[start : start + self.data.length]

    def show(self, units: Units, plan: Plan) -> Drawing | None:
        """A line for each channel, and what is left of it."""
        from encdec_train.data.pictures import hidden, panels_png
        from encdec_train.data.plots import lines

        def channels(values: Tensor) -> np.ndarray:
            """(B,N,patch) -> (B,channels,length)."""
            return values.unflatten(1, (self.data.channels, self.patches)).flatten(2).numpy()

        values, unseen = channels(units.values.float().cpu()), hidden(plan)
        if unseen is None:
            return Drawing("png", panels_png(lines(values, None)))
        covered = channels(unseen[..., None].expand(-1, -1, self.patch))
        return Drawing("png", panels_png(lines(values, None), lines(values, covered)))

    def preprocess(self) -> dict[str, Any]:
        data = self.data
        return {
            "kind": "series",
            "length": data.length,
            "channels": data.channels,
            "patch": self.patch,
            "normalize": self.config.normalize,
        }


class Windows(Sequence[np.ndarray]):
    """Windows (length,C) of one long series (L,C), `stride` steps apart."""

    def __init__(self, series: np.ndarray, length: int, stride: int) -> None:
        if len(series) < length:
            raise ValueError(f"data.length: {length} steps are asked for, the series has {len(series)}")
        self.series, self.length, self.stride = series, length, stride

    def __len__(self) -> int:
        return (len(self.series) - self.length) // self.stride + 1

    def __getitem__(self, index: Any) -> Any:
        if not -len(self) <= index < len(self):
            raise IndexError(f"window {index} of {len(self)}")
        start = index % len(self) * self.stride
        return self.series[start : start + self.length]


def steps(rows: Any, data: SeriesDataConfig) -> np.ndarray:
    """(L,C) float64: the columns of numbers of a table whose rows are steps in time; the class is none of them.

    Raises:
        ValueError: there are not as many as `data.channels`, or a value is missing.
    """
    names = [name for name, feature in rows.features.items() if column_kind(feature) == "number" and name != data.label]
    if len(names) != data.channels:
        held = ", ".join(names) or "none"
        raise ValueError(f"data.channels: {data.channels}, but the table has {len(names)} columns of numbers: {held}")
    series = np.stack([np.asarray(rows[name], dtype=np.float64) for name in names], axis=1)
    for name, column in zip(names, series.T, strict=True):
        if not np.isfinite(column).all():
            raise ValueError(f"data.column: '{name}' holds values that are missing or not finite")
    return series


def normalize(values: np.ndarray | Tensor) -> np.ndarray:
    """(L,C): zero mean and unit variance over time; what stands still stays zero (Kim et al. 2022, RevIN, eps 1e-5)."""
    values = np.asarray(values)
    centred = values - values.mean(0)
    found: np.ndarray = centred / np.sqrt(centred.var(0) + 1e-5)
    return found
