"""Ctrl-C and SIGTERM: the step is finished, a checkpoint saved, and the run ends."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from encdec_train.train.callbacks.saver import Saver
from encdec_train.train.ranks import Tally
from encdec_train.types import Stopped

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupt(Callback):
    """A second signal ends the process at once. A signal to any of several processes ends all of them alike.

    Args:
        saver: saves before the run ends.
        advice: what to do next, for the message.
    """

    def __init__(self, saver: Saver, advice: str) -> None:
        self.saver, self.advice = saver, advice
        self.caught = 0
        self.before: dict[int, Any] = {}
        self.tally: Tally | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.tally = Tally(pl_module.device)
        if threading.current_thread() is threading.main_thread():
            self.before = {number: signal.signal(number, self.catch) for number in SIGNALS}

    def catch(self, number: int, _: Any) -> None:
        if self.caught:
            os._exit(128 + number)
        self.caught = number

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        assert self.tally is not None
        if self.tally(self.caught):
            self.stop(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        assert self.tally is not None
        self.release()
        if self.tally.last() or self.caught:
            self.stop(trainer, pl_module)

    def on_exception(self, *_: Any) -> None:
        self.release()

    def stop(self, trainer: Trainer, module: Any) -> None:
        """Save and end.

        Raises:
            Stopped: always.
        """
        self.saver.save(trainer, module)
        number = self.caught or signal.SIGTERM
        name = signal.Signals(number).name
        raise Stopped(f"{name}: saved after step {module.done} of {module.steps}; {self.advice}", 128 + number)

    def release(self) -> None:
        """The signals mean again what they meant before."""
        while self.before:
            signal.signal(*self.before.popitem())
