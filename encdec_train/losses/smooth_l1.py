"""Squared near zero, straight beyond: the Huber loss over its threshold (Girshick 2015, arXiv:1504.08083, eq. 3)."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from encdec_train.registry import losses
from encdec_train.types import Goal, Mismatch, Spec, shares


@dataclass(kw_only=True)
class SmoothL1Config:
    beta: float = 1.0  # where square turns into straight

    def check(self, prediction: Spec, goal: Spec | None) -> None:
        if goal is None or goal.kind == "ids":
            raise Mismatch(f"loss 'smooth_l1' needs values, the target gives {goal.kind if goal else 'nothing'}")
        if prediction.width != goal.width:
            raise Mismatch(f"loss 'smooth_l1': the head predicts {prediction.width} values, the target {goal.width}")
        if self.beta <= 0:
            raise Mismatch(f"loss 'smooth_l1'.beta: {self.beta} is not above 0")


@losses.register("smooth_l1", SmoothL1Config)
class SmoothL1(nn.Module):
    """(M,C) against (M,C) -> (M,)."""

    def __init__(self, config: SmoothL1Config, goal: Spec | None) -> None:
        super().__init__()
        self.beta = config.beta

    def trivial(self, goal: Goal) -> tuple[str, Tensor]:
        """Of the mean of all targets."""
        share = shares(goal)
        mean = (goal.values.double() * share[:, None]).sum(0, keepdim=True)
        return "mean", (self(mean.expand_as(goal.values), goal).double() * share).sum()

    def forward(self, prediction: Tensor, goal: Goal) -> Tensor:
        return F.smooth_l1_loss(prediction.float(), goal.values.float(), reduction="none", beta=self.beta).mean(-1)
