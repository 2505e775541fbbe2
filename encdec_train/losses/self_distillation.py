"""Cross-entropy between the teacher's and the student's distributions over prototypes.

Caron et al. 2021 (DINO, arXiv:2104.14294), section 3.1 and algorithm 1: the teacher's scores are centred by a moving
mean, so that no prototype dominates, and sharpened by a low temperature, so that they are not uniform.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from encdec_train.nn.assignment import Assignment, AssignmentConfig
from encdec_train.nn.sides import check_sides
from encdec_train.registry import losses
from encdec_train.types import Mismatch, Spec, Term


@dataclass(kw_only=True)
class SelfDistillationConfig(AssignmentConfig):
    def check(self, prediction: Spec, goal: Spec | None) -> None:
        check_sides("self_distillation", prediction, goal)
        self.check_values("loss 'self_distillation'")


@losses.register("self_distillation", SelfDistillationConfig)
class SelfDistillation(nn.Module):
    """The student's scores (B,K) on the left, the teacher's, which get no gradient, on the right."""

    batchwise = True

    def __init__(self, config: SelfDistillationConfig, prediction: Spec) -> None:
        super().__init__()
        self.temperature = config.temperature
        self.assignment = Assignment(config, prediction.width)

    def trivial(self, rows: int) -> tuple[str, float]:
        """Of a student that knows nothing, held against a teacher that gives all prototypes alike."""
        return "uniform", self.assignment.uniform()

    def forward(self, left: list[Tensor], right: list[Tensor], *, pairs: list[tuple[int, int]]) -> Term:
        """The sum over this rank's B rows, averaged over the pairs.

        Raises:
            Mismatch: there is no right side, so no teacher.
        """
        if right is left:
            raise Mismatch("loss 'self_distillation' needs a teacher: name the paths of the right side")
        goals = self.assignment(torch.cat([v.detach() for v in right])).chunk(len(right))
        logs = [(v.float() / self.temperature).log_softmax(-1) for v in left]
        rows = torch.stack([-(goals[j] * logs[i]).sum(-1) for i, j in pairs]).mean(0)  # (B,)
        return Term(rows.sum(), torch.full((), rows.numel(), dtype=rows.dtype, device=rows.device))
