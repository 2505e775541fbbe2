"""Samples along the way, so that one sees later how they became what they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

SHARES = (0.1, 0.4)  # of a stage's steps; it begins with samples as well, and the run ends with them


class Sampler(Callback):
    """Draws at the beginning of a stage and after some shares of its steps.

    Args:
        folder: one folder for each step, named by it, goes there.
        draw: writes samples into a folder.
        offset: steps of the stages before this one.
    """

    def __init__(self, folder: Path, draw: Callable[[Path], None], *, offset: int) -> None:
        self.folder, self.draw, self.offset = folder, draw, offset

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if pl_module.done == 0:
            self.write(0)

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        if pl_module.done in {round(share * pl_module.horizon) for share in SHARES}:
            self.write(pl_module.done)

    def write(self, done: int) -> None:
        self.draw(self.folder / f"step-{self.offset + done:08d}")
