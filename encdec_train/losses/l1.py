"""Mean absolute error of each row."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from encdec_train.registry import losses
from encdec_train.types import Goal, Mismatch, Spec, shares


@dataclass(kw_only=True)
class L1Config:
    def check(self, prediction: Spec, goal: Spec | None) -> None:
        if goal is None or goal.kind == "ids":
            raise Mismatch(f"loss 'l1' needs values, the target gives {goal.kind if goal else 'nothing'}")
        if prediction.width != goal.width:
            raise Mismatch(f"loss 'l1': the head predicts {prediction.width} values, the target has {goal.width}")


@losses.register("l1", L1Config)
class L1(nn.Module):
    """(M,C) against (M,C) -> (M,)."""

    def __init__(self, config: L1Config, goal: Spec | None) -> None:
        super().__init__()

    def trivial(self, goal: Goal) -> tuple[str, Tensor]:
        """Of the median of all targets, each value by itself."""
        values, share = goal.values.double(), shares(goal)
        order = values.argsort(0)  # (M,C)
        upto = share[order].cumsum(0)
        middle = (upto < 0.5).sum(0, keepdim=True).clamp_max(len(values) - 1)  # (1,C)
        median = values.gather(0, order.gather(0, middle))
        return "median", ((values - median).abs() * share[:, None]).sum(0).mean()

    def forward(self, prediction: Tensor, goal: Goal) -> Tensor:
        return (prediction.float() - goal.values.float()).abs().mean(-1)
