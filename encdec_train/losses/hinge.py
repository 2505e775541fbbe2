"""The hinge of scores against real (1) and fake (0).

Lim and Ye 2017 (arXiv:1705.02894); with EnCodec's generator side (Défossez et al. 2022, arXiv:2210.13438, section 3.4),
which wants its fakes beyond the margin of the real.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from encdec_train.registry import losses
from encdec_train.types import Goal, Mismatch, Spec


@dataclass(kw_only=True)
class HingeConfig:
    margin: float = 1.0

    def check(self, prediction: Spec, goal: Spec | None) -> None:
        if goal is None or goal.kind == "ids" or prediction.width != goal.width:
            raise Mismatch("loss 'hinge' holds scores against as many labels 0 and 1")
        if self.margin <= 0:
            raise Mismatch(f"loss 'hinge'.margin: {self.margin} is not above 0")


@losses.register("hinge", HingeConfig)
class Hinge(nn.Module):
    """(M,C) scores against (M,C) labels 0 or 1 -> (M,)."""

    def __init__(self, config: HingeConfig, goal: Spec | None) -> None:
        super().__init__()
        self.margin = config.margin

    def forward(self, prediction: Tensor, goal: Goal) -> Tensor:
        sign = 2 * goal.values.float() - 1
        return (self.margin - sign * prediction.float()).relu().mean(-1)
