"""Replaced tokens against a comparison by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from encdec_train.rng import Rng
from encdec_train.step import Parts, Step
from encdec_train.targets.replaced import Replaced, ReplacedConfig
from encdec_train.types import Mismatch, Path, Plan, Spec
from tests.texts import documents, padded, view


def test_flags() -> None:
    units = padded(documents([5, 4]))
    ids = units.values.clone()
    ids[0, 2] += 1
    ids[1, 1] += 1
    sites = replace(view(), kind="vectors", width=8, raw=view())
    config = ReplacedConfig()
    assert (config.spec(sites).kind, config.spec(sites).width) == ("values", 1)
    weight = units.sites.real().flatten().float()
    plan = Plan(inputs=replace(units, values=ids), sites=units.sites, weight=weight)
    step, part = Step({"text": units}, Parts({}), Rng(0)), Replaced(config, sites)
    goal = part(step, Path(view="text"), plan)
    assert goal.values.tolist() == [[0], [0], [1], [0], [0], [0], [1], [0], [0], [0]]
    assert goal.weight is weight
    some = part(step, Path(view="text"), replace(plan, where=torch.tensor([2, 3])))
    assert some.values.tolist() == [[1], [0]]


def test_needs_the_sites_of_the_view() -> None:
    units, more = (padded(documents([n, 4])) for n in (5, 6))
    step, path = Step({"text": units}, Parts({}), Rng(0)), Path(view="text")
    with pytest.raises(Mismatch, match="has 5, the plan 6"):
        Replaced(ReplacedConfig(), view())(step, path, Plan(inputs=more, sites=more.sites))


def test_needs_ids() -> None:
    with pytest.raises(Mismatch, match="compares ids"):
        ReplacedConfig().spec(Spec(kind="vectors", width=8, raw=Spec(kind="values", width=3)))
