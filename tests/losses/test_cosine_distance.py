from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from encdec_train.losses.cosine_distance import CosineDistance, CosineDistanceConfig
from encdec_train.types import Mismatch, Spec
from tests.ranks import check_two_ranks
from tests.vectors import vectors

BOTH = [(0, 1), (1, 0)]


def loss() -> CosineDistance:
    return CosineDistance(CosineDistanceConfig(), Spec(kind="vectors", width=4))


def test_it_is_simsiams_negative_cosine_plus_one() -> None:
    p, z = vectors(2), vectors(2, seed=1)
    term = loss()(p, z, pairs=BOTH)
    halves = [F.cosine_similarity(p[0].double(), z[1].double()), F.cosine_similarity(p[1].double(), z[0].double())]
    negative = -sum(half.mean() for half in halves) / 2
    assert term.count == 6
    torch.testing.assert_close(term.mean.double(), negative + 1, rtol=1e-6, atol=1e-6)


def test_four_times_it_is_byols_symmetric_loss() -> None:
    p, z = vectors(2), vectors(2, seed=1)
    total = 0.0
    for i, j in BOTH:
        q, t = p[i].double(), z[j].double()
        total += (q / q.norm(dim=1, keepdim=True) - t / t.norm(dim=1, keepdim=True)).square().sum(1).mean()
    torch.testing.assert_close(4 * loss()(p, z, pairs=BOTH).mean.double(), total, rtol=1e-6, atol=1e-6)


def test_targets_get_no_gradient() -> None:
    p, z = [v.requires_grad_() for v in vectors(2)], [v.requires_grad_() for v in vectors(2, seed=1)]
    loss()(p, z, pairs=BOTH).mean.backward()
    assert all(v.grad is not None for v in p) and all(v.grad is None for v in z)


def test_agreement_is_zero_and_one_side_is_refused() -> None:
    z = vectors(2)
    torch.testing.assert_close(loss()(z, [3 * z[1], z[0]], pairs=BOTH).mean, torch.tensor(0.0), atol=1e-6, rtol=0)
    with pytest.raises(ValueError, match="right side"):
        loss()(z, z, pairs=[(0, 1)])
    with pytest.raises(Mismatch, match="gives ids"):
        CosineDistanceConfig().check(Spec(kind="ids", width=4), None)


def test_two_ranks(tmp_path) -> None:  # type: ignore[no-untyped-def]
    check_two_ranks(tmp_path, loss(), vectors(2), vectors(2, seed=1), pairs=((0, 1), (1, 0)))
