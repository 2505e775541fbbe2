"""Cross entropy of each row against one id."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from encdec_train.kernels.masked_head import chunked, masked_head
from encdec_train.registry import losses
from encdec_train.types import Goal, Mismatch, Spec, shares


@dataclass(kw_only=True)
class CrossEntropyConfig:
    smoothing: float = 0.0  # share of the target that is spread over all ids (Szegedy et al. 2016, section 7)
    z: float = 0.0  # weight of the squared log normaliser (Chowdhery et al. 2022, section 5: 1e-4)

    def check(self, prediction: Spec, goal: Spec | None) -> None:
        if goal is None or goal.kind != "ids":
            raise Mismatch(f"loss 'cross_entropy' needs ids, the target gives {goal.kind if goal else 'nothing'}")
        if prediction.width != goal.width:
            raise Mismatch(f"loss 'cross_entropy': the head scores {prediction.width} ids, the target has {goal.width}")
        if not 0 <= self.smoothing < 1:
            raise Mismatch(f"loss 'cross_entropy'.smoothing: {self.smoothing} is not in [0, 1)")
        if self.z < 0:
            raise Mismatch(f"loss 'cross_entropy'.z: {self.z} is below 0")


@losses.register("cross_entropy", CrossEntropyConfig)
class CrossEntropy(nn.Module):
    """(M,V) against (M,) -> (M,), in nats."""

    def __init__(self, config: CrossEntropyConfig, goal: Spec | None) -> None:
        super().__init__()
        self.smoothing, self.z = config.smoothing, config.z
        self.ids = goal.width if goal is not None else 0

    def trivial(self, goal: Goal) -> tuple[str, Tensor]:
        """Of the frequencies of the ids, whatever stands around them: the unigram entropy, smoothed as the targets."""
        share = shares(goal)
        counts = share.new_zeros(self.ids or int(goal.values.max()) + 1).index_add(0, goal.values, share)
        counts = (1 - self.smoothing) * counts + self.smoothing / len(counts)
        return "unigram", -(counts * counts.clamp_min(1e-300).log()).sum()

    def forward(self, prediction: Tensor, goal: Goal) -> Tensor:
        scores = prediction.float()
        rows = F.cross_entropy(scores, goal.values, reduction="none", label_smoothing=self.smoothing)
        if self.z:
            rows = rows + self.z * scores.logsumexp(-1).square()
        return rows

    def fused(self, head: Any, rows: Tensor, goal: Goal) -> Tensor | None:
        """(): the weighted sum over (M,D) rows, whose scores are never held as a whole.

        None where they may be, or where the head does not end in a linear layer.
        """
        if not hasattr(head, "last"):
            return None
        table, bias = head.last()
        if not chunked(rows, table):
            return None
        return masked_head(head.before(rows), table, bias, goal.values, goal.weight, self.smoothing, self.z)
