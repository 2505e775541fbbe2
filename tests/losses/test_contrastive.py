"""Equation 3 against cross-entropy over cosine similarities."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from encdec_train.losses.contrastive import Contrastive, ContrastiveConfig, similarities
from encdec_train.types import Goal, Mismatch, Spec


def values(width):
    return Spec(kind="values", width=width)


def test_equals_cross_entropy_over_cosines():
    torch.manual_seed(0)
    predicted, true = torch.randn(6, 5), torch.randn(6, 5)
    negatives = (torch.arange(6)[:, None] + torch.tensor([1, 2, 4])) % 6
    loss = Contrastive(ContrastiveConfig(temperature=0.2), values(5))(predicted, Goal(values=true, negatives=negatives))
    choices = torch.cat([true[:, None], true[negatives]], 1)  # (6,4,5)
    logits = F.cosine_similarity(predicted[:, None], choices, dim=-1) / 0.2
    torch.testing.assert_close(loss, F.cross_entropy(logits, torch.zeros(6, dtype=torch.long), reduction="none"))


def test_without_cosines_it_is_cross_entropy_over_dot_products():
    torch.manual_seed(0)
    predicted, true = torch.randn(6, 5), torch.randn(6, 5)
    negatives = (torch.arange(6)[:, None] + torch.tensor([1, 2, 4])) % 6
    config = ContrastiveConfig(temperature=1.0, cosine=False)
    loss = Contrastive(config, values(5))(predicted, Goal(values=true, negatives=negatives))
    logits = torch.einsum("mc,mqc->mq", predicted, torch.cat([true[:, None], true[negatives]], 1))
    torch.testing.assert_close(loss, F.cross_entropy(logits, torch.zeros(6, dtype=torch.long), reduction="none"))


def test_a_rows_own_index_is_no_negative():
    predicted, true = torch.randn(3, 5), torch.randn(3, 5)
    loss = Contrastive(ContrastiveConfig(), values(5))
    some = loss(predicted, Goal(values=true, negatives=torch.tensor([[1, 0], [1, 1], [2, 0]])))
    less = loss(predicted, Goal(values=true, negatives=torch.tensor([[1], [1], [0]])))
    torch.testing.assert_close(some, less)
    assert some[1] == 0


def test_chance_is_the_log_of_the_choices():
    same = torch.ones(4, 5)
    loss = Contrastive(ContrastiveConfig(), values(5))(
        same, Goal(values=same, negatives=torch.tensor([[1, 2, 3]]).expand(4, -1).clone())
    )
    assert loss[0].item() == pytest.approx(math.log(4), abs=1e-5)


def test_gradients_are_finite_where_nothing_is_left():
    predicted = torch.randn(2, 5, requires_grad=True)
    goal = Goal(values=torch.zeros(2, 5), negatives=torch.tensor([[0, 0], [1, 1]]))
    Contrastive(ContrastiveConfig(), values(5))(predicted, goal).sum().backward()
    assert predicted.grad.isfinite().all()


def test_both_ways_to_the_similarities_agree():
    torch.manual_seed(0)
    left, right = torch.randn(50, 3), torch.randn(50, 3)
    few, many = torch.randint(0, 50, (50, 4)), torch.randint(0, 50, (50, 40))
    for index in (few, many):
        expected = (left[:, None] * right[index]).sum(-1)
        torch.testing.assert_close(similarities(left, right, index), expected)


def test_what_does_not_fit_is_named():
    with pytest.raises(Mismatch, match="gives 4 values, the target has 5"):
        ContrastiveConfig().check(values(4), replace(values(5), negatives=2))
    with pytest.raises(Mismatch, match="gives ids"):
        ContrastiveConfig().check(values(4), Spec(kind="ids", width=4))
    with pytest.raises(Mismatch, match="temperature"):
        ContrastiveConfig(temperature=0.0).check(values(4), values(4))
    with pytest.raises(Mismatch, match="needs negatives, the target gives none"):
        ContrastiveConfig().check(values(4), values(4))
    with pytest.raises(ValueError, match="needs negatives"):
        Contrastive(ContrastiveConfig(), values(5))(torch.randn(2, 5), Goal(values=torch.randn(2, 5)))
