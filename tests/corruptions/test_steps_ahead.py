"""Steps ahead: which sites are asked for, counted by hand."""

import pytest
import torch

from encdec_train.corruptions.steps_ahead import StepsAhead, StepsAheadConfig
from encdec_train.rng import Rng
from encdec_train.step import Parts, Step
from encdec_train.types import Mismatch, Path, Sites, Spec, Units

SPEC = Spec(kind="vectors", width=2, length=5)


def plan(valid=None):
    place = torch.arange(5).expand(2, -1)
    units = Units(values=torch.randn(2, 5, 2), sites=Sites(sample=place, place=place, valid=valid))
    step = Step({"main": units}, Parts({}), Rng(0))
    return StepsAhead(StepsAheadConfig(steps=2), SPEC)(units, units.sites, step, Path(corruption="main"))


def test_every_origin_is_asked_for_all_its_steps():
    found = plan()
    assert found.where.tolist() == [1, 2, 2, 3, 3, 4, 6, 7, 7, 8, 8, 9]  # sites t + 1, t + 2 of t = 0, 1, 2
    assert found.weight is None and found.attend.causal


def test_what_lies_in_the_padding_weighs_nothing():
    found = plan(torch.arange(5) < torch.tensor([[5], [3]]))
    assert found.weight.tolist() == [1] * 6 + [1, 1, 1, 0, 0, 0]


def test_the_spec_says_how_many():
    assert StepsAheadConfig(steps=2).spec(SPEC).ahead == 2


@pytest.mark.parametrize(
    "steps,changes,said",
    [
        (0, {}, "below 1"),
        (5, {}, "no site of 5 has 5 after it"),
        (2, {"docs": True}, "packed"),
        (2, {"length": 0}, "one length"),
    ],
)
def test_what_does_not_fit_is_named(steps, changes, said):
    with pytest.raises(Mismatch, match=said):
        StepsAheadConfig(steps=steps).spec(Spec(kind="vectors", width=2, **{"length": 5, **changes}))
