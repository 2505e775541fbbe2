"""Checkpoints at an interval and at the end of a stage."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from encdec_train.train import checkpoint


class Saver(Callback):
    """Saves the module's parts, optimisers and place; restores the optimisers when a run goes on.

    Args:
        state: gives what else is kept (stage, step, seconds).
        restore: checkpoint whose optimiser state is taken up at the start.
    """

    def __init__(
        self, folder: Path, *, every: int, keep: int, state: Callable[[int], dict[str, Any]], restore: Path | None
    ) -> None:
        self.folder, self.every, self.keep = folder, every, keep
        self.state, self.restore = state, restore
        self.seconds = 0.0
        self.saved: int | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.restore is not None:
            checkpoint.load_optimizers(self.restore, trainer.optimizers)

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        if pl_module.done % self.every == 0 or pl_module.done == pl_module.steps:
            self.save(trainer, pl_module)

    def save(self, trainer: Trainer, pl_module: Any) -> None:
        """A checkpoint of this step, unless there is one already."""
        if self.saved == pl_module.done:
            return
        started = time.perf_counter()
        checkpoint.save(self.folder, pl_module.parts, trainer.optimizers, self.state(pl_module.done), self.keep)
        self.saved = pl_module.done
        self.seconds += time.perf_counter() - started
