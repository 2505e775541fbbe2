"""Scores of words against a loop."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from encdec_train.decoders.word_scores import WordScores, WordScoresConfig
from encdec_train.embedders.ids import IdsConfig
from encdec_train.types import Mismatch, Plan, Tokens
from tests.texts import WORDS, documents, padded, view


def test_equals_a_loop() -> None:
    units, sites = padded(documents([9, 5])), IdsConfig(width=8).spec(view())
    part = WordScores(WordScoresConfig(), sites, None, sites)
    where = torch.tensor([1, 3, 4])
    x = torch.randn(2, 9, 8)
    plan = Plan(inputs=units, sites=units.sites, where=where)
    rows = part(Tokens(x=x, sites=units.sites), None, plan).at(where)
    assert rows.shape == (2, WORDS.size)
    for row, n in enumerate((9, 5)):
        best = (x[row, 1 : n - 1] @ part.linear.weight.T).max(0).values
        torch.testing.assert_close(rows[row], best.log_softmax(-1))


def test_refuses() -> None:
    sites = IdsConfig(width=8).spec(view())
    with pytest.raises(Mismatch, match="reads all tokens"):
        WordScoresConfig().spec(replace(sites, rows="one"), None, sites)
    with pytest.raises(Mismatch, match="one document"):
        WordScoresConfig().spec(sites, None, replace(sites, docs=True))
