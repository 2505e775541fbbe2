"""Where lines of metrics go besides metrics.jsonl."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from encdec_train.config import Logger, TrainConfig
from encdec_train.library import need
from encdec_train.train.callbacks.tensorboard import TensorBoardSink
from encdec_train.train.callbacks.wandb import WandbSink


class Sink(Protocol):
    """Takes each line."""

    def __call__(self, line: dict[str, Any]) -> None: ...

    def close(self) -> None: ...


def check_loggers(config: TrainConfig) -> None:
    """Raise `Mismatch` where a library that is logged to is missing, before anything is written."""
    if Logger.tensorboard in config.logger:
        need("tensorboard", "tensorboard", "logger=tensorboard")


def open_sinks(config: TrainConfig, folder: Path, plain: dict[str, Any], start: int) -> tuple[Sink, ...]:
    """One for each logger; `start`: steps of the whole run that were made before."""
    made: dict[Logger, Callable[[], Sink]] = {
        Logger.wandb: lambda: WandbSink(folder, config, plain),
        Logger.tensorboard: lambda: TensorBoardSink(folder, start),
    }
    return tuple(made[logger]() for logger in dict.fromkeys(config.logger) if logger in made)
