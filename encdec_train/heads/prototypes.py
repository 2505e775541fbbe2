"""Scores of prototypes: cosines between a vector and learned directions, or products with learned vectors.

Caron et al. 2021 (DINO, arXiv:2104.14294), appendix on the projection head: a normalised bottleneck, then a linear
layer with weight normalisation (Salimans and Kingma 2016, arXiv:1602.07868) whose lengths are all one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encdec_train.registry import heads
from encdec_train.types import Mismatch, Spec


@dataclass(kw_only=True)
class PrototypesConfig:
    count: int = 65536  # K
    unit: bool = True  # prototypes keep length one; else their lengths are learned too

    def spec(self, upstream: Spec, goal: Spec | None) -> Spec:
        if self.count < 2:
            raise Mismatch(f"head 'prototypes'.count: {self.count} is below 2")
        return replace(upstream, kind="vectors", width=self.count)


@heads.register("prototypes", PrototypesConfig)
class Prototypes(nn.Module):
    """(M,D) -> (M,K)."""

    def __init__(self, config: PrototypesConfig, upstream: Spec, goal: Spec | None, embedder: nn.Module | None) -> None:
        super().__init__()
        self.directions = nn.Parameter(torch.empty(config.count, upstream.width))
        self.lengths = None if config.unit else nn.Parameter(torch.ones(config.count, 1))
        nn.init.trunc_normal_(self.directions, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        weight = F.normalize(self.directions, dim=-1)
        if self.lengths is not None:
            weight = weight * self.lengths
        return F.linear(F.normalize(x, dim=-1), weight)
