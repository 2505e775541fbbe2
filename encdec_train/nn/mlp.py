"""The feed-forward part of a transformer block."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn


class Activation(Enum):
    """Pointwise non-linearity."""

    gelu = "gelu"
    gelu_tanh = "gelu_tanh"
    relu = "relu"
    silu = "silu"

    @property
    def fn(self) -> Callable[[Tensor], Tensor]:
        return _FUNCTIONS[self]


_FUNCTIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    Activation.gelu: F.gelu,
    Activation.gelu_tanh: partial(F.gelu, approximate="tanh"),
    Activation.relu: F.relu,
    Activation.silu: F.silu,
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
