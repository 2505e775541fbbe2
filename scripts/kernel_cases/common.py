"""The nouns of the kernel scripts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

Inputs = tuple[Tensor, ...]
ALL = (torch.float32, torch.float16, torch.bfloat16)


@dataclass(frozen=True, kw_only=True)
class Check:
    """One input of an operation, for the kernel and for its twin; gradients of what requires one are compared too."""

    name: str
    inputs: Callable[[torch.dtype, torch.device], Inputs]  # the same numbers, rounded to the dtype, every time
    kernel: Callable[..., Inputs]  # inputs -> outputs
    twin: Callable[..., Inputs]  # the same in torch, in any dtype: float64 is the truth, the same dtype the yardstick
    dtypes: tuple[torch.dtype, ...] = ALL
    exact: bool = False  # equal bit for bit (masks), not within twice the twin's error


@dataclass(frozen=True, kw_only=True)
class Goal:
    """Ours is to be `times` as fast as `against`, or to take at most `memory` times its peak memory."""

    against: str
    times: float | None = None
    memory: float | None = None


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Sides that do the same work on the same inputs, timed in turns; `ours` is one of them."""

    name: str
    prepare: Callable[[torch.device], dict[str, Callable[[], object]]]  # side -> one call of it
    goals: tuple[Goal, ...] = ()
    flops: float = 0.0  # of one call, for the rate; 0: not told


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """A row of an operation's table: the candidates of each kernel and how one set of them is timed."""

    op: str
    dtype: torch.dtype
    size: int
    length: int
    candidates: dict[str, list[dict[str, int]]] = field(default_factory=dict)  # kernel -> tile sizes and warps
    prepare: Callable[[torch.device], Callable[[], object]]  # a call that reads the table as it then is
