"""The learned vector that stands where content was taken away."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class MaskVector(nn.Module):
    """A learned (D,) vector, normal with deviation 0.02 at the start."""

    def __init__(self, width: int, std: float = 0.02) -> None:
        super().__init__()
        self.vector = nn.Parameter(torch.empty(width))
        nn.init.normal_(self.vector, std=std)

    def forward(self, x: Tensor, replace: Tensor) -> Tensor:
        """`x` (B,N,D) with the vector where `replace` (B,N) is True."""
        return torch.where(replace[..., None], self.vector.to(x.dtype), x)
