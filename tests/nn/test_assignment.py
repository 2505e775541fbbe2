"""Distributions over prototypes against the published algorithms, written in numpy and float64."""

from __future__ import annotations

import numpy as np
import torch

from encdec_train.nn.assignment import Assignment, AssignmentConfig, sinkhorn


def scores(rows: int = 12, width: int = 5, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))


def scaled(x: torch.Tensor, rounds: int) -> np.ndarray:
    """SwAV's algorithm: prototypes to 1 / K, rows to 1 / B, in turns."""
    q = np.exp(x.double().numpy())
    q /= q.sum()
    for _ in range(rounds):
        q /= q.sum(0, keepdims=True) * q.shape[1]
        q /= q.sum(1, keepdims=True) * q.shape[0]
    return q * q.shape[0]


def test_rounds_of_scaling() -> None:
    for rounds in (1, 3):
        found = sinkhorn(scores() / 0.2, rounds)
        np.testing.assert_allclose(found.numpy(), scaled(scores() / 0.2, rounds), rtol=1e-4, atol=1e-7)


def test_many_rounds_share_the_rows_evenly() -> None:
    found = sinkhorn(scores() + 3 * torch.arange(5), 200)
    torch.testing.assert_close(found.sum(1), torch.ones(12))
    torch.testing.assert_close(found.sum(0), torch.full((5,), 12 / 5))


def test_fillers_count_for_nothing() -> None:
    real, weight = scores(), torch.tensor([1.0] * 6 + [0.0] * 4 + [0.5] * 6)
    x = torch.cat([real[:6], 50 * scores(4, seed=1), real[6:]])
    torch.testing.assert_close(sinkhorn(x, 3, weight)[weight > 0], sinkhorn(real, 3))
    assert sinkhorn(x, 3, torch.zeros(16)).isfinite().all()
    given = Assignment(AssignmentConfig(momentum=0.75), 5)
    given(x, weight)
    torch.testing.assert_close(given.centre, 0.25 * real.mean(0))
    before = given.centre.clone()
    given(x, torch.zeros(16))
    torch.testing.assert_close(given.centre, before)
    assert given.done == 2


def test_scores_as_large_as_they_come() -> None:
    """Without logarithms exp(200) is beyond float32."""
    assert sinkhorn(200 * scores(), 3).isfinite().all()
