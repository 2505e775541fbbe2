"""The learned vector that stands where content was taken away."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from encdec_train.types import Plan, Sites


class MaskVector(nn.Module):
    """A learned (D,) vector, normal with deviation 0.02 at the start."""

    def __init__(self, width: int, std: float = 0.02) -> None:
        super().__init__()
        self.vector = nn.Parameter(torch.empty(width))
        nn.init.normal_(self.vector, std=std)

    def forward(self, x: Tensor, replace: Tensor) -> Tensor:
        """`x` (B,N,D) with the vector where `replace` (B,N) is True."""
        return torch.where(replace[..., None], self.vector.to(x.dtype), x)


def seat(features: Tensor, plan: Plan, mask: MaskVector | None) -> tuple[Tensor, Sites]:
    """Content (B,K or N,D) with the mask vector where the plan replaces, and the sites that were kept."""
    if plan.replace is not None and mask is not None:
        features = mask(features, plan.replace)
    return features, plan.sites if plan.keep is None else plan.sites.take(plan.keep)
