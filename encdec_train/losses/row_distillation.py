"""Cross-entropy between the teacher's and the student's distributions over prototypes, row by row.

Zhou et al. 2022 (iBOT, arXiv:2111.07832), equation 2: what the teacher sees where the student sees a mask. It is
`self_distillation` for predicted sites.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from encdec_train.nn.assignment import Assignment, AssignmentConfig
from encdec_train.registry import losses
from encdec_train.types import Goal, Mismatch, Spec, shares


@dataclass(kw_only=True)
class RowDistillationConfig(AssignmentConfig):
    def check(self, prediction: Spec, goal: Spec | None) -> None:
        if goal is None or goal.kind != "values":
            raise Mismatch(f"loss 'row_distillation' needs scores, the target gives {goal.kind if goal else 'nothing'}")
        if prediction.width != goal.width:
            raise Mismatch(
                f"loss 'row_distillation': the head scores {prediction.width} prototypes, the target {goal.width}"
            )
        self.check_values("loss 'row_distillation'")


@losses.register("row_distillation", RowDistillationConfig)
class RowDistillation(nn.Module):
    """The student's scores (M,K) against the teacher's (M,K) -> (M,), in nats."""

    batchwise = True

    def __init__(self, config: RowDistillationConfig, goal: Spec) -> None:
        super().__init__()
        self.temperature = config.temperature
        self.assignment = Assignment(config, goal.width)

    def trivial(self, goal: Goal) -> tuple[str, Tensor]:
        """Of the mean distribution, whatever the row."""
        mean = shares(goal) @ self.assignment.assign(goal.values, goal.weight).double()  # (K,)
        return "marginal", -(mean * mean.clamp_min(1e-300).log()).sum()

    def forward(self, prediction: Tensor, goal: Goal) -> Tensor:
        goals = self.assignment(goal.values, goal.weight)
        logs = (prediction.float() / self.temperature).log_softmax(-1)
        return -(goals * logs).sum(-1)
