"""The learning rate and the weight decay as pure functions of the step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

from encdec_train.types import Mismatch


class Schedule(Enum):
    """What follows the linear warmup."""

    constant = "constant"
    cosine = "cosine"  # half a cosine down to `lr_end` (Loshchilov and Hutter 2017, without restarts)
    linear = "linear"  # straight down to `lr_end`
    rsqrt = "rsqrt"  # lr * sqrt(warmup / step) (Vaswani et al. 2017, eq. 3; T5 section 3.1.2)


@dataclass(kw_only=True)
class OptimConfig:
    """What every optimiser has."""

    lr: float = 1e-3  # peak learning rate
    lr_batch: int | None = None  # `lr` is meant for this batch and grows linearly with ours; none: as it is
    warmup: int = 0  # steps of linear growth from 0
    schedule: Schedule = Schedule.cosine
    lr_end: float = 0.0
    weight_decay: float = 0.05  # of matrices; vectors (biases, norms, tokens) are never decayed
    weight_decay_end: float | None = None  # reached on half a cosine at the end of the stage; none: constant

    def __post_init__(self) -> None:
        if self.lr <= 0:
            raise Mismatch(f"optim.lr: {self.lr} is not above 0")
        for name in ("warmup", "weight_decay", "lr_end"):
            if getattr(self, name) < 0:
                raise Mismatch(f"optim.{name}: {getattr(self, name)} is below 0")
        if self.weight_decay_end is not None and not (self.weight_decay > 0 and self.weight_decay_end >= 0):
            raise Mismatch(f"optim.weight_decay_end: from {self.weight_decay} to {self.weight_decay_end} is no decay")


@dataclass(frozen=True, kw_only=True)
class Course:
    """The place on the schedule as a line: at `step` it is `place`, and with each step it grows by `pace`."""

    step: int = 0
    place: float = 0.0
    pace: float = 1.0

    def at(self, step: int) -> float:
        return self.place + (step - self.step) * self.pace


def peak_rate(config: OptimConfig, batch: int) -> float:
    """The peak for a global batch: the linear rule of Goyal et al. 2017, applied here and nowhere else."""
    return config.lr * batch / config.lr_batch if config.lr_batch else config.lr


def rate(config: OptimConfig, peak: float, step: float, total: int) -> float:
    """The learning rate of step 0 <= `step` < `total`; the first step of a warmup is not zero."""
    if step < config.warmup:
        return peak * (step + 1) / config.warmup
    if config.schedule is Schedule.constant:
        return peak
    if config.schedule is Schedule.rsqrt:
        return peak * math.sqrt(max(1, config.warmup) / (step + 1))
    done = (step - config.warmup) / max(1, total - config.warmup)
    fall = 1 - done if config.schedule is Schedule.linear else 0.5 * (1 + math.cos(math.pi * done))
    return config.lr_end + (peak - config.lr_end) * fall


def decay(config: OptimConfig, step: float, total: int) -> float:
    """The weight decay of step 0 <= `step` < `total`."""
    if config.weight_decay_end is None:
        return config.weight_decay
    share = 0.5 * (1 - math.cos(math.pi * step / total))
    return config.weight_decay + (config.weight_decay_end - config.weight_decay) * share
