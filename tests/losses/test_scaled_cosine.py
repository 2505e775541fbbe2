from __future__ import annotations

import pytest
import torch

from encdec_train.losses.scaled_cosine import ScaledCosine, ScaledCosineConfig
from encdec_train.types import Goal, Mismatch, Spec


def error(prediction: torch.Tensor, goal: torch.Tensor, gamma: float) -> torch.Tensor:
    return ScaledCosine(ScaledCosineConfig(gamma=gamma), None)(prediction, Goal(values=goal))


def test_closed_form_at_known_angles() -> None:
    angle = torch.tensor([0.0, 1 / 3, 1 / 2, 1.0]) * torch.pi
    prediction = 7 * torch.stack([angle.cos(), angle.sin()], 1)  # lengths do not count
    goal = torch.tensor([[0.1, 0.0]]).expand(4, 2)
    torch.testing.assert_close(error(prediction, goal, 3), torch.tensor([0.0, 0.125, 1.0, 8.0]), atol=1e-6, rtol=1e-5)


def test_half_the_squared_distance_of_unit_vectors() -> None:
    x, y = torch.randn(50, 9), torch.randn(50, 9)
    distance = (x / x.norm(dim=1, keepdim=True) - y / y.norm(dim=1, keepdim=True)).square().sum(1)
    torch.testing.assert_close(error(x, y, 2), (distance / 2) ** 2)


def test_equal_rows_and_empty_rows_have_a_finite_gradient() -> None:
    x = torch.randn(4, 5)
    x[2:] = 0
    x.requires_grad_()
    loss = error(x, x.detach(), 1.5)
    loss.sum().backward()
    assert torch.isfinite(loss).all() and x.grad is not None and torch.isfinite(x.grad).all()


@pytest.mark.parametrize(
    "config,prediction,goal,said",
    [
        (ScaledCosineConfig(gamma=0.5), 4, Spec(kind="values", width=4), "gamma: 0.5"),
        (ScaledCosineConfig(), 4, Spec(kind="values", width=5), "width 4, the target 5"),
        (ScaledCosineConfig(), 4, Spec(kind="ids", width=4), "gives ids"),
    ],
)
def test_what_does_not_fit_is_named(config: ScaledCosineConfig, prediction: int, goal: Spec, said: str) -> None:
    with pytest.raises(Mismatch, match=said):
        config.check(Spec(kind="vectors", width=prediction), goal)
