"""No head: the decoder's vectors are the prediction."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from encdec_train.registry import heads
from encdec_train.types import Mismatch, Spec


@dataclass(kw_only=True)
class IdentityHeadConfig:
    def spec(self, upstream: Spec, goal: Spec | None) -> Spec:
        if goal is not None and goal.kind in ("values", "chances") and goal.width != upstream.width:
            raise Mismatch(
                f"head 'identity': it is given vectors of width {upstream.width}, the target has {goal.width}"
            )
        return upstream


@heads.register("identity", IdentityHeadConfig)
class Identity(nn.Module):
    """(M,D) -> (M,D)."""

    def __init__(
        self, config: IdentityHeadConfig, upstream: Spec, goal: Spec | None, embedder: nn.Module | None
    ) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return x
