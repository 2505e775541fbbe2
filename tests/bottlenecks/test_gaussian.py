"""The Gaussian bottleneck against torch.distributions."""

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from encdec_train.bottlenecks.gaussian import Gaussian, GaussianConfig, divergence
from encdec_train.rng import Rng
from encdec_train.types import Mismatch, Sites, Spec, Tokens

RAW = Spec(kind="values", width=3, length=10)
UPSTREAM = Spec(kind="vectors", width=8, length=4, raw=RAW)


def tokens(rows, n=4, valid=None, first=0):
    sample = torch.arange(first, first + rows)[:, None].expand(rows, n)
    sites = Sites(sample=sample, place=torch.arange(n).expand(rows, n), valid=valid)
    x = torch.randn(100, n, 8, generator=torch.Generator().manual_seed(0))[first : first + rows]
    return Tokens(x=x, sites=sites)


def made(**config):
    torch.manual_seed(0)
    return Gaussian(GaussianConfig(width=5, **config), UPSTREAM)


def test_the_divergence_is_that_of_torch():
    mean, log_variance = torch.randn(6, 5), torch.randn(6, 5)
    there = kl_divergence(Normal(mean, (0.5 * log_variance).exp()), Normal(0.0, 1.0)).sum(-1)
    torch.testing.assert_close(divergence(mean, log_variance), there)


def test_the_term_counts_nats_for_each_raw_value_of_real_sites():
    part, valid = made(weight=0.5), torch.tensor([[True, True, False, True], [True] * 4])
    found = tokens(2, valid=valid)
    mean, log_variance = part.moments(found.x).chunk(2, -1)
    there = kl_divergence(Normal(mean, (0.5 * log_variance).exp()), Normal(0.0, 1.0)).sum(-1)
    term = part(found, Rng(0, 0)).aux["kl"]
    torch.testing.assert_close(term.mean, there[valid].sum() / (2 * 10 * 3))
    assert term.weight == 0.5


def test_draws_have_the_moments_and_eval_gives_the_mean():
    part, found = made(), tokens(3)
    mean, log_variance = part.moments(found.x).chunk(2, -1)
    draws = torch.stack([part(found, Rng(0, step)).x for step in range(4000)])
    assert ((draws.mean(0) - mean) / (0.5 * log_variance).exp()).abs().max() < 4.5 / 4000**0.5
    assert ((draws.var(0) / log_variance.exp()) - 1).abs().max() < 4.5 * (2 / 4000) ** 0.5
    torch.testing.assert_close(part.eval()(found, Rng(0, 0)).x, mean)


def test_a_row_draws_the_same_alone_and_in_a_batch():
    part = made()
    torch.testing.assert_close(part(tokens(5), Rng(1, 2)).x[3:4], part(tokens(1, first=3), Rng(1, 2)).x)


def test_what_does_not_fit_is_named():
    with pytest.raises(Mismatch, match="no fixed length"):
        GaussianConfig().spec(Spec(kind="vectors", width=8, raw=Spec(kind="values", width=3)))
    with pytest.raises(Mismatch, match="1 prefix tokens"):
        GaussianConfig().spec(Spec(kind="vectors", width=8, prefix=1, raw=RAW))
    assert GaussianConfig(width=5).spec(UPSTREAM).width == 5
