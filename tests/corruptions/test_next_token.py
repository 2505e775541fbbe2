"""Next tokens: targets are successors, within a document."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from encdec_train.corruptions.next_token import NextToken, NextTokenConfig
from encdec_train.rng import Rng
from encdec_train.step import Parts, Step
from encdec_train.types import Mismatch, Path, Plan, Sites, Spec, Units
from tests.texts import documents, packed, padded, view

LENGTHS = [9, 4, 12, 5]


def plan(units: Units) -> Plan:
    part = NextToken(NextTokenConfig(), view())
    return part(units, units.sites, Step({"text": units}, Parts({}), Rng(0, 0)), Path(view="text", corruption="main"))


def pairs(made: Plan) -> list[tuple[int, int]]:
    weight = made.weight.bool()
    given, wanted = made.inputs.values.flatten()[weight], made.targets.values.flatten()[weight]
    return list(zip(given.tolist(), wanted.tolist(), strict=True))


@pytest.mark.parametrize("layout", ["padded", "packed"])
def test_pairs_are_those_of_the_documents(layout: str) -> None:
    docs = documents(LENGTHS)
    units = padded(docs) if layout == "padded" else packed(docs, [[0, 1], [2], [3]], 16)
    expected = [pair for ids in docs for pair in zip(ids[:-1].tolist(), ids[1:].tolist(), strict=True)]
    made = plan(units)
    assert pairs(made) == expected
    assert made.inputs is units and made.where is None
    assert made.attend is not None and made.attend.causal


def test_a_full_row_has_one_target_less() -> None:
    units = padded(documents([8, 8]))
    assert units.sites.valid is None
    assert torch.equal(plan(units).weight.view(2, 8).sum(1), torch.tensor([7.0, 7.0]))


VALUES = Spec(kind="values", width=3, length=16, grid=(4, 4))


def values(rows: int, first: int = 0, length: int = 16, step: int = 0, *, prefix: bool = True) -> Plan:
    sample = torch.arange(first, first + rows)[:, None].expand(-1, length)
    sites = Sites(sample=sample, place=torch.arange(length).expand(rows, -1))
    units = Units(values=torch.randn(rows, length, 3), sites=sites)
    part = NextToken(NextTokenConfig(prefix=prefix), replace(VALUES, length=length))
    return part(units, sites, Step({"image": units}, Parts({}), Rng(0, step)), Path(view="image", corruption="main"))


def test_values_have_successors_in_raster_order() -> None:
    made = values(2, prefix=False)
    assert torch.equal(made.targets.values[:, :-1], made.inputs.values[:, 1:])
    assert made.weight.view(2, 16).tolist() == [[1.0] * 15 + [0.0]] * 2
    assert made.attend.prefix is None


def test_a_prefix_is_not_predicted() -> None:
    made = values(50)
    for length, weight in zip(made.attend.prefix.tolist(), made.weight.view(50, 16), strict=True):
        predicted = (weight.nonzero()[:, 0] + 1).tolist()  # site i predicts i + 1
        assert predicted == list(range(length, 16)) and 1 <= length <= 15
    assert made.attend.causal and made.where is None


def test_prefixes_are_uniform_and_the_same_in_any_batch() -> None:
    many = torch.cat([values(1000, step=step).attend.prefix for step in range(10)])
    share = many.bincount(minlength=16)[1:] / len(many)
    assert (share - 1 / 15).abs().max() < 4.5 * (1 / 15 * 14 / 15 / len(many)) ** 0.5
    assert torch.equal(values(8).attend.prefix[3:5], values(2, first=3).attend.prefix)
    assert not torch.equal(values(8, step=1).attend.prefix, values(8).attend.prefix)


def test_a_prefix_ends_before_the_padding() -> None:
    units = padded(documents([9, 4, 12, 5]))
    part = NextToken(NextTokenConfig(prefix=True), view())
    for step in range(20):
        made = part(units, units.sites, Step({"text": units}, Parts({}), Rng(0, step)), Path(view="text"))
        assert (made.weight.view(4, -1).sum(1) + made.attend.prefix).tolist() == [9, 4, 12, 5]


@pytest.mark.parametrize(
    ("prefix", "sites", "named"),
    [
        (False, Spec(kind="values", width=3), "rows of one length"),
        (False, Spec(kind="vectors", width=3, length=4, raw=VALUES), "rows of one length"),
        (True, replace(view(), docs=True), "several documents"),
        (True, view(length=32), "several documents"),
    ],
)
def test_what_has_no_successor_is_refused(prefix: bool, sites: Spec, named: str) -> None:
    with pytest.raises(Mismatch, match=named):
        NextTokenConfig(prefix=prefix).spec(sites)
