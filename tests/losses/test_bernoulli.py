"""The Bernoulli likelihood against torch.distributions."""

import pytest
import torch
from torch.distributions import Bernoulli as There

from encdec_train.losses.bernoulli import Bernoulli, BernoulliConfig
from encdec_train.types import Goal, Mismatch, Spec


def test_binary_values_have_the_likelihood_of_torch():
    logits, values = torch.randn(7, 4), (torch.rand(7, 4) < 0.5).float()
    found = Bernoulli(BernoulliConfig(), None)(logits, Goal(values=values))
    torch.testing.assert_close(found, -There(logits=logits).log_prob(values).mean(-1))


def test_grey_values_are_the_cross_entropy():
    logits, values = torch.randn(7, 4), torch.rand(7, 4)
    chance = logits.sigmoid()
    there = -(values * chance.log() + (1 - values) * (1 - chance).log()).mean(-1)
    torch.testing.assert_close(Bernoulli(BernoulliConfig(), None)(logits, Goal(values=values)), there)


def test_the_trivial_loss_is_least_among_constants():
    values, weight = torch.rand(50, 3), torch.rand(50)
    loss = Bernoulli(BernoulliConfig(), None)
    _, trivial = loss.trivial(Goal(values=values, weight=weight))
    best = (values * weight[:, None]).sum(0) / weight.sum()
    rows = loss(best.logit().expand(50, 3), Goal(values=values))
    assert float(trivial) == pytest.approx(float((rows * weight).sum() / weight.sum()), rel=1e-5)


def test_what_does_not_fit_is_named():
    with pytest.raises(Mismatch, match="4 logits against 5 values"):
        BernoulliConfig().check(Spec(kind="vectors", width=4), Spec(kind="values", width=5))
    with pytest.raises(Mismatch, match="gives ids"):
        BernoulliConfig().check(Spec(kind="vectors", width=4), Spec(kind="ids", width=4))
