"""Cross-entropy between the teacher's and the student's distributions over prototypes.

Caron et al. 2021 (DINO, arXiv:2104.14294), section 3.1 and algorithm 1: the teacher's scores are centred by a moving
mean, so that no prototype dominates, and sharpened by a low temperature, so that they are not uniform.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from encdec_train.nn.gather import gather_ranks
from encdec_train.nn.sides import check_sides
from encdec_train.registry import losses
from encdec_train.types import Mismatch, Spec, Term


@dataclass(kw_only=True)
class SelfDistillationConfig:
    temperature: float = 0.1  # of the student
    teacher_temperature: float = 0.04
    first_temperature: float | None = None  # the teacher's at the start; none: as later
    warmup: int = 1  # steps of linear change from the first temperature
    momentum: float = 0.9  # of the centre

    def check(self, prediction: Spec, goal: Spec | None) -> None:
        check_sides("self_distillation", prediction, goal)
        for name in ("temperature", "teacher_temperature", "first_temperature"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise Mismatch(f"loss 'self_distillation'.{name}: {value} is not above 0")
        if not 0 <= self.momentum < 1:
            raise Mismatch(f"loss 'self_distillation'.momentum: {self.momentum} is not in [0, 1)")
        if self.warmup < 1:
            raise Mismatch(f"loss 'self_distillation'.warmup: {self.warmup} is below 1")


@losses.register("self_distillation", SelfDistillationConfig)
class SelfDistillation(nn.Module):
    """The student's scores (B,K) on the left, the teacher's, which get no gradient, on the right."""

    batchwise = True

    centre: Tensor  # (K,) moving mean of the teacher's scores
    done: Tensor  # () int64 training steps

    def __init__(self, config: SelfDistillationConfig, prediction: Spec) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("centre", torch.zeros(prediction.width))
        self.register_buffer("done", torch.zeros((), dtype=torch.int64))

    def forward(self, left: list[Tensor], right: list[Tensor], *, pairs: list[tuple[int, int]]) -> Term:
        """The sum over this rank's B rows, averaged over the pairs; then the centre moves.

        Raises:
            Mismatch: there is no right side, so no teacher.
        """
        if right is left:
            raise Mismatch("loss 'self_distillation' needs a teacher: name the paths of the right side")
        scores = [v.detach().float() for v in right]
        goals = [((v - self.centre) / self.sharpness()).softmax(-1) for v in scores]
        logs = [(v.float() / self.config.temperature).log_softmax(-1) for v in left]
        rows = torch.stack([-(goals[j] * logs[i]).sum(-1) for i, j in pairs]).mean(0)  # (B,)
        if self.training:
            self.move(torch.stack([v.mean(0) for v in scores]).mean(0))
        return Term(rows.sum(), torch.full((), rows.numel(), dtype=rows.dtype, device=rows.device))

    def sharpness(self) -> Tensor:
        """(): the teacher's temperature now."""
        last = self.config.teacher_temperature
        first = last if self.config.first_temperature is None else self.config.first_temperature
        share = (self.done / self.config.warmup).clamp_max(1)
        return first + (last - first) * share

    @torch.no_grad()
    def move(self, mean: Tensor) -> None:
        """Towards the mean (K,) over the vectors of all ranks."""
        self.centre.lerp_(gather_ranks(mean[None]).mean(0), 1 - self.config.momentum)
        self.done.add_(1)
