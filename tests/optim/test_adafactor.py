"""Adafactor's step against its equations."""

from __future__ import annotations

import pytest
import torch

from encdec_train.optim.adafactor import Adafactor, AdafactorConfig


@pytest.mark.parametrize("step,expected", [(100, 0.01), (10_000, 0.01), (40_000, 0.005)])
def test_the_rate_is_that_of_t5(step: int, expected: float) -> None:
    """A constant rate of 0.01 moves a weight by 1 / sqrt(max(step, 10^4)) of its own root mean square."""
    weight = torch.nn.Parameter(torch.full((8, 4), 2.0))
    optimizer = Adafactor(AdafactorConfig())([{"params": [weight]}])
    weight.grad = torch.full_like(weight, 3.0)
    optimizer.step()
    optimizer.state[weight]["step"].fill_(float(step - 1))
    optimizer.state[weight]["row_var"].fill_(9.0)
    optimizer.state[weight]["col_var"].fill_(9.0)
    before = weight.detach().clone()
    optimizer.step()
    moved = (before - weight.detach()).mean() / before.mean()  # the update itself is 1: gradient / its own size
    assert moved.item() == pytest.approx(expected, rel=1e-3)


def test_matrices_are_factored() -> None:
    weight = torch.nn.Parameter(torch.randn(8, 4))
    optimizer = Adafactor(AdafactorConfig())([{"params": [weight]}])
    weight.grad = torch.randn_like(weight)
    optimizer.step()
    sizes = {name: tuple(value.shape) for name, value in optimizer.state[weight].items()}
    assert sizes["row_var"] == (8, 1) and sizes["col_var"] == (1, 4)
