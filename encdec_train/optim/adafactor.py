"""Adafactor (Shazeer and Stern 2018, arXiv:1804.04235), torch's version.

Without momentum; second moments of matrices are kept as a row and a column; the step is measured in units of
each parameter's own root mean square. torch caps the rate at 1 / sqrt(step), so that `lr: 0.01` with a
constant schedule is 1 / sqrt(max(step, 10^4)), the schedule of T5 (arXiv:1910.10683, section 3.1.2).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from encdec_train.optim.schedule import OptimConfig, Schedule
from encdec_train.registry import optimizers


@dataclass(kw_only=True)
class AdafactorConfig(OptimConfig):
    lr: float = 0.01  # relative to the root mean square of each parameter, and capped at 1 / sqrt(step)
    schedule: Schedule = Schedule.constant
    weight_decay: float = 0.0
    beta2_decay: float = -0.8  # the second moment forgets at 1 - step ** beta2_decay (section 7.2 of the paper)
    least: float = 1e-3  # a parameter's root mean square counts as at least this much
    clip: float = 1.0  # largest root mean square of an update (section 6)


@optimizers.register("adafactor", AdafactorConfig)
class Adafactor:
    """Parameter groups -> optimiser."""

    whole = True  # rows, columns and root mean squares are those of whole parameters

    def __init__(self, config: AdafactorConfig) -> None:
        self.config = config

    def __call__(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        config = self.config
        return torch.optim.Adafactor(
            groups, lr=config.lr, beta2_decay=config.beta2_decay, eps=(None, config.least), d=config.clip
        )
