from __future__ import annotations

import numpy as np
import pytest
import torch

from encdec_train.losses.cross_correlation import CrossCorrelation, CrossCorrelationConfig
from encdec_train.types import Mismatch, Spec
from tests.ranks import check_two_ranks
from tests.vectors import vectors


def loss(**changes: float) -> CrossCorrelation:
    return CrossCorrelation(CrossCorrelationConfig(**changes), Spec(kind="vectors", width=4))


def test_it_is_the_papers_equation() -> None:
    """Element by element: 1 - C_ii squared, plus lambda times C_ij squared, C by numpy's corrcoef."""
    z = vectors(2)
    term = loss(redundancy=0.3, eps=1e-12)(z, z, pairs=[(0, 1)])
    correlation = np.corrcoef(z[0].double().numpy().T, z[1].double().numpy().T)[:4, 4:]
    expected = sum((1 - correlation[i, i]) ** 2 for i in range(4))
    expected += 0.3 * sum(correlation[i, j] ** 2 for i in range(4) for j in range(4) if i != j)
    assert term.count == 6
    assert term.mean.item() == pytest.approx(expected, rel=1e-5)


def test_scale_and_shift_of_a_feature_do_not_count() -> None:
    z = vectors(2)
    scaled = [5 * z[0] + torch.arange(4), z[1]]
    torch.testing.assert_close(
        loss(eps=1e-9)(z, z, pairs=[(0, 1)]).mean, loss(eps=1e-9)(scaled, scaled, pairs=[(0, 1)]).mean
    )


def test_equal_vectors_for_all_rows_are_worst_on_the_diagonal() -> None:
    same = [torch.ones(6, 4).requires_grad_() for _ in range(2)]
    term = loss()(same, same, pairs=[(0, 1)])
    assert term.mean.item() == pytest.approx(4)
    term.mean.backward()
    assert same[0].grad is not None and same[0].grad.isfinite().all()


def test_two_sides_and_several_pairs() -> None:
    left, right = vectors(2), vectors(1, seed=1)
    parts = [loss()([v], right, pairs=[(0, 0)]).mean for v in left]
    torch.testing.assert_close(loss()(left, right, pairs=[(0, 0), (1, 0)]).mean, torch.stack(parts).mean())


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(Mismatch, match="gives ids"):
        CrossCorrelationConfig().check(Spec(kind="ids", width=4), None)
    with pytest.raises(Mismatch, match="redundancy -1"):
        CrossCorrelationConfig(redundancy=-1).check(Spec(kind="vectors", width=4), None)


def test_two_ranks(tmp_path) -> None:  # type: ignore[no-untyped-def]
    check_two_ranks(tmp_path, loss(), vectors(2))
