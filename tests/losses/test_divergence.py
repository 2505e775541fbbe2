"""Divergence against torch."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import Categorical, kl_divergence

from encdec_train.losses.divergence import Divergence, DivergenceConfig
from encdec_train.types import Goal, Mismatch, Spec


def test_several_distributions_are_averaged() -> None:
    p, q = torch.randn(2, 5, 3, 4).softmax(-1)
    expected = kl_divergence(Categorical(probs=p), Categorical(probs=q)).mean(1)
    rows = Divergence(DivergenceConfig(), None)(q.log().flatten(1), Goal(values=p.flatten(1)))
    torch.testing.assert_close(rows, expected)


def test_what_has_no_probability_costs_nothing() -> None:
    p, q = torch.tensor([[0.25, 0.75, 0.0]]), torch.randn(1, 2).log_softmax(-1).requires_grad_()
    log = torch.cat([q, torch.full((1, 1), torch.finfo(torch.float32).min)], 1)
    rows = Divergence(DivergenceConfig(), None)(log, Goal(values=p))
    torch.testing.assert_close(rows, (p[:, :2] * (p[:, :2].log() - q)).sum(-1))
    rows.sum().backward()
    torch.testing.assert_close(q.grad, -p[:, :2])


def test_trivial_is_the_best_constant() -> None:
    p, weight = torch.randn(50, 6).softmax(-1), torch.rand(50)
    goal, loss = Goal(values=p, weight=weight), Divergence(DivergenceConfig(), None)
    name, value = loss.trivial(goal)
    assert name == "mean"
    mean = (p * weight[:, None]).sum(0) / weight.sum()

    def of(constant: torch.Tensor) -> float:
        return float((loss(constant.log().expand_as(p), goal) * weight).sum() / weight.sum())

    assert float(value) == pytest.approx(of(mean), abs=1e-5)
    assert of((mean + 0.02 * torch.rand(6)).log().softmax(0)) > float(value)


def test_check() -> None:
    four = Spec(kind="chances", width=4)
    DivergenceConfig().check(four, four)
    with pytest.raises(Mismatch, match="3 log probabilities against 4"):
        DivergenceConfig().check(Spec(kind="vectors", width=3), four)
    with pytest.raises(Mismatch, match="needs probabilities"):
        DivergenceConfig().check(four, Spec(kind="values", width=4))
