"""LARS: layer-wise rates in proportion to weight over gradient norm, from the package `pytorch-optimizer`.

You, Gitman and Ginsburg 2017 (arXiv:1708.03888). Matrices and kernels decay and are adapted; vectors (biases,
norms) get plain momentum steps, as in SimCLR's code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from encdec_train.optim.schedule import OptimConfig
from encdec_train.registry import optimizers
from encdec_train.types import Mismatch


@dataclass(kw_only=True)
class LarsConfig(OptimConfig):
    momentum: float = 0.9
    trust: float = 1e-3  # coefficient eta of the ratio of norms
    nesterov: bool = False


@optimizers.register("lars", LarsConfig)
class Lars:
    """Parameter groups -> optimiser.

    Raises:
        Mismatch: the package `pytorch-optimizer` is not installed.
    """

    whole = True  # norms are those of whole parameters

    def __init__(self, config: LarsConfig) -> None:
        self.config = config

    def __call__(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        try:
            from pytorch_optimizer import LARS
        except ModuleNotFoundError as error:
            raise Mismatch("optim 'lars' needs the extra 'optim': pip install 'encdec-train[optim]'") from error
        config = self.config
        optimizer: torch.optim.Optimizer = LARS(
            groups,
            lr=config.lr,
            momentum=config.momentum,
            trust_coefficient=config.trust,
            nesterov=config.nesterov,
        )
        return optimizer
