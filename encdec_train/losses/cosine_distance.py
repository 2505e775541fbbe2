"""One minus the cosine between a predicted vector and its target, which gets no gradient.

SimSiam (Chen and He 2021, arXiv:2011.10566, equations 1 to 4) minimises the negative cosine, which is this less one;
BYOL (Grill et al. 2020, arXiv:2006.07733, equation 2) the squared distance of unit vectors, which is twice this, summed
over two directions. Nothing here keeps vectors apart: what does is the predictor and the stopped gradient.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encdec_train.nn.sides import check_sides
from encdec_train.registry import losses
from encdec_train.types import Mismatch, Spec, Term


@dataclass(kw_only=True)
class CosineDistanceConfig:
    def check(self, prediction: Spec, goal: Spec | None) -> None:
        check_sides("cosine_distance", prediction, goal)


@losses.register("cosine_distance", CosineDistanceConfig)
class CosineDistance(nn.Module):
    """Vectors (B,C) of the left against their partners on the right, averaged over the pairs; 0 where they agree."""

    def __init__(self, config: CosineDistanceConfig, goal: Spec | None) -> None:
        super().__init__()

    def forward(self, left: list[Tensor], right: list[Tensor], *, pairs: list[tuple[int, int]]) -> Term:
        """The sum over this rank's B rows.

        Raises:
            Mismatch: there is no right side, so that predictor and target would be the same vectors.
        """
        if right is left:
            raise Mismatch("loss 'cosine_distance' needs targets: name the paths of the right side")
        predicted = [F.normalize(v.float(), dim=-1) for v in left]
        targets = [F.normalize(v.detach().float(), dim=-1) for v in right]
        rows = torch.stack([1 - (predicted[i] * targets[j]).sum(-1) for i, j in pairs]).mean(0)  # (B,)
        return Term(rows.sum(), torch.full((), rows.numel(), dtype=rows.dtype, device=rows.device))
