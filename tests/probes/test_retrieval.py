"""Recall at 1 on vectors whose neighbours are known."""

from types import SimpleNamespace

import pytest
import torch

from encdec_train.probes.retrieval import Retrieval, RetrievalConfig, recall
from encdec_train.types import Mismatch


def test_partners_are_found_whatever_their_length():
    left = torch.eye(4)
    assert recall(left, 3 * left) == 1.0
    assert recall(left, left.roll(1, 0)) == 0.0


def test_both_directions_count():
    left = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    right = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    # to the right all but the third find theirs; to the left the third finds the second
    assert recall(left, right) == pytest.approx((2 / 3 + 2 / 3) / 2)


def test_an_objective_without_two_sides_is_refused():
    frozen = SimpleNamespace(config=SimpleNamespace(objective={"main": object()}))
    for name in ("main", "mian"):
        with pytest.raises(Mismatch, match="two sides"):
            Retrieval(RetrievalConfig(objective=name))(frozen)
