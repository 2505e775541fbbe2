"""Drawn tokens against the softmax that they are drawn from."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from encdec_train.corruptions.sampled import Sampled, SampledConfig
from encdec_train.embedders.ids import Ids, IdsConfig
from encdec_train.kernels.masking import fill
from encdec_train.rng import Rng
from encdec_train.step import Parts, Step
from encdec_train.types import Mismatch, Path, Plan, Spec, Units
from tests.texts import WORDS, documents, packed, padded, unpack, view

LENGTHS = [12, 30, 7, 20, 18, 3]
ROWS = [[0, 3, 5], [1, 2], [4]]


class Guess(nn.Module):
    """An objective that predicts every third open site of a document, with scores that depend on its place."""

    def predict(self, step: Step) -> tuple[Tensor, Plan, None]:
        units = step.units("text")
        picked = (units.sites.place % 3 == 1) & units.sites.open()
        mask, where, weight = fill(picked, 60)
        plan = Plan(inputs=units, sites=units.sites, mask=mask, where=where, weight=weight)
        table = torch.randn(256, WORDS.size, generator=torch.Generator().manual_seed(1), requires_grad=True)
        return table[units.sites.place.flatten()[where]], plan, None


def plan_of(units: Units, *, step: int = 0, **changes: float) -> Plan:
    text, embedder, config = view(), IdsConfig(width=8), SampledConfig(of="guess", **changes)
    parts = Parts(
        {
            "embedder": {"main": Ids(embedder, text, mask=False)},
            "corruption": {"main": Sampled(config, embedder.spec(text))},
            "objective": {"guess": Guess()},
        }
    )
    return Step({"text": units}, parts, Rng(1, step)).plan(Path(view="text", corruption="main", encoder=None))


def test_only_the_predicted_sites_are_written() -> None:
    units = padded(documents(LENGTHS))
    plan = plan_of(units)
    asked = (units.sites.place % 3 == 1) & units.sites.open()
    assert torch.equal(plan.inputs.values[~asked], units.values[~asked])
    assert (plan.inputs.values[asked] != units.values[asked]).float().mean() > 0.5
    assert plan.where is None
    assert torch.equal(plan.weight, units.sites.real().flatten().float())


def test_frequencies_are_the_softmax() -> None:
    config = SampledConfig(temperature=2.0)
    part = Sampled(config, IdsConfig(width=8).spec(view()))
    scores = torch.randn(6, generator=torch.Generator().manual_seed(0)) * 2
    count = 40000
    drawn = part.draw(scores.expand(count, -1), Rng(0), "t", torch.arange(count), torch.zeros(count, dtype=torch.int64))
    found = torch.bincount(drawn, minlength=6) / count
    torch.testing.assert_close(found, (scores / 2.0).softmax(0), atol=4 * 0.5 / count**0.5, rtol=0)


def test_a_document_gets_the_same_draws_alone_and_packed() -> None:
    docs = documents(LENGTHS)
    alone, together = padded(docs), packed(docs, ROWS, 40)
    first, second = plan_of(alone), plan_of(together)
    read = unpack(second.inputs.values, together, ROWS)
    for key, ids in enumerate(docs):
        assert torch.equal(read[key], first.inputs.values[key, : len(ids)])


def test_steps_differ() -> None:
    units = padded(documents([200] * 3))
    assert not torch.equal(plan_of(units).inputs.values, plan_of(units, step=1).inputs.values)


def test_refuses_what_it_cannot_write() -> None:
    sites = IdsConfig(width=8).spec(view())
    with pytest.raises(Mismatch, match="temperature: 0"):
        SampledConfig(temperature=0.0).spec(sites)
    with pytest.raises(Mismatch, match="writes ids"):
        SampledConfig().spec(Spec(kind="vectors", width=8, raw=Spec(kind="values", width=3)))
