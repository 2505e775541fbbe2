"""The order of samples, as a pure function of (seed, step): nothing to save, nothing to lose.

Global step t takes the positions t * batch to (t + 1) * batch - 1 of an endless stream; the stream is one keyed
permutation of the items after another. A resumed run starts the stream at its step.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from encdec_train.data.example import Example, Row, collate
from encdec_train.data.transform import Transform
from encdec_train.rng import Rng
from encdec_train.types import Batch


class StepSampler(Sampler[list[tuple[int, int]]]):
    """Yields for each step from `start` to `stop` its (step, item) pairs.

    Args:
        items: number of items N.
        batch: rows of one global step.
        rank, world: this process takes the positions rank, rank + world, ... of each step.
    """

    def __init__(
        self, items: int, batch: int, seed: int, *, start: int, stop: int, rank: int = 0, world: int = 1
    ) -> None:
        self.items, self.batch, self.seed = items, batch, seed
        self.start, self.stop, self.rank, self.world = start, stop, rank, world
        self._epoch: tuple[int, list[int]] | None = None

    def permutation(self, epoch: int) -> list[int]:
        """The order of the items in one epoch."""
        if self._epoch is None or self._epoch[0] != epoch:
            order = Rng(self.seed, epoch).order("epoch", torch.arange(self.items))
            self._epoch = (epoch, order.tolist())
        return self._epoch[1]

    def ids(self, step: int) -> list[int]:
        """The items of one global step, on all ranks together."""
        positions = range(step * self.batch, (step + 1) * self.batch)
        return [self.permutation(p // self.items)[p % self.items] for p in positions]

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for step in range(self.start, self.stop):
            yield [(step, item) for item in self.ids(step)[self.rank :: self.world]]

    def __len__(self) -> int:
        return max(0, self.stop - self.start)


class StepDataset(Dataset[tuple[int, Row]]):
    """Items to unbatched views, keyed by (step, item)."""

    def __init__(
        self,
        items: Sequence[Any],
        transform: Transform,
        seed: int,
        *,
        clean: bool,
        label: str | None,
        rows: Sequence[Any] | None = None,
    ) -> None:
        self.items, self.transform, self.seed = items, transform, seed
        self.clean, self.label = clean, label
        self.rows = None if rows is items else rows  # that carry the labels, where the items do not

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> list[tuple[int, Row]]:
        """The rows of a batch: read together where the items can, because an Arrow look-up costs more than a row."""
        together = getattr(self.items, "__getitems__", None)
        if together is None:
            return [self[key] for key in keys]
        try:
            items = together([index for _, index in keys])
        except (ValueError, OSError):
            return [self[key] for key in keys]  # one by one names the row that fails
        return [self._row(step, index, item) for (step, index), item in zip(keys, items, strict=True)]

    def __getitem__(self, key: tuple[int, int]) -> tuple[int, Row]:
        step, index = key
        try:
            item = self.items[index]
        except (ValueError, OSError) as error:
            raise ValueError(f"row {index} of the data: {error}") from error
        return self._row(step, index, item)

    def _row(self, step: int, index: int, item: Any) -> tuple[int, Row]:
        try:
            row = self.transform(item, index, Rng(self.seed, step), clean=self.clean)
        except (ValueError, OSError) as error:
            raise ValueError(f"row {index} of the data: {error}") from error
        if self.label is not None:
            labelled = item if self.rows is None else self.rows[index]
            row["label"] = Example(values=torch.tensor([_class(labelled[self.label])]), sample=index)
        return step, row


def _class(value: Any) -> int:
    """A class number; graph data sets wrap it in a list of one."""
    return int(value[0] if isinstance(value, list) and len(value) == 1 else value)


def collate_step(rows: Sequence[tuple[int, Row]]) -> tuple[int, Batch]:
    """One batch and the step that it belongs to."""
    return rows[0][0], collate([row for _, row in rows])


def make_loader(dataset: StepDataset, sampler: StepSampler, *, workers: int) -> DataLoader[tuple[int, Batch]]:
    """A loader whose samples do not depend on the number of workers."""
    return DataLoader(
        dataset,  # type: ignore[arg-type]  # a batch sampler of (step, item) keys
        batch_sampler=sampler,
        collate_fn=collate_step,
        num_workers=workers,
        persistent_workers=False,
        prefetch_factor=4 if workers else None,
        worker_init_fn=_leave_signals,
    )


def _leave_signals(_: int) -> None:
    """A signal for the whole process group is the main process's to answer; it still needs its workers then."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)


def clean_batches(dataset: StepDataset, batch: int, limit: int | None) -> Iterator[Batch]:
    """The first rows in order, without augmentation: what probes read."""
    count = len(dataset.items) if limit is None else min(limit, len(dataset.items))
    for start in range(0, count, batch):
        keys = [(0, index) for index in range(start, min(start + batch, count))]
        yield collate([row for _, row in dataset.__getitems__(keys)])
