"""The order of samples, as a pure function of (seed, step): nothing to save, nothing to lose.

Global step t takes the positions t * batch to (t + 1) * batch - 1 of an endless stream; the stream is one keyed
permutation of the items after another. A resumed run starts the stream at its step. A step's rows are cut into micro
batches, and each of these into one share for each rank, in their order: how many workers or ranks there are changes
nothing but who reads a row.
"""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from encdec_train.data.config import OnError
from encdec_train.data.example import Example, Row, collate
from encdec_train.data.transform import Transform
from encdec_train.rng import Rng
from encdec_train.types import Batch


class StepSampler(Sampler[list[tuple[int, int]]]):
    """Yields for each step from `start` to `stop` its (step, item) pairs.

    Args:
        items: number of items N.
        batch: rows of one global step.
        accumulate, rank, world: of each of `accumulate` micro batches this process takes the share number `rank`.
    """

    def __init__(
        self,
        items: int,
        batch: int,
        seed: int,
        *,
        start: int,
        stop: int,
        accumulate: int = 1,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.items, self.batch, self.seed = items, batch, seed
        self.start, self.stop = start, stop
        self.accumulate, self.rank, self.world = accumulate, rank, world
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

    def own(self, step: int) -> list[int]:
        """The items of this rank, micro batch by micro batch."""
        ids, share = self.ids(step), self.batch // (self.accumulate * self.world)
        firsts = [(micro * self.world + self.rank) * share for micro in range(self.accumulate)]
        return [item for first in firsts for item in ids[first : first + share]]

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for step in range(self.start, self.stop):
            yield [(step, item) for item in self.own(step)]

    def __len__(self) -> int:
        return max(0, self.stop - self.start)


class Unreadable(ValueError):
    """A row of the data that cannot be read or transformed; says which.

    A worker process hands on its whole traceback as the text, of which only our own sentence is kept.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text.strip().rsplit(f"{type(self).__name__}: ", 1)[-1])


@dataclass(frozen=True)
class Found:
    """One row, and what could not be read in its place."""

    step: int
    row: Row
    skipped: tuple[str, ...] = ()  # a sentence for each


@dataclass(frozen=True)
class Drawn:
    """The rows of one global step that one process takes."""

    step: int
    micro: list[Batch]
    skipped: tuple[str, ...] = ()  # a sentence for each row that another one stands for


class StepDataset(Dataset[Found]):
    """Items to unbatched views, keyed by (step, item).

    The columns in `label` come as the view "label": a site for each, in float64, nan where one is missing.
    """

    TRIES = 100  # rows that are tried in the place of one that cannot be read

    def __init__(
        self,
        items: Sequence[Any],
        transform: Transform,
        seed: int,
        *,
        clean: bool,
        label: str | Sequence[str] | None,
        rows: Sequence[Any] | None = None,
    ) -> None:
        self.items, self.transform, self.seed = items, transform, seed
        self.clean, self.labels = clean, [label] if isinstance(label, str) else list(label or ())
        self.rows = None if rows is items else rows  # that carry the labels, where the items do not
        self.skip = transform.data.on_error is OnError["skip"]

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> list[Found]:
        """The rows of a batch: read together where the items can, because an Arrow look-up costs more than a row."""
        together = getattr(self.items, "__getitems__", None)
        if together is None:
            return [self[key] for key in keys]
        try:
            items = together([index for _, index in keys])
            return [Found(step, self._row(step, index, item)) for (step, index), item in zip(keys, items, strict=True)]
        except (ValueError, OSError):
            return [self[key] for key in keys]  # one by one names the row that fails

    def __getitem__(self, key: tuple[int, int]) -> Found:
        """The row, or where it is to be skipped the first readable one of a keyed series of others.

        Raises:
            Unreadable: the row cannot be read; or none of the others can.
        """
        step, index = key
        skipped: list[str] = []
        while True:
            try:
                return Found(step, self._read(step, index), tuple(skipped))
            except Unreadable as error:
                skipped.append(str(error))
                if not self.skip or len(skipped) == self.TRIES:
                    raise
            index = self._other(key[1], len(skipped))

    def _other(self, index: int, number: int) -> int:
        """The item that is tried after `number` others, the same in every step."""
        return int(Rng(self.seed).integers("data.replaced", len(self.items), torch.tensor([index]), number))

    def _read(self, step: int, index: int) -> Row:
        try:
            return self._row(step, index, self.items[index])
        except (ValueError, OSError) as error:
            raise Unreadable(f"row {index} of the data: {error}") from error

    def _row(self, step: int, index: int, item: Any) -> Row:
        row = self.transform(item, index, Rng(self.seed, step), clean=self.clean)
        if self.labels:
            labelled = item if self.rows is None else self.rows[index]
            numbers = [_number(labelled[name]) for name in self.labels]
            row["label"] = Example(values=torch.tensor(numbers, dtype=torch.float64), sample=index)
        return row


def _number(value: Any) -> float:
    """A class or a measure, nan where it is missing; graph data sets wrap it in a list of one."""
    value = value[0] if isinstance(value, list) and len(value) == 1 else value
    return float("nan") if value is None else float(value)


def collate_step(found: Sequence[Found], accumulate: int = 1) -> Drawn:
    """The micro batches of a step, all of one size."""
    share = len(found) // accumulate
    micro = [collate([one.row for one in found[i : i + share]]) for i in range(0, len(found), share)]
    return Drawn(found[0].step, micro, tuple(sentence for one in found for sentence in one.skipped))


def make_loader(dataset: StepDataset, sampler: StepSampler, *, workers: int) -> DataLoader[Drawn]:
    """A loader whose samples do not depend on the number of workers."""
    return DataLoader(
        dataset,  # type: ignore[arg-type]  # a batch sampler of (step, item) keys
        batch_sampler=sampler,
        collate_fn=partial(collate_step, accumulate=sampler.accumulate),
        num_workers=workers,
        persistent_workers=False,
        prefetch_factor=4 if workers else None,
        worker_init_fn=_leave_signals,
    )


GRACE = 20  # seconds for which workers outlive a SIGTERM, in which the main process can finish its step


def _leave_signals(_: int) -> None:
    """A signal for the whole process group is the main process's to answer; it still needs its workers then.

    A SIGTERM is heeded later, because a main process that exits sends one to workers that are left, and waits.
    """
    for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end_later)


def _end_later(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.alarm(GRACE)


def batches_of(dataset: StepDataset, order: Iterable[Sequence[int]], step: int = 0) -> Iterator[Batch]:
    """Batches of these items, as probes read them. `step` tells one draw of augmented rows from the next."""
    for items in order:
        yield collate([found.row for found in dataset.__getitems__([(step, index) for index in items])])
