"""Glimpses against their definition."""

from __future__ import annotations

import pytest
import torch

from encdec_train.corruptions.glimpses import Glimpses, GlimpsesConfig
from encdec_train.embedders.ids import Ids, IdsConfig
from encdec_train.rng import Rng
from encdec_train.step import Parts, Step
from encdec_train.types import Mismatch, Path, Plan, Units
from tests.texts import documents, padded, view


def plan_of(units: Units, hide: float = 0.7, step: int = 0) -> Plan:
    text, embedder = view(), IdsConfig(width=8)
    part = Glimpses(GlimpsesConfig(hide=hide), embedder.spec(text))
    parts = Parts({"embedder": {"main": Ids(embedder, text, mask=False)}, "corruption": {"main": part}})
    return Step({"text": units}, parts, Rng(1, step)).plan(Path(view="text", corruption="main", encoder=None))


def test_share_itself_and_special_tokens() -> None:
    units = padded(documents([60] * 20))
    plan = plan_of(units)
    seen = plan.attend.seen
    assert seen.shape == (20, 60, 60)
    assert not seen.diagonal(dim1=1, dim2=2).any()
    assert seen[:, 1:, 0].all() and seen[:, :-1, -1].all()
    inner = seen[:, :, 1:-1].float().sum() / (20 * 58 * 59)
    assert inner.item() == pytest.approx(0.3, abs=4 * (0.21 / (20 * 58 * 59)) ** 0.5)
    assert not torch.equal(seen[0, 5], seen[0, 6])


def test_all_ordinary_tokens_are_predicted() -> None:
    units = padded(documents([12, 7]))
    plan = plan_of(units)
    assert plan.inputs is units and plan.where is None
    assert plan.weight.view(2, 12).sum(1).tolist() == [10, 5]


def test_a_row_gets_the_same_alone_and_in_a_batch() -> None:
    docs = documents([12, 30, 7])
    together, alone = plan_of(padded(docs)).attend.seen, plan_of(padded(docs[:1])).attend.seen
    assert torch.equal(together[0, :12, :12], alone[0])
    assert not torch.equal(plan_of(padded(docs), step=1).attend.seen, together)


def test_range() -> None:
    with pytest.raises(Mismatch, match="not between 0 and 1"):
        GlimpsesConfig(hide=1.0).spec(IdsConfig(width=8).spec(view()))
