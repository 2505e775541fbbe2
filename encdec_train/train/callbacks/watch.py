"""What is odd about a step is said with the step, and kept in events.jsonl with the checkpoint that leads there."""

from __future__ import annotations

import json
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

from lightning.pytorch import Callback, Trainer

from encdec_train.config import GuardConfig
from encdec_train.train import checkpoint
from encdec_train.train.ranks import is_first
from encdec_train.types import Halted

log = logging.getLogger("encdec_train")
LINES = 20  # of metrics: what a spike is measured against, and the pause after a warning of one kind
EVENTS = "events.jsonl"  # of a run
PINS = 5  # checkpoints that are kept for warnings


class Watch(Callback):
    """Reads each line of metrics: spikes of the loss, representations that collapse. Counts skipped steps.

    Args:
        folder: the run's.
        stage: its name.
        offset: steps of the stages before this one.
        skipped: steps of this stage that changed nothing before it went on.
        settle: waits until the newest checkpoint is whole.
    """

    def __init__(
        self,
        folder: Path,
        config: GuardConfig,
        stage: str,
        *,
        offset: int,
        skipped: int,
        settle: Callable[[], None],
    ) -> None:
        self.folder, self.config, self.stage, self.offset = folder, config, stage, offset
        self.skipped, self.settle = skipped, settle
        self.losses: deque[float] = deque(maxlen=LINES)
        self.silent: dict[str, int] = {}  # kind: lines until it may be said again

    def __call__(self, line: dict[str, Any]) -> None:
        self.silent = {kind: left - 1 for kind, left in self.silent.items() if left > 1}
        spike = spiked(line["loss"], self.losses, self.config.spike)
        if spike is not None:
            self.warn("spike", line["step"], spike)
        warm = len(self.losses) == LINES
        self.losses.append(line["loss"])
        for name, value in line.get("spread", {}).items():
            if name.endswith(".codes"):
                if value < 2:
                    self.warn("collapsed", line["step"], f"path {name} uses one code")
            elif self.config.spread is not None and value < self.config.spread:
                self.warn("collapsed", line["step"], f"vectors of path {name} differ by {value:.2g} of their length")
        if warm:  # untrained ones hardly differ
            self.compare(line["step"], line.get("entropy", {}))

    def compare(self, step: int, entropy: Mapping[str, float]) -> None:
        """Distributions that are the same for all rows, be it one choice or no choice."""
        for name in (key.removesuffix(".mean") for key in entropy if key.endswith(".mean")):
            mean, rows = entropy[f"{name}.mean"], entropy[f"{name}.rows"]
            if self.config.entropy is not None and mean - rows < self.config.entropy:
                text = f"distributions of {name} are alike: entropy {rows:.3g} of log K each, {mean:.3g} together"
                self.warn("collapsed", step, text)

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        if pl_module.skipped == self.skipped:
            return
        self.skipped = pl_module.skipped
        self.warn("skipped", self.offset + pl_module.done, "a loss or a gradient is not finite: it changes nothing")
        if self.skipped > self.config.limit:
            raise Halted(f"stage {self.stage}: {self.skipped} steps were skipped, guard.limit is {self.config.limit}")

    def warn(self, kind: str, step: int, text: str) -> None:
        """Say it, unless this kind was said a moment ago, and keep what replays the step."""
        if not is_first() or kind in self.silent:
            return
        self.silent[kind] = LINES
        self.settle()
        write_event(self.folder, kind, step, text)


def write_event(folder: Path, kind: str, step: int, text: str) -> None:
    """A line of events.jsonl; the newest checkpoint is kept for good."""
    saved = checkpoint.names(folder / "checkpoints")
    pinned = [name for name in saved if (folder / "checkpoints" / name / checkpoint.PIN).exists()]
    if saved and len(pinned) < PINS:
        checkpoint.pin(folder / "checkpoints" / saved[-1])
    replay = f"encdec-train replay {folder} {step}"
    log.warning("step %d, %s: %s; to look at it again: %s", step, kind, text, replay)
    event = {"step": step, "kind": kind, "text": text, "replay": replay, "time": time.strftime("%Y-%m-%dT%H:%M:%S")}
    with (folder / EVENTS).open("a", encoding="utf-8") as file:
        file.write(json.dumps(event) + "\n")


def spiked(loss: float, before: deque[float], limit: float | None) -> str | None:
    """A sentence if the loss is so many deviations above the median of those before it (by their own median)."""
    if limit is None or len(before) < LINES:
        return None
    middle = median(before)
    deviation = max(1.4826 * median(abs(one - middle) for one in before), 0.01 * abs(middle))
    if loss <= middle + limit * deviation:
        return None
    return f"the loss is {loss:.4g}, the median of {LINES} lines before is {middle:.4g}"
