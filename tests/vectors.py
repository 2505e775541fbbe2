"""Vectors that the tests of losses between two sides share."""

from __future__ import annotations

import torch
from torch import Tensor


def vectors(count: int, rows: int = 6, width: int = 4, seed: int = 0) -> list[Tensor]:
    """`count` times (rows,width), none of zero mean."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(rows, width, generator=generator) + 0.3 for _ in range(count)]
