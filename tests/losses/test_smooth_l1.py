from __future__ import annotations

import pytest
import torch

from encdec_train.losses.smooth_l1 import SmoothL1, SmoothL1Config
from encdec_train.types import Goal, Mismatch, Spec


def test_it_is_the_papers_equation() -> None:
    prediction, goal = 3 * torch.randn(7, 5), torch.randn(7, 5)
    rows = SmoothL1(SmoothL1Config(beta=2.0), None)(prediction, Goal(values=goal))
    distance = (prediction - goal).double().abs()
    expected = torch.where(distance < 2, distance**2 / 4, distance - 1).mean(1)
    torch.testing.assert_close(rows.double(), expected, rtol=1e-5, atol=1e-6)


def test_the_trivial_loss_is_that_of_the_weighted_mean() -> None:
    goal = Goal(values=torch.tensor([[0.0], [1.0], [50.0]]), weight=torch.tensor([1.0, 1.0, 0.0]))
    name, value = SmoothL1(SmoothL1Config(), None).trivial(goal)
    assert name == "mean" and value.item() == pytest.approx(0.5 * 0.25)


def test_what_does_not_fit_is_named() -> None:
    values = Spec(kind="values", width=5)
    SmoothL1Config().check(Spec(kind="vectors", width=5), values)
    with pytest.raises(Mismatch, match="predicts 4 values, the target 5"):
        SmoothL1Config().check(Spec(kind="vectors", width=4), values)
    with pytest.raises(Mismatch, match="gives ids"):
        SmoothL1Config().check(values, Spec(kind="ids", width=5))
    with pytest.raises(Mismatch, match="beta"):
        SmoothL1Config(beta=0).check(values, values)
