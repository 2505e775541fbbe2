"""Next tokens: targets are successors, within a document."""

from __future__ import annotations

import pytest
import torch

from encdec_train.corruptions.next_token import NextToken, NextTokenConfig
from encdec_train.rng import Rng
from encdec_train.step import Parts, Step
from encdec_train.types import Mismatch, Path, Plan, Spec, Units
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


def test_vectors_have_no_successor() -> None:
    with pytest.raises(Mismatch, match="predicts ids"):
        NextTokenConfig().spec(Spec(kind="values", width=3))
