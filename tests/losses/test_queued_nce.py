from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F

from encdec_train.losses.queued_nce import QueuedNce, QueuedNceConfig
from encdec_train.types import Mismatch, Spec
from tests.ranks import check_two_ranks
from tests.vectors import vectors

SPEC = Spec(kind="vectors", width=4)


def loss(queue: int = 16) -> QueuedNce:
    return QueuedNce(QueuedNceConfig(temperature=0.2, queue=queue), SPEC)


def test_it_is_cross_entropy_over_cosines() -> None:
    q, k, given = vectors(1), vectors(1, seed=1), loss()
    queue = given.queue.double()
    term = given(q, k, pairs=[(0, 0)])
    query, key = q[0].double(), k[0].double()
    choices = torch.cat([key[:, None], queue.expand(6, -1, -1)], 1)  # (6,17,4)
    logits = F.cosine_similarity(query[:, None], choices, dim=-1) / 0.2
    expected = F.cross_entropy(logits, torch.zeros(6, dtype=torch.long))
    assert term.count == 6
    torch.testing.assert_close(term.mean.double(), expected, rtol=1e-6, atol=1e-6)


def test_keys_replace_the_oldest_and_get_no_gradient() -> None:
    given, q = loss(), [v.requires_grad_() for v in vectors(1)]
    start = given.queue.clone()
    batches = [[v.requires_grad_() for v in vectors(1, seed=seed)] for seed in (1, 2, 3)]
    for k in batches:
        given(q, k, pairs=[(0, 0)]).mean.backward()
        assert k[0].grad is None
    assert q[0].grad is not None
    first, second, third = (F.normalize(k[0].detach(), dim=-1) for k in batches)
    assert not torch.isin(start, given.queue).any()  # 18 keys went into 16 places
    torch.testing.assert_close(given.queue, torch.cat([third[4:], first[2:], second, third[:4]]))
    assert given.oldest == 2


def test_a_batch_larger_than_the_queue_leaves_its_last_keys() -> None:
    given = loss(queue=4)
    k = vectors(1, seed=1)
    given(vectors(1), k, pairs=[(0, 0)])
    assert {tuple(row) for row in given.queue.tolist()} == {
        tuple(row) for row in F.normalize(k[0], dim=-1)[-4:].tolist()
    }


def test_nothing_is_remembered_outside_of_training() -> None:
    given = loss().eval()
    before = copy.deepcopy(given.state_dict())
    given(vectors(1), vectors(1, seed=1), pairs=[(0, 0)])
    torch.testing.assert_close(given.state_dict(), before)


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(Mismatch, match="gives ids"):
        QueuedNceConfig().check(Spec(kind="ids", width=4), None)
    with pytest.raises(Mismatch, match="temperature"):
        QueuedNceConfig(temperature=0).check(SPEC, None)
    with pytest.raises(Mismatch, match="queue: 0"):
        QueuedNceConfig(queue=0).check(SPEC, None)
    z = vectors(1)
    with pytest.raises(ValueError, match="right side"):
        loss()(z, z, pairs=[])


def test_two_ranks(tmp_path) -> None:  # type: ignore[no-untyped-def]
    check_two_ranks(tmp_path, loss(), vectors(2), vectors(2, seed=1), pairs=((0, 1), (1, 0)))
