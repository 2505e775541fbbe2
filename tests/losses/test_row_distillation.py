from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from encdec_train.losses.row_distillation import RowDistillation, RowDistillationConfig
from encdec_train.nn.assignment import sinkhorn
from encdec_train.types import Goal, Mismatch, Spec, Term
from tests.ranks import check_two_ranks
from tests.vectors import vectors

SPEC, GOAL = Spec(kind="vectors", width=4), Spec(kind="values", width=4)


def loss(**changes: float) -> RowDistillation:
    return RowDistillation(RowDistillationConfig(**changes), GOAL)  # type: ignore[arg-type]


def test_rows_are_torchs_cross_entropy_with_soft_targets() -> None:
    (s,), (t,) = vectors(1), vectors(1, seed=1)
    given, weight = loss(teacher_temperature=0.3, momentum=0.5), torch.tensor([1.0, 0.0, 1.0, 1.0, 0.0, 1.0])
    for centre in (torch.zeros(4), 0.5 * t[weight > 0].mean(0)):
        expected = nn.functional.cross_entropy(s / 0.1, ((t - centre) / 0.3).softmax(1), reduction="none")
        torch.testing.assert_close(given(s, Goal(values=t, weight=weight)), expected)


def test_shared_out_by_sinkhorn() -> None:
    (s,), (t,) = vectors(1), vectors(1, seed=1)
    found = loss(teacher_temperature=0.3, sinkhorn=3)(s, Goal(values=t))
    expected = nn.functional.cross_entropy(s / 0.1, sinkhorn(t / 0.3, 3), reduction="none")
    torch.testing.assert_close(found, expected)


def test_the_trivial_predictor_knows_the_mean() -> None:
    """Two rows on one prototype each: half and half, and nothing is remembered of having looked."""
    given, values = loss(), torch.tensor([[9.0, 0, 0, 0], [0, 9.0, 0, 0], [0, 0, 0, 9.0]])
    name, value = given.trivial(Goal(values=values, weight=torch.tensor([0.5, 0.5, 0.0])))
    assert name == "marginal" and float(value) == pytest.approx(math.log(2), abs=1e-5)
    assert not given.assignment.centre.any() and given.assignment.done == 0


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(Mismatch, match="gives ids"):
        RowDistillationConfig().check(SPEC, Spec(kind="ids", width=4))
    with pytest.raises(Mismatch, match="4 prototypes, the target 5"):
        RowDistillationConfig().check(SPEC, Spec(kind="values", width=5))
    with pytest.raises(Mismatch, match=r"row_distillation'\.sinkhorn: -1"):
        RowDistillationConfig(sinkhorn=-1).check(SPEC, GOAL)


class Weighed(nn.Module):
    """Losses of rows as one between sides: the second vector of the right says which rows are fillers."""

    def __init__(self, *losses: RowDistillation) -> None:
        super().__init__()
        self.losses = nn.ModuleList(losses)

    def forward(self, left: list[Tensor], right: list[Tensor], *, pairs: list[tuple[int, int]]) -> Term:
        weight = (right[1].detach()[:, 0] > 0).float()
        goal = Goal(values=right[0].detach(), weight=weight)
        rows = torch.stack([loss(left[0], goal) for loss in self.losses]).sum(0)
        return Term((rows * weight).sum(), weight.sum())


def test_two_ranks_with_fillers(tmp_path) -> None:  # type: ignore[no-untyped-def]
    """Both ways to keep prototypes apart, where each rank has another number of real rows."""
    right = vectors(2, seed=1)
    assert len({int((half[:, 0] > 0).sum()) for half in right[1].chunk(2)}) == 2
    check_two_ranks(tmp_path, Weighed(loss(), loss(sinkhorn=3)), vectors(1), right)
