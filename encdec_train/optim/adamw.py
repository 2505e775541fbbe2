"""AdamW (Loshchilov and Hutter 2019), torch's fused version."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from encdec_train.optim.schedule import OptimConfig
from encdec_train.registry import optimizers


@dataclass(kw_only=True)
class AdamWConfig(OptimConfig):
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    eps: float = 1e-8


@optimizers.register("adamw", AdamWConfig)
class AdamW:
    """Parameter groups -> optimiser."""

    def __init__(self, config: AdamWConfig) -> None:
        self.config = config

    def __call__(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        first, second = self.config.betas
        return torch.optim.AdamW(groups, lr=self.config.lr, betas=(first, second), eps=self.config.eps, fused=True)
