"""One linear layer from model vectors to what the loss wants."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor, nn

from encdec_train.nn.transformer import init_linear
from encdec_train.registry import heads
from encdec_train.types import Mismatch, Spec


@dataclass(kw_only=True)
class LinearHeadConfig:
    width: int | None = None  # none: the width of the goal
    bias: bool = True
    init_std: float | None = None  # none: Xavier uniform

    def spec(self, upstream: Spec, goal: Spec | None) -> Spec:
        width = self.width or (goal.width if goal else None)
        if width is None:
            raise Mismatch("head 'linear' has no goal to take its width from: set head.width")
        return replace(upstream, width=width)


@heads.register("linear", LinearHeadConfig)
class Linear(nn.Linear):
    """(M,D) -> (M,C)."""

    def __init__(self, config: LinearHeadConfig, upstream: Spec, goal: Spec | None, embedder: nn.Module | None) -> None:
        super().__init__(upstream.width, config.spec(upstream, goal).width, bias=config.bias)
        init_linear(self, config.init_std)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)

    def before(self, x: Tensor) -> Tensor:
        """(M,D): what the last linear layer reads."""
        return x

    def last(self) -> tuple[Tensor, Tensor | None]:
        """Weight and bias of the last linear layer."""
        return self.weight, self.bias
