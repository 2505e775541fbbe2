"""Partners are close, every feature varies over the batch, and no two features vary together.

Bardes, Ponce and LeCun 2022 (VICReg, arXiv:2105.04906), equations 1 to 6, with the constants of the authors' code
(facebookresearch/vicreg, main_vicreg.py): the distance is a mean over features, the hinge on the deviations is averaged
over the two crops, the covariance is summed over them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encdec_train.nn.autocast import without_autocast
from encdec_train.nn.gather import gather_ranks
from encdec_train.nn.sides import check_sides
from encdec_train.registry import losses
from encdec_train.types import Mismatch, Spec, Term


@dataclass(kw_only=True)
class VarianceCovarianceConfig:
    invariance: float = 25.0  # weight of the mean squared distance of partners
    variance: float = 25.0  # weight of what the deviations lack to 1
    covariance: float = 1.0  # weight of the squared covariances of different features
    eps: float = 1e-4  # added to the variances

    def check(self, prediction: Spec, goal: Spec | None) -> None:
        check_sides("variance_covariance", prediction, goal)
        for name in ("invariance", "variance", "covariance", "eps"):
            if getattr(self, name) < 0:
                raise Mismatch(f"loss 'variance_covariance'.{name}: {getattr(self, name)} is below 0")


@losses.register("variance_covariance", VarianceCovarianceConfig)
class VarianceCovariance(nn.Module):
    """Vectors (B,C) of partners, over the batch of all ranks; more than two crops are averaged."""

    batchwise = True

    def __init__(self, config: VarianceCovarianceConfig, goal: Spec | None) -> None:
        super().__init__()
        self.config = config

    def forward(self, left: list[Tensor], right: list[Tensor], *, pairs: list[tuple[int, int]]) -> Term:
        """One number for the whole batch, counted once for each of this rank's B rows."""
        a = [gather_ranks(v.float()) for v in left]
        b = a if right is left else [gather_ranks(v.float()) for v in right]
        crops = a if right is left else a + b
        distance = torch.stack([F.mse_loss(a[i], b[j]) for i, j in pairs]).mean()
        lack = torch.stack([self.lack(x) for x in crops]).mean()
        common = 2 * torch.stack([covariance(x) for x in crops]).mean()
        weigh = self.config
        loss = weigh.invariance * distance + weigh.variance * lack + weigh.covariance * common
        count = torch.full((), left[0].shape[0], dtype=loss.dtype, device=loss.device)
        return Term(loss * count, count)

    def lack(self, x: Tensor) -> Tensor:
        """(): what the deviations of the features of (B,C) lack to 1 on average."""
        return F.relu(1 - (x.var(0) + self.config.eps).sqrt()).mean()


def covariance(x: Tensor) -> Tensor:
    """(): the squared covariances of different features of (B,C), summed, over C."""
    x = x - x.mean(0)
    with without_autocast(x.device.type):
        square = (x.T @ x / (len(x) - 1)).square()  # (C,C)
    return (square.sum() - square.diagonal().sum()) / x.shape[1]
