"""Normalisation layers, by name and of maps."""

from __future__ import annotations

from enum import Enum

from torch import Tensor, nn

from encdec_train.nn.batch_norm import BatchNorm1d, BatchNorm2d, track
from encdec_train.nn.gather import sum_ranks


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


class MapBatchNorm(BatchNorm2d):
    """Batch normalisation of maps. Where some cells are not real, only the others count, and those become zero.

    Tian et al. 2023 (SparK, arXiv:2301.03580), section 3: a sparse layer computes at non-empty places only. The moments
    are those of the real cells side by side, without gathering them: shapes do not depend on data.
    """

    def forward(self, x: Tensor, real: Tensor | None = None) -> Tensor:
        """(B,C,h,w), with `real` (B,1,h,w) bool -> (B,C,h,w)."""
        if real is None:
            return super().forward(x)
        maps = x.float()
        if self.training:
            mean, variance = self.moments(maps, real)
        else:
            mean, variance = self.running_mean, self.running_var  # type: ignore[assignment]
        scale = self.weight * (variance + self.eps).rsqrt()
        maps = maps * scale[:, None, None] + (self.bias - mean * scale)[:, None, None]
        return (maps * real).to(x.dtype)

    def moments(self, maps: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        """(C,), (C,): mean and variance of the real cells of all ranks; the running ones follow, without bias."""
        count = sum_ranks(real.sum()).clamp_min(1)
        mean = sum_ranks((maps * real).sum((0, 2, 3))) / count
        variance = sum_ranks(((maps - mean[:, None, None]).square() * real).sum((0, 2, 3))) / count
        track(self, mean.detach(), variance.detach() * (count / (count - 1).clamp_min(1)))
        return mean, variance
