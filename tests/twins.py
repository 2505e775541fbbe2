"""What the tests of kernels that draw have in common."""

from __future__ import annotations

import torch

from encdec_train.kernels.backend import Backend, using
from encdec_train.rng import Rng


def rng(step=8):
    return Rng(3, torch.tensor(step))


def twice(make):
    """By the kernel and by the twin: same numbers, types and shapes. Returns them."""
    plain = make()
    with using(backend=Backend.triton, strict=True):
        kernel = make()
    sides = [side if isinstance(side, tuple) else (side,) for side in (plain, kernel)]
    for one, other in zip(*sides, strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)
    return plain
