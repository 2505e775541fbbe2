"""Rows of all ranks, with gradient: what a loss over the global batch needs."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def world() -> tuple[int, int]:
    """This process's rank and the number of processes; (0, 1) without torch.distributed."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def gather_ranks(x: Tensor) -> Tensor:
    """(B,...) of every rank -> (world * B,...), in the order of ranks.

    The gradient of a rank's rows is the sum of what all ranks ask of them. Every rank must have the same B.
    """
    return x if world()[1] == 1 else _Gather.apply(x)


def sum_ranks(x: Tensor) -> Tensor:
    """The sum of `x` over all ranks, with gradient."""
    return x if world()[1] == 1 else gather_ranks(x[None]).sum(0)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        out = x.new_empty(world()[1] * x.shape[0], *x.shape[1:])
        dist.all_gather_into_tensor(out, x.contiguous())
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        rank, size = world()
        total = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total.chunk(size)[rank]
