"""The frozen encoder as probes see it: rows in, vectors or tokens out."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from encdec_train.build import Wiring
from encdec_train.config import TrainConfig, override
from encdec_train.data.config import DataConfig
from encdec_train.data.draws import clean_items
from encdec_train.data.loader import StepDataset, batches_of
from encdec_train.data.mixture import facts, probed
from encdec_train.data.open import open_rows
from encdec_train.data.shards import Shards
from encdec_train.data.transform import Transform
from encdec_train.nn.pool import Pool, pool
from encdec_train.rng import Rng
from encdec_train.step import Parts, Step
from encdec_train.types import Batch, Mismatch, Tokens

Labelled = tuple[np.ndarray, np.ndarray]  # (n,D) float32 vectors and (n,) int64 classes


PLACES = ("subset", "train", "test", "column", "label", "limit")  # that mean nothing in data at another path


class OverTime(Exception):
    """The time for a look at the encoder is over."""


class Frozen:
    """An encoder in eval mode, and the rows of both splits. What was encoded once is kept for the other probes.

    Args:
        wiring: knows the paths; of the one that is read its corruption is left out, and its bottleneck unless
            `evaluate.bottleneck`.
        rows: raw rows by split, "train" and "test".
        folder: the run's.
        fresh: makes the parts as they were before training.
        limit: at most so many rows of each split are read; none: all.
    """

    def __init__(
        self,
        config: TrainConfig,
        parts: Parts,
        transform: Transform,
        wiring: Wiring,
        rows: dict[str, Sequence[dict[str, Any]]],
        device: torch.device,
        *,
        folder: Path,
        fresh: Callable[[], Parts],
        limit: int | None,
    ) -> None:
        self.config, self.parts, self.transform, self.device = config, parts, transform, device
        self.wiring, self.rows, self.folder, self.fresh = wiring, rows, folder, fresh
        self.learned = folder / "encoder"  # where the transform keeps what it learned
        self.limit = limit
        self.until: float | None = None  # when the time for this look is over, by `time.perf_counter`; none: never
        self.paths = wiring.paths
        self.derive = {view: self.paths[name] for view, name in config.derive.items()}
        self.root = self  # that all others came from
        self.inner: str | None = None  # what the transform calls the view of the path, where it calls it otherwise
        self._look_along(config.evaluate.path, "evaluate.path")
        self._forget()
        label = facts(config.data).label
        self.labels: list[str] = [label] if label is not None and _has_columns(rows["train"], [label]) else []

    @property
    def label(self) -> str | None:
        """The column of the first label, if there is one."""
        return self.labels[0] if self.labels else None

    def _look_along(self, name: str, where: str) -> None:
        if name not in self.paths:
            raise Mismatch(f"{where}: there is no path '{name}'; there is: {', '.join(self.paths)}")
        path = self.paths[name]
        bottleneck = path.bottleneck if self.config.evaluate.bottleneck else None
        self.path = replace(path, corruption=None, reply=False, bottleneck=bottleneck)

    def _forget(self) -> None:
        self._features: dict[str, np.ndarray] = {}
        self._numbers: dict[str, np.ndarray] = {}
        self._layers: dict[str, list[np.ndarray]] = {}
        self._others: dict[str, Frozen] = {}

    def _like(self) -> Frozen:
        """The same, with nothing encoded yet."""
        other = copy.copy(self)
        other._forget()
        return other

    def of(self, probe: Any, **data: Any) -> Frozen:
        """What a probe looks at: this, or along its own path, on its own data, for its own labels.

        Args:
            probe: its configuration.
            data: values of the data's configuration that are others still.

        Raises:
            Mismatch: there is no such path, or no such value.
            ValueError: the data cannot be opened.
        """
        labels, data = getattr(probe, "labels", []), {**probe.data, **data}
        key = repr((probe.path, sorted(data.items()), labels))
        if key not in self._others:
            self._others[key] = self._other(probe.path, data, labels)
        return self._others[key]

    def _other(self, path: str | None, data: dict[str, Any], labels: Sequence[str]) -> Frozen:
        if path is None and not data and not labels:
            return self
        other = self._like()
        if path is not None:
            other._look_along(path, "a probe's path")
        if data:
            other._read_from(data)
        if labels:
            other.labels = list(labels)
            if not _has_columns(other.rows["train"], labels):
                have = ", ".join(other.rows["train"].column_names)  # type: ignore[attr-defined]
                raise Mismatch(f"a probe's labels: the data have no columns {', '.join(labels)}; they have {have}")
        return other

    def _read_from(self, values: dict[str, Any]) -> None:
        """Rows of other data, through the transform that makes the path's view."""
        view, whole = self.path.view, self.transform
        part = whole.of(view)
        there = {key: getattr(DataConfig, key) for key in PLACES} if "path" in values else {}
        data = override(part.data, {**there, **values}, "a probe's data")
        self.transform = type(part)(part.config, data)
        expected, found = part.specs(), self.transform.specs()
        if found != expected:
            raise Mismatch("a probe's data: they do not have the shape that the encoder was built for")
        if part is not whole:
            self.inner, self.learned = next(iter(found)), self.learned / view
        self.rows = {name: probed(rows) for name, rows in open_rows(data).items()}
        if data.column is not None and not _has_columns(self.rows["train"], [data.column]):
            have = ", ".join(self.rows["train"].column_names)  # type: ignore[attr-defined]
            raise Mismatch(f"a probe's data: there is no column '{data.column}'; there is: {have}")
        self.transform.fit(self.rows["train"], self.learned)
        label = facts(data).label
        self.labels = [label] if label is not None and _has_columns(self.rows["train"], [label]) else []

    def untrained(self) -> Frozen:
        """The same rows, through the parts as they were before training."""
        if "untrained" not in self._others:
            other = self._others["untrained"] = self._like()
            other.parts = self.fresh().to(self.device)
        return self._others["untrained"]

    def copied(self) -> Frozen:
        """The same rows, through a copy of the parts that may be changed."""
        other = self._like()
        other.parts = copy.deepcopy(self.parts)
        return other

    def steps(
        self, split: str, *, draw: int | None = None, order: Iterable[Sequence[int]] | None = None
    ) -> Iterator[tuple[Step, Batch]]:
        """Batches of a split, finished, on the device, each in a step of its own.

        Args:
            split: "train" or "test".
            draw: rows as training sees them, in one of many draws; none: clean ones.
            order: numbers of the items of each batch; none: one after the other, as many as are read.
        """
        rows = self.rows[split]
        if draw is not None and isinstance(rows, Shards):
            rows = rows.rows(range(len(rows))[: self.limit])
        items = clean_items(self.transform, rows) if draw is None else self.transform.items(rows, clean=False)
        count = len(items) if self.limit is None else min(self.limit, len(items))
        return self.batches(items, rows=rows, draw=draw, order=self._chunks(count) if order is None else order)

    def _chunks(self, count: int) -> Iterator[range]:
        size = self.config.evaluate.batch
        return (range(start, min(start + size, count)) for start in range(0, count, size))

    @torch.no_grad()
    def batches(
        self,
        items: Sequence[Any],
        *,
        rows: Any = None,
        draw: int | None = None,
        order: Iterable[Sequence[int]] | None = None,
    ) -> Iterator[tuple[Step, Batch]]:
        """Batches of any items of the transform, as `steps` gives them; `rows` carry their labels.

        Raises:
            OverTime: the time for this look is over.
        """
        config, clean = self.config, draw is None
        labels = self.labels if rows is not None and clean else ()
        dataset = StepDataset(items, self.transform, config.seed, clean=clean, label=labels, rows=rows)
        order = self._chunks(len(items)) if order is None else order
        training = self.parts.training
        self.parts.eval()
        try:
            for number, batch in enumerate(batches_of(dataset, order, draw or 0)):
                if self.root.until is not None and time.perf_counter() > self.root.until:
                    raise OverTime
                rng = Rng(config.seed, number if draw is None else draw)
                moved = {view: to_device(units, self.device) for view, units in batch.items()}
                finished = self.transform.finish(moved, rng, clean=clean)
                if self.inner is not None:
                    finished[self.path.view] = finished.pop(self.inner)
                yield Step(finished, self.parts, rng, self.derive), finished
        finally:
            self.parts.train(training)

    def given(self, view: str, contents: list[Any]) -> Iterator[Step]:
        """Steps with contents of one view that are no rows of the data, such as sentences."""
        import datasets

        other, part = self._like(), self.root.transform.of(view)
        other.inner = next(iter(part.specs())) if part is not self.root.transform else None
        other.transform, other.path = part, replace(self.path, view=view)
        rows = datasets.Dataset.from_dict({part.data.column or view: contents})
        return (step for step, _ in other.batches(part.items(rows, clean=True)))

    def tokens(self, split: str) -> Iterator[tuple[Tokens, Batch]]:
        """Encoded clean batches of a split."""
        for step, batch in self.steps(split):
            with torch.no_grad():
                yield step.tokens(self.path), batch

    def features(self, split: str) -> np.ndarray:
        """(n,D) float32 pooled vectors of a split; computed once."""
        if split not in self._features:
            found, numbers = [], []
            for tokens, batch in self.tokens(split):
                found.append(self.pooled(tokens))
                numbers += [batch["label"].values.cpu().numpy()] if self.labels else []
            self._features[split] = np.concatenate(found)
            if self.labels:
                self._numbers[split] = np.concatenate(numbers)
        return self._features[split]

    def pooled(self, tokens: Tokens) -> np.ndarray:
        """(B,D) float32 of tokens."""
        return pool(tokens, Pool(self.config.evaluate.pool)).float().cpu().numpy()

    def numbers(self, split: str) -> np.ndarray:
        """(n,L) float64: the labels of a split, nan where one is missing."""
        if not self.labels:
            raise Mismatch(f"a probe needs labels, and the data have no column '{self.transform.data.label}'")
        self.features(split)
        return self._numbers[split]

    def vectors(self, split: str) -> Labelled:
        """Pooled vectors and classes of a split.

        Raises:
            Mismatch: the labels are no classes.
        """
        x, y = self.features(split), self.numbers(split)[:, 0]
        if not (y == np.floor(y)).all():
            raise Mismatch(f"a probe needs classes, the column '{self.labels[0]}' holds other numbers or gaps")
        return x, y.astype(np.int64)

    def layers(self, split: str) -> list[np.ndarray]:
        """(n,D) float32 pooled vectors of every layer of the encoder, first to last; computed once.

        Raises:
            Mismatch: the encoder hands out no layers.
        """
        if split not in self._layers:
            with self.emitting() as count:
                found: list[list[np.ndarray]] = [[] for _ in range(count)]
                for step, _ in self.steps(split):
                    with torch.no_grad():
                        tokens = step.encode(self.path)
                    for kept, layer in zip(found, range(count), strict=True):
                        assert tokens.layers is not None
                        kept.append(self.pooled_layer(tokens, tokens.layers[layer]))
            self._layers[split] = [np.concatenate(kept) for kept in found]
        return self._layers[split]

    def pooled_layer(self, tokens: Tokens, x: torch.Tensor) -> np.ndarray:
        """Of a layer with the sites of the last one, or with those of a lattice of its own."""
        if x.shape[1] != tokens.x.shape[1]:
            return x.mean(1).float().cpu().numpy()
        return self.pooled(replace(tokens, x=x))

    @property
    def depth(self) -> int:
        """How many layers the encoder can hand out."""
        config = self.config.encoder.get(self.path.encoder or "")
        return len(self.wiring.outputs[f"encoder.{self.path.encoder}"].layers) if hasattr(config, "emit") else 0

    @contextmanager
    def emitting(self) -> Iterator[int]:
        """While this lasts the encoder hands out all its layers, so many."""
        name, count = self.path.encoder, self.depth
        if not count or name is None:
            raise Mismatch(f"a probe needs the layers of an encoder, and '{name}' hands out none")
        own = self.parts.get("encoder", name, self.path.teacher).config
        before, own.emit = own.emit, list(range(count))
        try:
            yield count
        finally:
            own.emit = before


def _has_columns(rows: Any, names: Sequence[str | None]) -> bool:
    return all(name is not None and name in rows.column_names for name in names)


def to_device(value: Any, device: torch.device) -> Any:
    """Nested nouns on a device."""
    from encdec_train.types import map_tensors

    return map_tensors(value, lambda tensor: tensor.to(device, non_blocking=True))
