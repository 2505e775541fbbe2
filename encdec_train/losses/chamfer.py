"""Chamfer distance between sets of points: each point to its nearest in the other set, and back.

Fan et al. 2017 (arXiv:1612.00603), equation 1, averaged over the points of a set as in Point-MAE (Pang et al. 2022,
arXiv:2203.06604, section 3.4, the squared form).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from encdec_train.nn.points import squared_distances
from encdec_train.registry import losses
from encdec_train.types import Goal, Mismatch, Spec, shares


@dataclass(kw_only=True)
class ChamferConfig:
    dims: int = 3  # coordinates of a point

    def check(self, prediction: Spec, goal: Spec | None) -> None:
        if self.dims < 1:
            raise Mismatch(f"loss 'chamfer'.dims: {self.dims} is below 1")
        if goal is None or goal.kind == "ids":
            raise Mismatch(f"loss 'chamfer' needs points, the target gives {goal.kind if goal else 'nothing'}")
        for side, width in (("head gives", prediction.width), ("target has", goal.width)):
            if width % self.dims:
                raise Mismatch(f"loss 'chamfer': the {side} {width} numbers, no points of {self.dims}")


@losses.register("chamfer", ChamferConfig)
class Chamfer(nn.Module):
    """(M,G*dims) against (M,G'*dims) -> (M,): squared distances; the order of the points means nothing."""

    def __init__(self, config: ChamferConfig, goal: Spec | None) -> None:
        super().__init__()
        self.dims = config.dims

    def trivial(self, goal: Goal) -> tuple[str, Tensor]:
        """Of a set whose points all lie at the origin, where the middle of a group is."""
        square = goal.values.double().unflatten(-1, (-1, self.dims)).square().sum(-1)  # (M,G)
        return "origin", ((square.mean(1) + square.amin(1)) * shares(goal)).sum()

    def forward(self, prediction: Tensor, goal: Goal) -> Tensor:
        left, right = (x.float().unflatten(-1, (-1, self.dims)) for x in (prediction, goal.values))
        distance = squared_distances(left, right)  # (M,G,G')
        return distance.amin(2).mean(1) + distance.amin(1).mean(1)
