"""Two processes with half of a batch each: what a loss on vectors must give on both together."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

RANK = """
import sys, torch, torch.distributed as dist
folder, rank = sys.argv[1], int(sys.argv[2])
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
loss, left, right, pairs = torch.load(f"{folder}/given.pt", weights_only=False)
left = [v.chunk(2)[rank].clone().requires_grad_() for v in left]
right = left if right is None else [v.chunk(2)[rank].clone().requires_grad_() for v in right]
term = loss(left, right, pairs=pairs)
total = torch.stack([term.sum.detach(), term.count])
dist.all_reduce(total)
gradients = torch.autograd.grad(term.sum / total[1], left if right is left else left + right, allow_unused=True)
torch.save((total, gradients, loss.state_dict()), f"{folder}/{rank}.pt")
dist.barrier()
dist.destroy_process_group()
"""


def check_two_ranks(
    folder: Path,
    loss: nn.Module,
    left: list[Tensor],
    right: list[Tensor] | None = None,
    pairs: tuple[tuple[int, int], ...] = ((0, 1),),
) -> None:
    """Sums, counts, gradients and what the loss remembers are those of one process with all rows.

    Args:
        folder: an empty one.
        loss: a module; the ranks and the one process get copies of it.
        left: (B,C) vectors, B even.
        right: none: the left ones among themselves.
        pairs: indices that are to agree.
    """
    if not dist.is_available():
        pytest.skip("torch without torch.distributed")
    torch.save((loss, left, right, list(pairs)), folder / "given.pt")
    root = Path(__file__).parents[1]  # where a module of the tests is found
    ranks = [subprocess.Popen([sys.executable, "-c", RANK, str(folder), str(rank)], cwd=root) for rank in range(2)]
    assert [process.wait(timeout=120) for process in ranks] == [0, 0]
    totals, gradients, states = zip(*(torch.load(folder / f"{rank}.pt") for rank in range(2)), strict=True)

    whole = copy.deepcopy(loss)
    left = [v.clone().requires_grad_() for v in left]
    right = left if right is None else [v.clone().requires_grad_() for v in right]
    term = whole(left, right, pairs=list(pairs))
    inputs = left if right is left else left + right
    for total in totals:
        torch.testing.assert_close(total, torch.stack([term.sum.detach(), term.count]))
    for i, expected in enumerate(torch.autograd.grad(term.mean, inputs, allow_unused=True)):
        halves = [gradients[rank][i] for rank in range(2)]
        if expected is None:
            assert halves == [None, None]
        else:
            torch.testing.assert_close(torch.cat(halves), expected)
    for state in states:
        torch.testing.assert_close(state, whole.state_dict())
