"""Zero mean and unit variance by the moments of all rows that training has shown so far."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn

from encdec_train.nn.gather import world


class Standard(nn.Module):
    """(B,N,C) -> (B,N,C). The moments grow in training with gradient enabled; before the first step nothing changes."""

    moments: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("moments", torch.zeros(3, width, dtype=torch.float64))  # sums of ones, values and squares

    def forward(self, x: Tensor, real: Tensor) -> Tensor:
        if self.training and torch.is_grad_enabled():
            self.count(x.detach().flatten(0, 1).double(), real.flatten()[:, None])
        count, total, squares = self.moments
        mean = total / count.clamp_min(1)
        variance = squares / count.clamp_min(1) - mean.square()
        deviation = torch.where(count > 1, variance.clamp_min(1e-12), 1.0).sqrt()
        return (x - mean.to(x.dtype)) / deviation.to(x.dtype)

    @torch.no_grad()
    def count(self, rows: Tensor, real: Tensor) -> None:
        """Add the (M,C) rows of all ranks where (M,1) `real`."""
        found = torch.stack([(real * power).expand_as(rows).sum(0) for power in (torch.ones_like(rows), rows, rows**2)])
        if world()[1] > 1:
            dist.all_reduce(found)
        self.moments.add_(found)
