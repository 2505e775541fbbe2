from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from encdec_train.losses.koleo import Koleo, KoleoConfig
from encdec_train.types import Mismatch, Spec
from tests.ranks import check_two_ranks
from tests.vectors import vectors

SPEC = Spec(kind="vectors", width=4)


def loss() -> Koleo:
    return Koleo(KoleoConfig(), None)


def test_points_on_a_circle() -> None:
    """At 0, 10, 40 and 180 degrees the nearest are 10, 10, 30 and 140 degrees away: chords of 2 sin(angle / 2)."""
    angles = torch.tensor([0.0, 10.0, 40.0, 180.0]).deg2rad()
    points = torch.stack([angles.cos(), angles.sin()], 1) * torch.tensor([[1.0], [2.0], [0.5], [7.0]])
    side = [points]
    term = loss()(side, side, pairs=[])
    expected = -sum(math.log(2 * math.sin(math.radians(a) / 2)) for a in (10, 10, 30, 140)) / 4
    assert term.mean.item() == pytest.approx(expected, rel=1e-5) and term.count == 4


def test_crops_do_not_see_each_other() -> None:
    crops = vectors(2)
    found = loss()(crops, crops, pairs=[(0, 1)]).mean.item()
    means = []
    for crop in crops:
        x = crop.double().numpy()
        x = x / np.linalg.norm(x, axis=1, keepdims=True)
        distances = np.linalg.norm(x[:, None] - x[None], axis=-1) + 9 * np.eye(len(x))
        means.append(-np.log(distances.min(1)).mean())
    assert found == pytest.approx(sum(means) / 2, rel=1e-5)


def test_neighbours_part() -> None:
    x = torch.tensor([[1.0, 0.0], [1.0, 0.1], [-1.0, 0.3]]).requires_grad_()
    side = [x]
    loss()(side, side, pairs=[]).mean.backward()
    assert x.grad is not None
    assert x.grad[0, 1] > 0 > x.grad[1, 1]  # descent moves the first down, the second up


def test_equal_vectors_stay_finite() -> None:
    x = torch.ones(4, 3).requires_grad_()
    side = [x]
    term = loss()(side, side, pairs=[])
    term.mean.backward()
    assert term.mean.isfinite() and x.grad is not None and x.grad.isfinite().all()


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(Mismatch, match="takes no target"):
        KoleoConfig().check(SPEC, SPEC)
    with pytest.raises(Mismatch, match="eps: 0"):
        KoleoConfig(eps=0.0).check(SPEC, None)
    with pytest.raises(Mismatch, match="no paths on the right"):
        loss()(vectors(1), vectors(1, seed=1), pairs=[])


def test_two_ranks(tmp_path) -> None:  # type: ignore[no-untyped-def]
    check_two_ranks(tmp_path, loss(), vectors(2))
