"""The cross-correlation of two crops' features is drawn towards the identity.

Zbontar et al. 2021 (Barlow Twins, arXiv:2103.03230), equations 1 and 2; features are standardised over the batch as by
a batch norm without parameters (facebookresearch/barlowtwins, main.py).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from encdec_train.nn.autocast import without_autocast
from encdec_train.nn.gather import gather_ranks
from encdec_train.nn.sides import check_sides
from encdec_train.registry import losses
from encdec_train.types import Mismatch, Spec, Term


@dataclass(kw_only=True)
class CrossCorrelationConfig:
    redundancy: float = 0.0051  # lambda: weight of the elements off the diagonal
    eps: float = 1e-5  # added to the variances

    def check(self, prediction: Spec, goal: Spec | None) -> None:
        check_sides("cross_correlation", prediction, goal)
        if self.redundancy < 0 or self.eps <= 0:
            raise Mismatch(
                f"loss 'cross_correlation': redundancy {self.redundancy} is below 0 or eps {self.eps} not above it"
            )


@losses.register("cross_correlation", CrossCorrelationConfig)
class CrossCorrelation(nn.Module):
    """Vectors (B,C) of partners, feature by feature over the batch of all ranks; averaged over the pairs."""

    batchwise = True

    def __init__(self, config: CrossCorrelationConfig, goal: Spec | None) -> None:
        super().__init__()
        self.config = config

    def forward(self, left: list[Tensor], right: list[Tensor], *, pairs: list[tuple[int, int]]) -> Term:
        """One number for the whole batch, counted once for each of this rank's B rows."""
        a = [self.standardize(v) for v in left]
        b = a if right is left else [self.standardize(v) for v in right]
        loss = torch.stack([self.distance(a[i], b[j]) for i, j in pairs]).mean()
        count = torch.full((), left[0].shape[0], dtype=loss.dtype, device=loss.device)
        return Term(loss * count, count)

    def standardize(self, x: Tensor) -> Tensor:
        """(B,C) of every rank -> (world*B,C) of zero mean and unit variance."""
        x = gather_ranks(x.float())
        return (x - x.mean(0)) * (x.var(0, correction=0) + self.config.eps).rsqrt()

    def distance(self, x: Tensor, y: Tensor) -> Tensor:
        """(): of the cross-correlation matrix of (B,C) and (B,C) from the identity."""
        with without_autocast(x.device.type):
            square = (x.T @ y / len(x) - torch.eye(x.shape[1], device=x.device)).square()  # (C,C)
        diagonal = square.diagonal().sum()
        return diagonal + self.config.redundancy * (square.sum() - diagonal)
