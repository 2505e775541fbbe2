"""Several processes with a share of a batch each must give together what one gives alone."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn

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


def forked(world: int, work: Callable[[], Any], folder: Path) -> list[Any]:
    """What `work` returns in each of `world` processes that are one process group; copies of this one, so they start
    at once."""
    store = folder / f"store{world}"
    children = []
    for rank in range(world):
        child = os.fork()
        if child == 0:
            _work(rank, world, store, work, folder)
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * world
    return [torch.load(folder / f"{world}-{rank}.pt", weights_only=False) for rank in range(world)]


def _work(rank: int, world: int, store: Path, work: Callable[[], Any], folder: Path) -> NoReturn:
    code = 1
    try:
        torch.set_num_threads(1)
        os.environ.update({"RANK": f"{rank}", "LOCAL_RANK": f"{rank}", "WORLD_SIZE": f"{world}"})
        os.environ.update({"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"})
        if world > 1:
            wait = timedelta(seconds=100)
            dist.init_process_group("gloo", f"file://{store}", rank=rank, world_size=world, timeout=wait)
        torch.save(work(), folder / f"{world}-{rank}.pt")
        if world > 1:
            dist.barrier()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)
