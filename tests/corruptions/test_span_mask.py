"""Span masking against its definition."""

import math

import pytest
import torch

from encdec_train.corruptions.span_mask import SpanMask, SpanMaskConfig
from encdec_train.rng import Rng
from encdec_train.step import Parts, Step
from encdec_train.types import Mismatch, Path, Sites, Spec, Units

PATH = Path(corruption="main")


def make_sites(rows, n, lengths=None, first=0):
    place = torch.arange(n).expand(rows, -1)
    valid = None if lengths is None else place < torch.tensor(lengths)[:, None]
    return Sites(sample=(first + torch.arange(rows))[:, None].expand(-1, n), place=place, valid=valid)


def make_plan(sites, seed=0, step=0, **config):
    part = SpanMask(SpanMaskConfig(**config), Spec(kind="vectors", width=4, length=sites.n))
    units = Units(values=torch.zeros(sites.rows, sites.n, 1), sites=sites)
    return part(units, sites, Step({"main": units}, Parts({}), Rng(seed, step)), PATH)


def runs(row):
    """Lengths of the runs of True."""
    edges = torch.nn.functional.pad(row.int(), (1, 1)).diff()
    return ((edges == -1).nonzero() - (edges == 1).nonzero()).flatten().tolist()


def test_share_and_span_length_are_the_papers():
    """Section 4.2: about 49 % of the steps are masked, the mean span is 14.7 steps, of clips of 15 s."""
    plan = make_plan(make_sites(400, 750))
    share = plan.replace.float().mean().item()
    lengths = [length for row in plan.replace for length in runs(row)]
    assert share == pytest.approx(0.49, abs=0.01)
    assert sum(lengths) / len(lengths) == pytest.approx(14.7, abs=0.4)
    assert min(lengths) >= 10


def test_number_of_spans_is_unbiased():
    """Spans of one site cannot overlap, so their number is seen: p L on average, its floor or one more."""
    sites = make_sites(4000, 50)
    count = make_plan(sites, start=0.13, length=1).replace.sum(1).float()
    assert set(count.tolist()) == {6.0, 7.0}
    assert count.mean().item() == pytest.approx(0.13 * 50, abs=0.05)


def test_every_start_is_equally_likely():
    """With one span per row, where it begins is uniform over the places where it fits."""
    plan = make_plan(make_sites(20000, 14), start=0.01, length=5)
    begins = plan.replace.int().argmax(1).bincount(minlength=10)
    assert begins.shape == (10,)
    assert (begins.float() / 20000 - 0.1).abs().max() < 0.01


def test_no_row_is_left_without_a_mask_and_padding_stays():
    lengths = [1, 2, 9, 10, 11, 40]
    sites = make_sites(6, 40, lengths)
    for step in range(20):
        plan = make_plan(sites, step=step)
        assert plan.replace.any(1).all()
        assert not (plan.replace & ~sites.valid).any()
    assert plan.replace[:4].sum(1).tolist() == [1, 2, 9, 10]


def test_fixed_sites_stay():
    sites = make_sites(50, 30)
    fixed = sites.place % 7 == 0
    plan = make_plan(Sites(sample=sites.sample, place=sites.place, fixed=fixed), length=3, start=0.2)
    assert not (plan.replace & fixed).any() and plan.replace.any(1).all()


def test_where_holds_every_masked_site_once_in_order_with_fillers_last():
    sites = make_sites(8, 60, [60, 33, 20, 60, 12, 60, 60, 47])
    config = SpanMaskConfig()
    plan = make_plan(sites)
    assert plan.where.shape == plan.weight.shape == (8 * config.predicted(60),)
    rows = plan.where.view(8, -1)
    for i, (where, weight) in enumerate(zip(rows, plan.weight.view(8, -1), strict=True)):
        real = where[weight > 0] - i * 60
        assert real.tolist() == plan.mask[i].nonzero().flatten().tolist()
        assert weight.tolist() == sorted(weight.tolist(), reverse=True)
        assert ((where >= i * 60) & (where < (i + 1) * 60)).all()
    assert torch.equal(plan.mask, plan.replace)


def test_a_capacity_leaves_hidden_sites_unpredicted_at_random():
    sites = make_sites(200, 50)
    plan = make_plan(sites, capacity=0.1, start=0.1, length=10)
    assert plan.where.shape == (200 * 5,) and plan.weight.all()
    assert (plan.mask.sum(1) == 5).all() and not (plan.mask & ~plan.replace).any()
    assert (plan.replace.sum(1) >= 10).all()


def test_the_bound_is_never_exceeded():
    for n in (11, 40, 99):
        sites = make_sites(500, n)
        plan = make_plan(sites, start=0.15, length=4)
        assert plan.weight.sum() == plan.replace.sum()
        assert SpanMaskConfig(start=0.15, length=4).predicted(n) == min(n, 4 * (math.floor(0.15 * n) + 1))


def test_a_row_alone_is_masked_as_in_a_batch():
    lengths = [60, 33, 20, 60]
    together = make_plan(make_sites(4, 60, lengths), step=5)
    for i, length in enumerate(lengths):
        alone = make_plan(make_sites(1, 60, [length], first=i), step=5)
        assert torch.equal(alone.replace[0], together.replace[i])
        assert torch.equal(alone.where, together.where.view(4, -1)[i] - 60 * i)
    assert not torch.equal(make_plan(make_sites(4, 60, lengths), step=6).replace, together.replace)


@pytest.mark.parametrize(
    "config, n, text",
    [
        ({"start": 0.0}, 50, "start"),
        ({"length": 0}, 50, "length"),
        ({"capacity": 1.5}, 50, "capacity"),
        ({}, 10, "hides all of 10"),
    ],
)
def test_out_of_range(config, n, text):
    with pytest.raises(Mismatch, match=text):
        SpanMaskConfig(**config).spec(Spec(kind="vectors", width=4, length=n))


def test_packed_rows_are_refused():
    sites = make_sites(1, 20)
    with pytest.raises(ValueError, match="packed"):
        make_plan(Sites(sample=sites.sample, place=sites.place, doc=sites.place // 10))
