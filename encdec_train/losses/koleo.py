"""The Kozachenko-Leonenko estimate of entropy: every vector keeps its distance from the nearest other one.

Sablayrolles et al. 2019, "Spreading vectors for similarity search" (arXiv:1806.03198), equation 2; on unit vectors, as
in DINOv2 (Oquab et al. 2023, arXiv:2304.07193, section 4).
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
class KoleoConfig:
    eps: float = 1e-8  # added to the distances

    def check(self, prediction: Spec, goal: Spec | None) -> None:
        check_sides("koleo", prediction, goal)
        if self.eps <= 0:
            raise Mismatch(f"loss 'koleo'.eps: {self.eps} is not above 0")


@losses.register("koleo", KoleoConfig)
class Koleo(nn.Module):
    """Vectors (B,C) of one side, each crop for itself, over the batch of all ranks; the mean over crops."""

    batchwise = True

    def __init__(self, config: KoleoConfig, goal: Spec | None) -> None:
        super().__init__()
        self.eps = config.eps

    def forward(self, left: list[Tensor], right: list[Tensor], *, pairs: list[tuple[int, int]]) -> Term:
        """One number for the whole batch, counted once for each of this rank's B rows.

        Raises:
            Mismatch: there is a right side, which would be left unread.
        """
        if right is not left:
            raise Mismatch("loss 'koleo' spreads the vectors of one side: name no paths on the right")
        loss = torch.stack([self.crowding(gather_ranks(v.float())) for v in left]).mean()
        count = torch.full((), left[0].shape[0], dtype=loss.dtype, device=loss.device)
        return Term(loss * count, count)

    def crowding(self, x: Tensor) -> Tensor:
        """(): minus the mean logarithm of the distance to the nearest other row of (B,C)."""
        x = F.normalize(x, dim=-1)
        with torch.no_grad(), without_autocast(x.device.type):
            nearest = (x @ x.T).fill_diagonal_(-2.0).argmax(1)  # below every cosine
        return -(F.pairwise_distance(x, x.index_select(0, nearest), eps=self.eps) + self.eps).log().mean()
