import copy
import sys

import pytest
import torch

from encdec_train.optim.groups import decay_groups
from encdec_train.optim.lars import Lars, LarsConfig
from encdec_train.types import Mismatch


def test_three_steps_equal_the_papers_equations():
    """Local rate eta |w| / (|g| + decay |w|) for matrices; plain momentum, without decay, for vectors."""
    pytest.importorskip("pytorch_optimizer")
    torch.manual_seed(0)
    matrix, vector = torch.nn.Parameter(torch.randn(4, 3)), torch.nn.Parameter(torch.randn(4))
    named = [("matrix", matrix), ("vector", vector)]
    optimizer = Lars(LarsConfig(lr=0.5, trust=0.02, momentum=0.8))(decay_groups(named, 0.1))
    w, b = matrix.detach().clone(), vector.detach().clone()
    moving_w, moving_b = torch.zeros_like(w), torch.zeros_like(b)
    for _ in range(3):
        g_w, g_b = torch.randn(4, 3), torch.randn(4)
        matrix.grad, vector.grad = g_w.clone(), g_b.clone()
        optimizer.step()
        local = 0.02 * w.norm() / (g_w.norm() + 0.1 * w.norm())
        moving_w = 0.8 * moving_w + local * (g_w + 0.1 * w)
        moving_b = 0.8 * moving_b + g_b
        w, b = w - 0.5 * moving_w, b - 0.5 * moving_b
        torch.testing.assert_close(matrix.detach(), w)
        torch.testing.assert_close(vector.detach(), b)


def test_its_state_is_saved_and_restored():
    pytest.importorskip("pytorch_optimizer")

    def steps(optimizer, weight, count):
        for i in range(count):
            weight.grad = torch.full_like(weight, i + 1.0)
            optimizer.step()

    def build(start):
        weight = torch.nn.Parameter(start.clone())
        return weight, Lars(LarsConfig(lr=0.5))(decay_groups([("w", weight)], 0.1))

    start = torch.randn(3, 3)
    one, first = build(start)
    steps(first, one, 2)
    two, second = build(one.detach())
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    steps(first, one, 2)
    steps(second, two, 2)
    assert torch.equal(one, two)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pytorch_optimizer", None)
    with pytest.raises(Mismatch, match="encdec-train\\[optim\\]"):
        Lars(LarsConfig())([{"params": [torch.nn.Parameter(torch.zeros(2, 2))]}])
