"""Bags of words against sets."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from encdec_train.data.example import Example, collate
from encdec_train.rng import Rng
from encdec_train.step import Parts, Step
from encdec_train.targets.bag_of_words import BagOfWords, BagOfWordsConfig
from encdec_train.types import Mismatch, Path, Plan, Spec
from tests.texts import WORDS, fixed, view

ROWS = ([2, 7, 9, 7, 11, 3], [2, 8, 3], [2, 3])


def test_equal_shares_of_what_occurs() -> None:
    examples = []
    for key, row in enumerate(ROWS):
        ids = torch.tensor(row)
        examples.append({"text": Example(values=ids, sample=key, fixed=fixed(ids), max_len=6)})
    units = collate(examples)["text"]
    sites = replace(view(), kind="vectors", width=8, raw=view())
    step = Step({"text": units}, Parts({}), Rng(0))
    goal = BagOfWords(BagOfWordsConfig(), sites)(step, Path(view="text"), Plan(inputs=units, sites=units.sites))
    expected = torch.zeros(3, WORDS.size)
    expected[0, [7, 9, 11]] = 1 / 3
    expected[1, 8] = 1
    torch.testing.assert_close(goal.values, expected)
    assert goal.weight.tolist() == [1, 1, 0]


def test_needs_ids() -> None:
    with pytest.raises(Mismatch, match="rows of ids"):
        BagOfWordsConfig().spec(Spec(kind="vectors", width=8, raw=Spec(kind="values", width=3)))
