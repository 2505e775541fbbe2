"""From a teacher's scores to the distributions over prototypes that a student is to match, without collapse.

Two ways: a moving centre is taken off the scores (Caron et al. 2021, DINO, arXiv:2104.14294, section 3.1), or all rows
of a batch are shared out among the prototypes evenly (Sinkhorn-Knopp; Cuturi 2013, arXiv:1306.0895; Caron et al. 2020,
SwAV, arXiv:2006.09882, section 3.1; Oquab et al. 2023, DINOv2, arXiv:2304.07193, section 4: three rounds).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from encdec_train.nn.gather import gather_ranks
from encdec_train.types import Mismatch

NEVER = -1e9  # the logarithm of a weight of nothing, finite so that a batch of fillers stays finite


@dataclass(kw_only=True)
class AssignmentConfig:
    temperature: float = 0.1  # of the student
    teacher_temperature: float = 0.04
    first_temperature: float | None = None  # the teacher's at the start; none: as later
    warmup: int = 1  # steps of linear change from the first temperature
    momentum: float = 0.9  # of the centre
    sinkhorn: int = 0  # rounds of Sinkhorn-Knopp instead of a centre; 0: the centre

    def check_values(self, name: str) -> None:
        for key in ("temperature", "teacher_temperature", "first_temperature"):
            value = getattr(self, key)
            if value is not None and value <= 0:
                raise Mismatch(f"{name}.{key}: {value} is not above 0")
        if not 0 <= self.momentum < 1:
            raise Mismatch(f"{name}.momentum: {self.momentum} is not in [0, 1)")
        if self.warmup < 1:
            raise Mismatch(f"{name}.warmup: {self.warmup} is below 1")
        if self.sinkhorn < 0:
            raise Mismatch(f"{name}.sinkhorn: {self.sinkhorn} is below 0")


class Assignment(nn.Module):
    """A teacher's scores (M,K) -> distributions (M,K) without gradient, over the rows of all ranks."""

    assigns = True  # distributions, which a collapse would make alike
    centre: Tensor  # (K,) moving mean of the teacher's scores
    done: Tensor  # () int64 training steps

    def __init__(self, config: AssignmentConfig, width: int) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("centre", torch.zeros(width))
        self.register_buffer("done", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def forward(self, scores: Tensor, weight: Tensor | None = None) -> Tensor:
        """`weight` (M,): rows of weight 0 are fillers, which move nothing. In training the centre then moves."""
        goals = self.assign(scores, weight)
        if self.training:
            self.move(scores.float(), weight)
        return goals

    @torch.no_grad()
    def assign(self, scores: Tensor, weight: Tensor | None = None) -> Tensor:
        """(M,K): what the student is to match, with the centre as it stands."""
        scores = scores.float()
        if self.config.sinkhorn:
            return sinkhorn(scores / self.sharpness(), self.config.sinkhorn, weight)
        return ((scores - self.centre) / self.sharpness()).softmax(-1)

    def sharpness(self) -> Tensor:
        """(): the teacher's temperature now."""
        last = self.config.teacher_temperature
        first = last if self.config.first_temperature is None else self.config.first_temperature
        share = (self.done / self.config.warmup).clamp_max(1)
        return first + (last - first) * share

    def move(self, scores: Tensor, weight: Tensor | None) -> None:
        """One step on; the centre towards the mean over the rows of all ranks."""
        self.done.add_(1)
        if self.config.sinkhorn:
            return
        real = torch.ones_like(scores[:, 0]) if weight is None else (weight > 0).to(scores.dtype)  # (M,)
        sums = torch.cat([real @ scores, real.sum()[None]])  # (K+1,)
        sums = gather_ranks(sums[None]).sum(0)
        share = (1 - self.config.momentum) * sums[-1].clamp_max(1)  # 0 where there was no row
        self.centre.lerp_(sums[:-1] / sums[-1].clamp_min(1), share)

    def uniform(self) -> float:
        """The loss of a student that knows nothing, where all prototypes are given alike: log K."""
        return math.log(len(self.centre))


def sinkhorn(scores: Tensor, rounds: int, weight: Tensor | None = None) -> Tensor:
    """Logarithms (M,K) -> distributions (M,K) in which every prototype has nearly the same share of all ranks' rows.

    Rounds of scaling columns, then rows, in logarithms. Rows of weight 0 are scaled along and count for nothing.
    """
    counted = torch.zeros_like(scores[:, :1]) if weight is None else (weight == 0)[:, None] * NEVER  # (M,1)
    for _ in range(rounds):
        columns = (scores + counted).logsumexp(0)  # (K,)
        scores = scores - gather_ranks(columns[None]).logsumexp(0)
        scores = scores.log_softmax(1)
    return scores.exp()
