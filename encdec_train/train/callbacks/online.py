"""Probes while the run trains, each with a budget of time. They change nothing that training depends on."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer

from encdec_train.config import seconds_of
from encdec_train.train.assembly import Run, evaluate, frozen
from encdec_train.train.frozen import Frozen, OverTime
from encdec_train.train.spread import line_due

log = logging.getLogger("encdec_train")
LEAST = 32  # rows of a split below which a probe is given up
SPARE = 0.8  # of the budget is planned with


class Online(Callback):
    """Looks at the encoder at the lines of metrics that follow every so many steps. Comes before what writes these.

    The first process looks, the others wait for it. What takes longer than its budget reads fewer rows from then on.

    Args:
        offset: steps of the stages before this one.
    """

    def __init__(self, run: Run, *, offset: int) -> None:
        self.run, self.offset = run, offset
        self.parts = {name: part for name, part in run.config.probe.items() if part.every is not None}
        self.limits: dict[str, int] = {}  # rows of each split, where they are fewer than those of `evaluate.rows`
        self.found: dict[str, float] = {}  # since they were taken
        self.seconds = 0.0  # since they were taken

    def take(self) -> tuple[dict[str, float], float]:
        """What was found since the last call, and the time that it took."""
        taken, self.found, self.seconds = (self.found, self.seconds), {}, 0.0
        return taken

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        every = self.run.config.trainer.log_every
        due = [n for n, part in self.parts.items() if probe_due(pl_module, part.every, every, self.offset)]
        if not due:
            return
        if trainer.is_global_zero:
            started = time.perf_counter()
            with _own_draws(self.run.device):
                eyes: dict[int | None, Frozen] = {}
                for name in due:
                    self._look(name, eyes, self.offset + pl_module.done)
            self.seconds += time.perf_counter() - started
        trainer.strategy.barrier()

    def _look(self, name: str, eyes: dict[int | None, Frozen], step: int) -> None:
        """One probe; those that read as many rows share what is encoded."""
        limit, budget = self.limits.get(name), seconds_of(self.parts[name].budget)
        seen = eyes.setdefault(limit, frozen(self.run, limit=limit))
        started = time.perf_counter()
        seen.until = started + budget
        try:
            found = evaluate(self.run, name, seen)
            self.found.update({name: measured.value for name, measured in found.items()})
        except OverTime:
            pass
        seconds = time.perf_counter() - started
        if seconds > budget:
            self._read_less(name, seen, seconds, budget, step)

    def _read_less(self, name: str, seen: Frozen, seconds: float, budget: float, step: int) -> None:
        """So many rows fewer that the next look fits, or none at all."""
        most = max(len(rows) for rows in seen.rows.values())
        rows = most if seen.limit is None else min(seen.limit, most)
        fitting = int(rows * min(0.5, SPARE * budget / seconds))
        said = f"{rows:,} rows of a split take more than its budget of {self.parts[name].budget} at step {step}"
        if fitting < LEAST:
            del self.parts[name]
            log.warning("probe %s: %s; it is left out until the end", name, said)
        else:
            self.limits[name] = fitting
            log.warning("probe %s: %s; from now on it reads %s", name, said, f"{fitting:,}")


def probe_due(module: Any, every: int, log_every: int, offset: int) -> bool:
    """Whether a multiple of `every` steps of the run lies after the line of metrics before this one."""
    if not line_due(module.done, module.steps, log_every):
        return False
    before = (module.done - 1) // log_every * log_every or min(1, module.done - 1)
    return (offset + module.done) // every > (offset + before) // every


@contextmanager
def _own_draws(device: torch.device) -> Iterator[None]:
    """What is drawn meanwhile leaves torch's generators as they were."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        yield
