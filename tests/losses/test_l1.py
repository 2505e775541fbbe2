"""The mean absolute error against torch."""

import pytest
import torch
import torch.nn.functional as F

from encdec_train.losses.l1 import L1, L1Config
from encdec_train.types import Goal, Mismatch, Spec


def test_rows_are_means_of_absolute_differences():
    prediction, values = torch.randn(7, 5, requires_grad=True), torch.randn(7, 5)
    rows = L1(L1Config(), None)(prediction, Goal(values=values))
    torch.testing.assert_close(rows, F.l1_loss(prediction, values, reduction="none").mean(1))
    torch.testing.assert_close(rows.mean(), F.l1_loss(prediction, values))


def test_refuses_what_does_not_fit():
    values = Spec(kind="values", width=4)
    with pytest.raises(Mismatch, match="predicts 3 values, the target has 4"):
        L1Config().check(Spec(kind="vectors", width=3), values)
    with pytest.raises(Mismatch, match="needs values, the target gives ids"):
        L1Config().check(values, Spec(kind="ids", width=4))
    L1Config().check(values, values)


def test_the_trivial_predictor_is_the_weighted_median():
    values = torch.randn(9, 3)
    loss = L1(L1Config(), None)
    name, value = loss.trivial(Goal(values=values))
    assert name == "median"
    torch.testing.assert_close(value, (values - values.median(0).values).abs().mean().double())
    weight = torch.tensor([1.0, 0, 0, 0, 1, 1, 0, 0, 0])
    few = values[weight > 0]
    torch.testing.assert_close(
        loss.trivial(Goal(values=values, weight=weight))[1], (few - few.median(0).values).abs().mean().double()
    )
