"""Points in space: centres far from each other, and the points around them."""

from __future__ import annotations

import torch
from torch import Tensor

from encdec_train.types import gather_rows


def farthest_points(points: Tensor, count: int, start: Tensor) -> Tensor:
    """(B,count) indices of points (B,P,3): each is the one farthest from all before it (Gonzalez 1985).

    Args:
        points: the rows of points.
        count: how many are taken.
        start: (B,) the first of each row.
    """
    found = [start[:, None]]
    nearest = points.new_full(points.shape[:2], torch.inf)  # squared distance to the nearest that was taken
    for _ in range(count - 1):
        taken = gather_rows(points, found[-1])  # (B,1,3)
        nearest = torch.minimum(nearest, (points - taken).square().sum(-1))
        found.append(nearest.argmax(1, keepdim=True))
    return torch.cat(found, 1)


def neighbours(points: Tensor, centres: Tensor, count: int) -> Tensor:
    """(B,N,count) indices of the points (B,P,3) nearest to the centres (B,N,3), the nearest first."""
    return squared_distances(centres, points).topk(count, dim=2, largest=False).indices


def squared_distances(left: Tensor, right: Tensor) -> Tensor:
    """(B,N,3) and (B,P,3) -> (B,N,P); not by products, which round close points to one."""
    return (left[:, :, None] - right[:, None]).square().sum(-1)
