"""Normalisation layers by name."""

from __future__ import annotations

from enum import Enum

from torch import nn


class Norm(Enum):
    """Which normalisation."""

    layer = "layer"  # Ba et al. 2016
    rms = "rms"  # Zhang and Sennrich 2019: no mean, no bias
    none = "none"


def make_norm(kind: Norm, width: int, eps: float, *, bias: bool = True) -> nn.Module:
    """A normalisation over the last axis."""
    if kind is Norm.none:
        return nn.Identity()
    if kind is Norm.rms:
        return nn.RMSNorm(width, eps)
    return nn.LayerNorm(width, eps, bias=bias)
