"""Several data sets in one run: what they must agree in, and in which proportion their rows come."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from encdec_train.data import config as kinds
from encdec_train.data.config import DataConfig
from encdec_train.data.shards import Shards
from encdec_train.registry import did_you_mean
from encdec_train.types import Mismatch

CYCLE = 1000  # positions in which every set has exactly its share
RULES = ("on_error", "max_skipped", "limit")  # said once for all sets; a limit is one for each
USUAL = ("text", "image", "audio")  # what the content is called where a set does not name its column


@dataclass(kw_only=True)
class MixtureConfig(DataConfig):
    """Sets by name; each has its own `path`, splits, `limit`, `streaming` and `weight`."""

    mix: dict[str, Any] = field(default_factory=dict)  # of registered data configs
    probed: str | None = None  # the set whose rows probes read; none: the first

    @property
    def first(self) -> str:
        """The name of the set that probes read, and whose facts are those of all.

        Raises:
            Mismatch: there is none.
        """
        if not self.mix:
            raise Mismatch("data 'mixture'.mix: it names no data set; each is given as data.mix.NAME")
        if self.probed is not None and self.probed not in self.mix:
            guess = did_you_mean(self.probed, self.mix)
            raise Mismatch(f"data.probed: there is no '{self.probed}'{guess}; there are {', '.join(self.mix)}")
        return self.probed or next(iter(self.mix))


def facts(data: DataConfig) -> DataConfig:
    """What a transform and probes have to know of the data; of a mixture, what all its sets agree in.

    Raises:
        Mismatch: its sets differ in it.
    """
    if not isinstance(data, MixtureConfig):
        return data
    first = data.mix[data.first]
    own = [f.name for f in fields(DataConfig) if f.name not in RULES and getattr(data, f.name) != f.default]
    if own:
        raise Mismatch(f"data.{own[0]}: each set of a mixture has its own, data.mix.{data.first}.{own[0]}")
    for name, part in data.mix.items():
        if not isinstance(part, DataConfig) or isinstance(part, MixtureConfig):
            raise Mismatch(f"data.mix.{name} is not typed: its word must put a registered data set there")
        if _kind(part) is not _kind(first):
            raise Mismatch(f"data.mix.{name}: it gives {_said(part)}, {data.first} gives {_said(first)}")
        for key in _shared(first):
            here, there = getattr(part, key), getattr(first, key)
            if here != there:
                raise Mismatch(f"data.mix.{name}.{key}: {here}, but {there} in {data.first}; one transform makes both")
        if part.weight <= 0:
            raise Mismatch(f"data.mix.{name}.weight: {part.weight} is not above 0")
    quotas({name: part.weight for name, part in data.mix.items()})
    return replace(first, on_error=data.on_error, max_skipped=data.max_skipped)


def _kind(part: DataConfig) -> type:
    """The configuration of its modality."""
    return next(base for base in type(part).__mro__ if base.__module__ == kinds.__name__)


def _said(part: DataConfig) -> str:
    return _kind(part).__name__.removesuffix("DataConfig").lower() or "rows without a modality"


def _shared(part: DataConfig) -> list[str]:
    """What the modality adds to every data set: sizes, rates, views."""
    common = {f.name for f in fields(DataConfig)}
    return [f.name for f in fields(_kind(part)) if f.name not in common]


def quotas(weights: Mapping[str, float]) -> list[int]:
    """Rows of each set in `CYCLE` rows, by largest remainders.

    Raises:
        Mismatch: one has none.
    """
    total = math.fsum(weights.values())
    exact = [CYCLE * weight / total for weight in weights.values()]
    found = [math.floor(share) for share in exact]
    by_rest = sorted(range(len(exact)), key=lambda i: (found[i] - exact[i], i))
    for i in by_rest[: CYCLE - sum(found)]:
        found[i] += 1
    none = [name for name, quota in zip(weights, found, strict=True) if not quota]
    if none:
        raise Mismatch(f"data.mix.{none[0]}.weight: {weights[none[0]]} of {total:g} is less than one row of {CYCLE}")
    return found


class Mixture(Sequence[dict[str, Any]]):
    """The rows (or items) of several sets by name.

    As one sequence, which tokenizers are trained on, they come by turns in the proportion of the weights, of each its
    first rows first, and again from its first where a set is short.

    Args:
        parts: rows of each set.
        weights: of each, relative to the others.
        probed: name of the set that probes read.
    """

    def __init__(self, parts: Mapping[str, Any], weights: Mapping[str, float], probed: str) -> None:
        self.parts, self.weights, self.probed = dict(parts), dict(weights), probed

    def map(self, change: Callable[[Any], Any]) -> Mixture:
        """The same mixture of what `change` makes of each set."""
        return Mixture({name: change(part) for name, part in self.parts.items()}, self.weights, self.probed)

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts.values())

    @property
    def features(self) -> Any:
        return self.parts[self.probed].features

    @property
    def column_names(self) -> list[str]:
        return list(self.features)

    def few(self, count: int) -> Mixture:
        """So many rows or a few more, spread evenly over each set."""
        total = math.fsum(self.weights.values())
        return Mixture(
            {name: few(part, math.ceil(count * self.weights[name] / total)) for name, part in self.parts.items()},
            self.weights,
            self.probed,
        )

    def __getitem__(self, key: Any) -> Any:
        """A row, or of a slice the columns that all sets have, as lists."""
        if not isinstance(key, slice):
            return {name: values[0] for name, values in self[key : key + 1].items()}
        positions = np.arange(*key.indices(len(self)))
        part, row = self.find(positions)
        columns = set.intersection(*(set(rows.features) for rows in self.parts.values()))
        found: dict[str, list[Any]] = {column: [None] * len(positions) for column in columns}
        for i, rows in enumerate(self.parts.values()):
            (places,) = np.nonzero(part == i)
            for place, values in zip(places, _read(rows, row[places].tolist()), strict=True):
                for column in columns:
                    found[column][place] = values[column]
        return found

    def find(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The number of the set at each position (n,), and which of its rows."""
        quota, lengths = np.array(quotas(self.weights)), np.array([len(rows) for rows in self.parts.values()])
        before = np.cumsum(quota) - quota
        cycle, within = np.divmod(positions, CYCLE)
        turn = (within * 619) % CYCLE  # a step without common divisor with 1000, so that sets take turns
        part = np.searchsorted(before, turn, side="right") - 1
        return part, (cycle * quota[part] + turn - before[part]) % lengths[part]


