"""Scores of classes by cosine similarity with a learned vector for each.

HuBERT (Hsu et al. 2021, arXiv:2106.07447, equation 3): sim(A o, e_c) / temperature.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encdec_train.nn.transformer import init_linear
from encdec_train.registry import heads
from encdec_train.types import Mismatch, Spec


@dataclass(kw_only=True)
class CosineConfig:
    width: int = 256  # of the projection and of the class vectors
    temperature: float = 0.1

    def spec(self, upstream: Spec, goal: Spec | None) -> Spec:
        if goal is None or goal.kind != "ids":
            raise Mismatch("head 'cosine' scores classes, its objective has no target of ids")
        if self.temperature <= 0:
            raise Mismatch(f"head 'cosine'.temperature: {self.temperature} is not above 0")
        return replace(upstream, width=goal.width)


@heads.register("cosine", CosineConfig)
class Cosine(nn.Module):
    """(M,D) -> (M,classes)."""

    def __init__(self, config: CosineConfig, upstream: Spec, goal: Spec, embedder: nn.Module | None) -> None:
        super().__init__()
        self.temperature = config.temperature
        self.project = nn.Linear(upstream.width, config.width)
        init_linear(self.project)
        self.classes = nn.Parameter(torch.empty(goal.width, config.width).uniform_())

    def forward(self, x: Tensor) -> Tensor:
        rows = F.normalize(self.project(x).float(), dim=-1)
        return rows @ F.normalize(self.classes.float(), dim=-1).T / self.temperature
