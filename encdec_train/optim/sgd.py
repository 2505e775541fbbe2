"""Stochastic gradient descent with momentum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from encdec_train.optim.schedule import OptimConfig
from encdec_train.registry import optimizers


@dataclass(kw_only=True)
class SgdConfig(OptimConfig):
    momentum: float = 0.9
    nesterov: bool = False


@optimizers.register("sgd", SgdConfig)
class Sgd:
    """Parameter groups -> optimiser."""

    def __init__(self, config: SgdConfig) -> None:
        self.config = config

    def __call__(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        config = self.config
        return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=config.nesterov)
