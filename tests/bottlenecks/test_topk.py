"""The sparse autoencoder against its equations."""

import pytest
import torch
import torch.nn.functional as F

from encdec_train.bottlenecks.topk import Topk, TopkConfig
from encdec_train.rng import Rng
from encdec_train.types import Mismatch, Sites, Spec, Tokens

UPSTREAM = Spec(kind="vectors", width=6)


def made(**config):
    torch.manual_seed(0)
    part = Topk(TopkConfig(**{"latents": 20, "k": 3, "dead_k": 4, "dead_after": 25, **config}), UPSTREAM)
    with torch.no_grad():
        for parameter in part.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return part


def tokens(rows=4, n=5, valid=None):
    sites = Sites(sample=torch.zeros(rows, n).long(), place=torch.arange(n).expand(rows, n), valid=valid)
    return Tokens(x=torch.randn(rows, n, 6), sites=sites)


def dense(part, x):
    return (x - part.centre) @ part.encode.T + part.threshold


def test_a_site_is_the_sum_of_its_largest_latents():
    part, given = made().eval(), tokens()
    found, latents = part(given, Rng(0, 0)), dense(part, given.x)
    for row in range(4):
        for site in range(5):
            order = latents[row, site].argsort(descending=True)[:3]
            directions = part.decode[order] / part.decode[order].norm(dim=1, keepdim=True)
            there = (latents[row, site, order].relu()[:, None] * directions).sum(0) + part.centre
            torch.testing.assert_close(found.x[row, site], there)
            assert set(found.codes[row, site].tolist()) == set(order.tolist())
    assert found.aux is None


def test_it_starts_with_a_dictionary_of_unit_directions_tied_to_the_encoder():
    part = Topk(TopkConfig(latents=20, k=3, dead_k=4), UPSTREAM)
    torch.testing.assert_close(part.decode.norm(dim=1), torch.ones(20))
    assert torch.equal(part.decode, part.encode)


def test_idle_latents_are_counted_in_real_sites():
    valid = torch.ones(4, 5, dtype=torch.bool)
    valid[0, 3:] = False
    part, given = made(), tokens(valid=valid)
    latents = dense(part, given.x)
    which = latents.topk(3, dim=-1)
    active = which.indices[(which.values > 0) & valid[..., None]].unique()
    part(given, Rng(0, 0))
    there = torch.full((20,), 18)
    there[active] = 0
    assert torch.equal(part.idle, there)
    part.eval()(given, Rng(0, 0))
    with torch.no_grad():
        part.train()(given, Rng(0, 0))
    assert torch.equal(part.idle, there)


def test_dead_latents_learn_from_what_is_left_over():
    part, given = made(), tokens()
    part.idle[10:] = 100
    with torch.no_grad():
        part.threshold[10:] -= 20  # they stay dead
    found = part(given, Rng(0, 0))
    rest = (given.x - found.x).detach()
    latents = dense(part, given.x)[..., 10:]
    values, order = latents.topk(4, dim=-1)
    directions = F.normalize(part.decode[10:], dim=1)[order]
    there = ((values.relu()[..., None] * directions).sum(-2) - rest).square().mean()
    term = found.aux["dead"]
    torch.testing.assert_close(term.mean, there)
    assert term.weight == pytest.approx(1 / 32)


def test_without_dead_latents_there_is_nothing_to_learn():
    part = made()
    term = part(tokens(), Rng(0, 0)).aux["dead"]
    assert term.mean == 0
    term.mean.backward()
    assert torch.isfinite(part.encode.grad).all()


def test_only_the_direction_of_a_dictionary_entry_counts():
    part, given = made().eval(), tokens()
    before = part(given, Rng(0, 0)).x
    with torch.no_grad():
        part.decode.mul_(torch.rand(20, 1) + 0.5)
    torch.testing.assert_close(part(given, Rng(0, 0)).x, before)


def test_what_does_not_fit_is_named():
    with pytest.raises(Mismatch, match="k: 30 is not within 1 to 20"):
        TopkConfig(latents=20, k=30, dead_k=2).spec(UPSTREAM)
    with pytest.raises(Mismatch, match="too small"):
        TopkConfig(dead_after=0).spec(UPSTREAM)