def few(rows: Any, count: int) -> Any:
    """About `count` rows that are spread evenly."""
    if isinstance(rows, Shards | Mixture):
        return rows.few(count)
    return rows.select(range(0, len(rows), max(1, len(rows) // max(count, 1))))


def probed(rows: Any) -> Any:
    """Those that probes read."""
    return rows.parts[rows.probed] if isinstance(rows, Mixture) else rows


def _read(rows: Any, ids: list[int]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = rows.__getitems__(ids)
    return found


def mix(data: MixtureConfig, opened: Mapping[str, Any]) -> Mixture:
    """The training rows of all sets, with their content under one name.

    Raises:
        ValueError: a set lacks a column that the transform reads.
    """
    first = data.first
    column = data.mix[first].column or next((name for name in USUAL if name in opened[first].features), None)
    parts = {}
    for name, rows in opened.items():
        own = data.mix[name].column
        if column is not None and own not in (None, column) and own in rows.features:
            rows = _renamed(rows, own, column)
        if column is not None and column not in rows.features:
            raise ValueError(
                f"data.mix.{name}: it has no column '{column}', which {first} has and the transform reads; it has "
                f"{', '.join(rows.features)} (data.mix.{name}.column names the one that stands for it)"
            )
        parts[name] = rows
    return Mixture(parts, {name: data.mix[name].weight for name in opened}, first)


def _renamed(rows: Any, own: str, column: str) -> Any:
    if isinstance(rows, Shards):
        inner = rows.prepare
        return rows.through(_Rename(inner, own, column))
    other = [name for name in rows.features if name == column]
    return rows.remove_columns(other).rename_column(own, column)


@dataclass(frozen=True)
class _Rename:
    """What is done to blocks, and then a column called otherwise."""

    inner: Callable[[Any], Any] | None
    own: str
    column: str

    def __call__(self, rows: Any) -> Any:
        return _renamed(rows if self.inner is None else self.inner(rows), self.own, self.column)
