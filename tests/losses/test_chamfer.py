"""Chamfer distance against loops and closed forms."""

import pytest
import torch

from encdec_train.losses.chamfer import Chamfer, ChamferConfig
from encdec_train.types import Goal, Mismatch, Spec

PART = Chamfer(ChamferConfig(), None)


def loops(left, right):
    def one_way(a, b):
        return sum(min(float(((p - q) ** 2).sum()) for q in b) for p in a) / len(a)

    return one_way(left, right) + one_way(right, left)


@pytest.mark.parametrize(("given", "true"), [(5, 5), (4, 9)])
def test_rows_are_those_of_a_search(given, true):
    left, right = torch.randn(6, given, 3), torch.randn(6, true, 3)
    found = PART(left.flatten(1), Goal(values=right.flatten(1)))
    assert torch.allclose(found, torch.tensor([loops(*pair) for pair in zip(left, right, strict=True)]), atol=1e-5)


def test_the_order_of_points_means_nothing_and_a_shift_of_one_point_is_its_square():
    points = torch.randn(2, 8, 3) * 10
    order = torch.randperm(8)
    assert not PART(points[:, order].flatten(1), Goal(values=points.flatten(1))).any()
    moved = points.clone()
    moved[:, 3] += torch.tensor([0.0, 0.3, 0.4])
    assert torch.allclose(PART(moved.flatten(1), Goal(values=points.flatten(1))), torch.tensor(2 * 0.25 / 8), atol=1e-5)


def test_the_gradient_pulls_a_point_to_its_nearest():
    point = torch.zeros(1, 3, requires_grad=True)
    PART(point, Goal(values=torch.tensor([[1.0, 0, 0, -5.0, 0, 0]]))).sum().backward()
    # 2 (0 - 1) to the nearest of two, and half of 2 (0 - 1) + 2 (0 + 5) from both
    assert torch.allclose(point.grad, torch.tensor([[-2.0 + 0.5 * (-2 + 10), 0, 0]]))


def test_the_trivial_loss_is_that_of_points_at_the_origin():
    values, weight = torch.randn(7, 12), torch.tensor([1.0, 0, 1, 1, 0, 1, 1])
    name, trivial = PART.trivial(Goal(values=values, weight=weight))
    rows = PART(torch.zeros(7, 12), Goal(values=values))
    assert name == "origin" and torch.allclose(trivial.float(), (rows * weight).sum() / 5)


def test_points_in_the_plane():
    part = Chamfer(ChamferConfig(dims=2), None)
    assert part(torch.tensor([[0.0, 0.0]]), Goal(values=torch.tensor([[3.0, 4.0]]))).tolist() == [50.0]


@pytest.mark.parametrize(
    ("prediction", "goal", "said"),
    [
        (Spec(kind="vectors", width=7), Spec(kind="values", width=6), "head gives 7"),
        (Spec(kind="vectors", width=6), Spec(kind="values", width=8), "target has 8"),
        (Spec(kind="vectors", width=6), Spec(kind="ids", width=6), "gives ids"),
        (Spec(kind="vectors", width=6), None, "gives nothing"),
    ],
)
def test_refuses_what_cannot_be(prediction, goal, said):
    with pytest.raises(Mismatch, match=said):
        ChamferConfig().check(prediction, goal)
