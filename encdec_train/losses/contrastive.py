"""Telling the true target of a row from its negatives, by cosine similarity or by the dot product.

Baevski et al. 2020, "wav2vec 2.0" (arXiv:2006.11477), equation 3; van den Oord et al. 2018 (arXiv:1807.03748), equation
4: InfoNCE, by dot products at temperature 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encdec_train.registry import losses
from encdec_train.types import Goal, Mismatch, Spec, shares


@dataclass(kw_only=True)
class ContrastiveConfig:
    temperature: float = 0.1  # kappa
    cosine: bool = True  # vectors are brought to length one first

    def check(self, prediction: Spec, goal: Spec | None) -> None:
        if self.temperature <= 0:
            raise Mismatch(f"loss 'contrastive'.temperature: {self.temperature} is not above 0")
        if goal is None or goal.kind == "ids":
            raise Mismatch(f"loss 'contrastive' needs vectors, the target gives {goal.kind if goal else 'nothing'}")
        if not goal.negatives:
            raise Mismatch("loss 'contrastive' needs negatives, the target gives none")
        if prediction.width != goal.width:
            raise Mismatch(f"loss 'contrastive': the head gives {prediction.width} values, the target has {goal.width}")


@losses.register("contrastive", ContrastiveConfig)
class Contrastive(nn.Module):
    """(M,C) against (M,C) and (M,Q) negatives -> (M,); log(Q + 1) where all are equally likely."""

    def __init__(self, config: ContrastiveConfig, goal: Spec | None) -> None:
        super().__init__()
        self.temperature, self.cosine = config.temperature, config.cosine

    def trivial(self, goal: Goal) -> tuple[str, Tensor]:
        """Of scores that are all equal."""
        assert goal.negatives is not None
        own = torch.arange(len(goal.values), device=goal.values.device)[:, None]
        candidates = 1 + (goal.negatives != own).sum(1)
        return "uniform", (candidates.double().log() * shares(goal)).sum()

    def forward(self, prediction: Tensor, goal: Goal) -> Tensor:
        if goal.negatives is None:
            raise Mismatch("loss 'contrastive' needs negatives, the target gives none")
        left, right = prediction.float(), goal.values.float()
        if self.cosine:
            left, right = F.normalize(left, dim=-1), F.normalize(right, dim=-1)
        true = (left * right).sum(-1, keepdim=True)  # (M,1)
        false = similarities(left, right, goal.negatives)  # (M,Q)
        own = torch.arange(len(left), device=left.device)[:, None]
        false = false.masked_fill(goal.negatives == own, -torch.inf)
        logits = torch.cat([true, false], 1) / self.temperature
        return logits.logsumexp(1) - logits[:, 0]


def similarities(left: Tensor, right: Tensor, index: Tensor) -> Tensor:
    """(M,Q): the dot products of each row of `left` with the rows of `right` at `index` (M,Q).

    All M * M products, or the vectors of the negatives one beside the other: whichever takes less memory.
    """
    rows, width = left.shape
    if rows <= index.shape[1] * width:
        return (left @ right.T).gather(1, index)
    chosen = right.index_select(0, index.flatten()).unflatten(0, index.shape)  # its gradient has a fixed order
    return torch.einsum("mc,mqc->mq", left, chosen)
