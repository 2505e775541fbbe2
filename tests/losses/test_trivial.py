"""Trivial predictors: each is what its name says, and no constant prediction does better."""

import math

import pytest
import torch

from encdec_train.losses.contrastive import Contrastive, ContrastiveConfig
from encdec_train.losses.cross_entropy import CrossEntropy, CrossEntropyConfig
from encdec_train.losses.hinge import Hinge, HingeConfig
from encdec_train.losses.mse import Mse, MseConfig
from encdec_train.losses.scaled_cosine import ScaledCosine, ScaledCosineConfig
from encdec_train.types import Goal, join_goals

WEIGHT = torch.tensor([1.0, 1, 1, 1, 1, 0])


def weighted(rows):
    return (rows.double() * WEIGHT.double()).sum() / WEIGHT.sum()


def best_constant(loss, goal, start):
    """The least loss of one prediction for all rows, by gradient descent."""
    x = start.clone().requires_grad_()
    optimizer = torch.optim.LBFGS([x], max_iter=200, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        value = weighted(loss(x.expand(len(WEIGHT), -1), goal))
        value.backward()
        return value

    optimizer.step(closure)
    return float(closure().detach())


def test_mean_squared_error():
    goal = Goal(values=torch.randn(6, 3), weight=WEIGHT)
    name, value = Mse(MseConfig(), None).trivial(goal)
    assert name == "mean"
    assert float(value) == pytest.approx(best_constant(Mse(MseConfig(), None), goal, torch.zeros(1, 3)), rel=1e-5)


def test_cross_entropy():
    goal = Goal(values=torch.tensor([0, 2, 2, 1, 2, 3]), weight=WEIGHT)
    loss = CrossEntropy(CrossEntropyConfig(), None)
    name, value = loss.trivial(goal)
    assert name == "unigram"
    assert float(value) == pytest.approx(-(0.6 * math.log(0.6) + 0.4 * math.log(0.2)))


def test_contrastive():
    negatives = torch.tensor([[1, 2], [0, 1], [0, 1], [0, 1], [0, 1], [0, 1]])  # the second row has one of its own
    goal = Goal(values=torch.randn(6, 3), negatives=negatives, weight=WEIGHT)
    loss = Contrastive(ContrastiveConfig(), None)
    name, value = loss.trivial(goal)
    assert name == "uniform"
    assert float(value) == pytest.approx((4 * math.log(3) + math.log(2)) / 5)
    same = Goal(values=torch.ones(6, 3), negatives=negatives, weight=WEIGHT)
    assert float(weighted(loss(torch.ones(6, 3), same))) == pytest.approx(float(value))


def test_scaled_cosine():
    goal = Goal(values=torch.randn(6, 3), weight=WEIGHT)
    loss = ScaledCosine(ScaledCosineConfig(gamma=1.0), None)
    name, value = loss.trivial(goal)
    assert name == "mean direction"
    assert float(value) == pytest.approx(best_constant(loss, goal, torch.ones(1, 3)), rel=1e-4)


def test_hinge_of_both_labels():
    goal = Goal(values=torch.tensor([[1.0], [0.0], [1.0]]))
    rows = Hinge(HingeConfig(), None)(torch.tensor([[0.25], [0.25], [3.0]]), goal)
    torch.testing.assert_close(rows, torch.tensor([0.75, 1.25, 0.0]))


def test_joined_goals_keep_their_negatives():
    one = Goal(values=torch.arange(2), negatives=torch.tensor([[1], [0]]))
    both = join_goals([one, Goal(values=torch.arange(2, 4), negatives=torch.tensor([[1], [0]]))])
    assert both.values.tolist() == [0, 1, 2, 3]
    assert both.negatives.tolist() == [[1], [0], [3], [2]]
    assert both.weight.tolist() == [1, 1, 1, 1]
