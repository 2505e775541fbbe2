"""Normalisation layers by name."""

from __future__ import annotations

from enum import Enum

from torch import Tensor, nn

from encdec_train.nn.batch_norm import BatchNorm1d


class Norm(Enum):
    """Which normalisation."""

    layer = "layer"  # Ba et al. 2016
    rms = "rms"  # Zhang and Sennrich 2019: no mean, no bias
    batch = "batch"  # Ioffe and Szegedy 2015, over all tokens of a batch; for rows without padding
    none = "none"


def make_norm(kind: Norm, width: int, eps: float, *, bias: bool = True) -> nn.Module:
    """A normalisation over the last axis."""
    if kind is Norm.none:
        return nn.Identity()
    if kind is Norm.rms:
        return nn.RMSNorm(width, eps)
    if kind is Norm.batch:
        return TokenBatchNorm(width, eps)
    return nn.LayerNorm(width, eps, bias=bias)


class TokenBatchNorm(BatchNorm1d):
    """Batch normalisation of the last axis; every token of every row counts the same."""

    def forward(self, x: Tensor) -> Tensor:
        """(...,D) -> (...,D)."""
        return super().forward(x.flatten(0, -2)).view_as(x)
