"""Mean squared error of each row."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from encdec_train.registry import losses
from encdec_train.types import Goal, Mismatch, Spec, shares


@dataclass(kw_only=True)
class MseConfig:
    def check(self, prediction: Spec, goal: Spec | None) -> None:
        if goal is None or goal.kind == "ids":
            raise Mismatch(f"loss 'mse' needs values, the target gives {goal.kind if goal else 'nothing'}")
        if prediction.width != goal.width:
            raise Mismatch(f"loss 'mse': the head predicts {prediction.width} values, the target has {goal.width}")


@losses.register("mse", MseConfig)
class Mse(nn.Module):
    """(M,C) against (M,C) -> (M,)."""

    def __init__(self, config: MseConfig, goal: Spec | None) -> None:
        super().__init__()

    def trivial(self, goal: Goal) -> tuple[str, Tensor]:
        """Of the mean of all targets."""
        values, share = goal.values.double(), shares(goal)[:, None]
        mean = (values * share).sum(0)
        return "mean", ((values - mean).square() * share).sum(0).mean()

    def forward(self, prediction: Tensor, goal: Goal) -> Tensor:
        return (prediction.float() - goal.values.float()).square().mean(-1)
