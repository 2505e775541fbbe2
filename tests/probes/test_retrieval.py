"""Recall at 1 on vectors whose neighbours are known."""

from types import SimpleNamespace

import pytest
import torch
from sklearn.metrics import ndcg_score, top_k_accuracy_score

from encdec_train.probes.retrieval import Retrieval, RetrievalConfig, ndcg, ranks, recall
from encdec_train.types import Mismatch


def test_partners_are_found_whatever_their_length():
    left = torch.eye(4)
    assert recall(ranks(left, 3 * left), 1) == 1.0
    assert recall(ranks(left, left.roll(1, 0)), 1) == 0.0


def test_both_directions_count():
    left = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    right = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    # to the right all but the third find theirs; to the left the third finds the second
    assert ranks(left, right).tolist() == [0, 0, 1]
    assert ranks(right, left).tolist() == [0, 0, 1]


def test_an_objective_without_two_sides_is_refused():
    frozen = SimpleNamespace(config=SimpleNamespace(objective={"main": object()}))
    for name in ("main", "mian"):
        with pytest.raises(Mismatch, match="two sides"):
            Retrieval(RetrievalConfig(objective=name))(frozen)


def test_ranks_and_ndcg_are_those_of_scikit_learn():
    generator = torch.Generator().manual_seed(0)
    left, right = torch.randn(30, 5, generator=generator), torch.randn(30, 5, generator=generator)
    found = ranks(left, left + right)
    for k in (1, 5, 20):
        similar = torch.nn.functional.cosine_similarity(left[:, None], (left + right)[None], dim=-1)
        assert ndcg(found, k) == pytest.approx(ndcg_score(torch.eye(30).numpy(), similar.numpy(), k=k))
        assert recall(found, k) == pytest.approx(
            top_k_accuracy_score(range(30), similar.numpy(), k=k, labels=range(30))
        )


def test_what_is_no_number_is_not_found():
    assert recall(ranks(torch.full((4, 2), torch.nan), torch.eye(4)[:, :2]), 3) == 0
