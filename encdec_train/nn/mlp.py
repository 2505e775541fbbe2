"""The feed-forward part of a transformer block."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from functools import partial
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Activation(Enum):
    """Pointwise non-linearity."""

    gelu = "gelu"
    gelu_tanh = "gelu_tanh"
    quick_gelu = "quick_gelu"  # x sigmoid(1.702 x), of CLIP's published weights (Hendrycks and Gimpel 2016, section 2)
    relu = "relu"
    silu = "silu"
    elu = "elu"
    tanh = "tanh"

    @property
    def fn(self) -> Callable[[Tensor], Tensor]:
        return _FUNCTIONS[self]


_FUNCTIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    Activation.gelu: F.gelu,
    Activation.gelu_tanh: partial(F.gelu, approximate="tanh"),
    Activation.quick_gelu: lambda x: x * torch.sigmoid(1.702 * x),
    Activation.relu: F.relu,
    Activation.silu: F.silu,
    Activation.elu: F.elu,
    Activation.tanh: torch.tanh,
}


class Mlp(nn.Module):
    """Two linear layers, or three where the first is gated (Shazeer 2020, "GLU variants")."""

    def __init__(
        self,
        width: int,
        hidden: int,
        activation: Activation,
        *,
        gated: bool,
        bias: bool,
        dropout: float,
        up_bias: bool = True,
    ) -> None:
        super().__init__()
        self.activation, self.gated, self.dropout = activation.fn, gated, dropout
        self.up = nn.Linear(width, hidden * (2 if gated else 1), bias=bias and up_bias)
        self.down = nn.Linear(hidden, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        y = self.up(x)
        if self.gated:
            gate, y = y.chunk(2, -1)
            y = self.activation(gate) * y
        else:
            y = self.activation(y)
        if self.dropout:
            y = F.dropout(y, self.dropout, self.training)
        return self.down(y)


class Act(nn.Module):
    """An activation as a layer."""

    def __init__(self, activation: Activation) -> None:
        super().__init__()
        self.fn = activation.fn

    def forward(self, x: Tensor) -> Tensor:
        return self.fn(x)


def perceptron(widths: Sequence[int], activation: Activation) -> nn.Sequential:
    """Linear layers from each width to the next, an activation after every one."""
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), Act(activation)]
    return nn.Sequential(*layers)
