"""Scaled cosine error: (1 - cosine) ** gamma, which lets easy rows weigh little.

GraphMAE (Hou et al. 2022, arXiv:2205.10803), section 3.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from encdec_train.registry import losses
from encdec_train.types import Goal, Mismatch, Spec, shares


@dataclass(kw_only=True)
class ScaledCosineConfig:
    gamma: float = 2.0  # at least 1; 1 = plain cosine error

    def check(self, prediction: Spec, goal: Spec | None) -> None:
        if self.gamma < 1:
            raise Mismatch(f"loss 'scaled_cosine'.gamma: {self.gamma} is below 1")
        if goal is None or goal.kind == "ids":
            raise Mismatch(f"loss 'scaled_cosine' needs vectors, the target gives {goal.kind if goal else 'nothing'}")
        if prediction.width != goal.width:
            raise Mismatch(
                f"loss 'scaled_cosine': the prediction has width {prediction.width}, the target {goal.width}"
            )


@losses.register("scaled_cosine", ScaledCosineConfig)
class ScaledCosine(nn.Module):
    """(M,C) against (M,C) -> (M,)."""

    def __init__(self, config: ScaledCosineConfig, goal: Spec | None) -> None:
        super().__init__()
        self.gamma = config.gamma

    def trivial(self, goal: Goal) -> tuple[str, Tensor]:
        """Of the mean direction of all targets."""
        share = shares(goal)
        mean = (F.normalize(goal.values.double(), dim=-1) * share[:, None]).sum(0, keepdim=True)
        return "mean direction", (self(mean.expand_as(goal.values), goal).double() * share).sum()

    def forward(self, prediction: Tensor, goal: Goal) -> Tensor:
        cosine = F.cosine_similarity(prediction.float(), goal.values.float(), dim=-1)
        return (1 - cosine).clamp_min(0) ** self.gamma  # rounding must not make a base negative
