from __future__ import annotations

import numpy as np
import pytest
import torch

from encdec_train.losses.variance_covariance import VarianceCovariance, VarianceCovarianceConfig
from encdec_train.types import Mismatch, Spec
from tests.ranks import check_two_ranks
from tests.vectors import vectors


def loss(**changes: float) -> VarianceCovariance:
    return VarianceCovariance(VarianceCovarianceConfig(**changes), Spec(kind="vectors", width=4))


def closed_form(x: np.ndarray, y: np.ndarray, weights: tuple[float, float, float]) -> float:
    """Equations 1 to 6, element by element in float64, with the constants of the authors' code."""
    rows, width = x.shape
    distance = sum(((x[i] - y[i]) ** 2).sum() for i in range(rows)) / (rows * width)
    lack, common = 0.0, 0.0
    for z in (x, y):
        matrix = np.cov(z.T)  # divided by rows - 1
        lack += sum(max(0.0, 1 - np.sqrt(matrix[k, k] + 1e-4)) for k in range(width)) / width / 2
        common += sum(matrix[k, m] ** 2 for k in range(width) for m in range(width) if k != m) / width
    return weights[0] * distance + weights[1] * lack + weights[2] * common


@pytest.mark.parametrize("weights", [(25.0, 25.0, 1.0), (1.0, 0.0, 0.0), (0.0, 2.0, 0.0), (0.0, 0.0, 3.0)])
def test_it_is_the_papers_equation(weights: tuple[float, float, float]) -> None:
    z = [0.7 * v for v in vectors(2)]
    term = loss(invariance=weights[0], variance=weights[1], covariance=weights[2])(z, z, pairs=[(0, 1)])
    expected = closed_form(z[0].double().numpy(), z[1].double().numpy(), weights)
    assert term.count == 6
    assert term.mean.item() == pytest.approx(expected, rel=1e-5)


def test_two_sides_are_the_same_as_two_crops() -> None:
    z = vectors(2)
    torch.testing.assert_close(loss()(z, z, pairs=[(0, 1)]).mean, loss()(z[:1], z[1:], pairs=[(0, 0)]).mean)


def test_collapse_costs_the_whole_variance_term() -> None:
    same = [torch.ones(6, 4).requires_grad_() for _ in range(2)]
    term = loss()(same, same, pairs=[(0, 1)])
    assert term.mean.item() == pytest.approx(25 * 0.99)
    term.mean.backward()
    assert same[0].grad is not None and same[0].grad.isfinite().all()


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(Mismatch, match="gives ids"):
        VarianceCovarianceConfig().check(Spec(kind="ids", width=4), None)
    with pytest.raises(Mismatch, match="variance: -1"):
        VarianceCovarianceConfig(variance=-1).check(Spec(kind="vectors", width=4), None)


def test_two_ranks(tmp_path) -> None:  # type: ignore[no-untyped-def]
    check_two_ranks(tmp_path, loss(), vectors(2))
