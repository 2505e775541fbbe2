"""Batch normalisation (Ioffe and Szegedy 2015, arXiv:1502.03167) over the rows of all ranks.

torch's `SyncBatchNorm` runs on GPUs only. With one process these are torch's own layers, bit for bit.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from encdec_train.nn.gather import sum_ranks, world


class BatchNorm1d(nn.BatchNorm1d):
    """(S,C) or (B,C,N) -> the same."""

    def forward(self, x: Tensor) -> Tensor:
        return over_ranks(self, x) if self.training and world()[1] > 1 else super().forward(x)


class BatchNorm2d(nn.BatchNorm2d):
    """(B,C,H,W) -> the same."""

    def forward(self, x: Tensor) -> Tensor:
        return over_ranks(self, x) if self.training and world()[1] > 1 else super().forward(x)


def over_ranks(norm: nn.modules.batchnorm._BatchNorm, x: Tensor, real: Tensor | None = None) -> Tensor:
    """(B,C,...) by the moments of all ranks' rows, or (S,C) by those of its `real` rows (S,); the norm tracks them."""
    rows = x.float().movedim(1, -1).flatten(0, -2)  # (S,C)
    weight = torch.ones_like(rows[:, :1]) if real is None else real[:, None].float()
    count = sum_ranks(weight.sum())
    mean = sum_ranks((rows * weight).sum(0)) / count
    var = sum_ranks(((rows - mean).square() * weight).sum(0)) / count
    track(norm, mean.detach(), var.detach() * count / (count - 1).clamp_min(1))
    y = (rows - mean) * torch.rsqrt(var + norm.eps)
    y = y if norm.weight is None else y * norm.weight
    y = y if norm.bias is None else y + norm.bias
    return y.to(x.dtype).unflatten(0, (x.shape[0], *x.shape[2:])).movedim(-1, 1)


@torch.no_grad()
def track(norm: nn.modules.batchnorm._BatchNorm, mean: Tensor, var: Tensor) -> None:
    """Move the running statistics towards (C,) moments."""
    assert norm.running_mean is not None and norm.running_var is not None and norm.momentum is not None
    assert norm.num_batches_tracked is not None
    norm.num_batches_tracked.add_(1)
    norm.running_mean.lerp_(mean, norm.momentum)
    norm.running_var.lerp_(var, norm.momentum)
