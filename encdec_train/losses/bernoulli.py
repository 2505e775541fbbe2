"""Negative log likelihood of values in [0, 1] under independent Bernoulli variables.

Kingma and Welling 2014 (arXiv:1312.6114), appendix C.1.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from encdec_train.registry import losses
from encdec_train.types import Goal, Mismatch, Spec, shares


@dataclass(kw_only=True)
class BernoulliConfig:
    def check(self, prediction: Spec, goal: Spec | None) -> None:
        if goal is None or goal.kind == "ids":
            raise Mismatch(f"loss 'bernoulli' needs values, the target gives {goal.kind if goal else 'nothing'}")
        if prediction.width != goal.width:
            raise Mismatch(f"loss 'bernoulli': {prediction.width} logits against {goal.width} values")


@losses.register("bernoulli", BernoulliConfig)
class Bernoulli(nn.Module):
    """(M,C) logits against (M,C) -> (M,), in nats for each value."""

    def __init__(self, config: BernoulliConfig, goal: Spec | None) -> None:
        super().__init__()

    def trivial(self, goal: Goal) -> tuple[str, Tensor]:
        """Of the mean of each value: the entropy of its variable."""
        mean = (goal.values.double() * shares(goal)[:, None]).sum(0).clamp(0, 1)
        return "mean", F.binary_cross_entropy(mean, mean)

    def forward(self, prediction: Tensor, goal: Goal) -> Tensor:
        rows = F.binary_cross_entropy_with_logits(prediction.float(), goal.values.float(), reduction="none")
        return rows.mean(-1)
