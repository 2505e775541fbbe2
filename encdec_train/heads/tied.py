"""Scores for every id by the embedder's own table (Press and Wolf 2017, arXiv:1608.05859).

With the transform it is BERT's head for masked language modelling (Devlin et al. 2019; google-research/bert,
run_pretraining.py, `get_masked_lm_output`), without it T5's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encdec_train.nn.mlp import Activation
from encdec_train.nn.norm import Norm, make_norm
from encdec_train.nn.transformer import init_linear
from encdec_train.registry import heads
from encdec_train.types import Mismatch, Spec


@dataclass(kw_only=True)
class TiedConfig:
    transform: bool = False  # a linear layer, an activation and a norm before the table
    activation: Activation = Activation.gelu  # of the transform
    norm: Norm = Norm.layer  # of the transform
    eps: float = 1e-12  # of the norm
    transform_bias: bool = True  # in the linear layer and the norm of the transform
    bias: bool = False  # one number for each id
    scale: bool = False  # divide by the square root of the table's width (T5 1.0)
    init_std: float | None = 0.02  # of the linear layer; none: Xavier uniform

    def spec(self, upstream: Spec, goal: Spec | None) -> Spec:
        if goal is None or goal.kind != "ids":
            raise Mismatch(f"head 'tied' scores ids, the target gives {goal.kind if goal else 'nothing'}")
        return replace(upstream, width=goal.width)


@heads.register("tied", TiedConfig)
class Tied(nn.Module):
    """(M,D) -> (M,V). The table stays the embedder's: it is neither registered nor saved here."""

    def __init__(self, config: TiedConfig, upstream: Spec, goal: Spec | None, embedder: nn.Module | None) -> None:
        super().__init__()
        table = getattr(embedder, "table", None)
        if not isinstance(table, nn.Embedding):
            raise Mismatch(f"head 'tied' needs an embedder with a table, it is given {type(embedder).__name__}")
        ids, width = table.weight.shape
        scores = config.spec(upstream, goal).width
        if scores != ids:
            raise Mismatch(f"head 'tied': the target has {scores} ids, the embedder's table {ids}")
        if not config.transform and upstream.width != width:
            raise Mismatch(
                f"head 'tied': vectors of width {upstream.width} meet a table of width {width}: set transform=true"
            )
        self._embedder = (embedder,)
        self.scale = width**-0.5 if config.scale else 1.0
        self.transform = Transform(config, upstream.width, width) if config.transform else None
        self.bias = nn.Parameter(torch.zeros(ids)) if config.bias else None

    @property
    def table(self) -> Tensor:
        """(V,D)."""
        return self._embedder[0].table.weight  # type: ignore[union-attr, return-value]

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(self.before(x), *self.last())

    def before(self, x: Tensor) -> Tensor:
        """(M,E): what the last linear layer reads."""
        if self.transform is not None:
            x = self.transform(x)
        return x * self.scale if self.scale != 1.0 else x

    def last(self) -> tuple[Tensor, Tensor | None]:
        """Weight and bias of the last linear layer."""
        return self.table, self.bias


class Transform(nn.Module):
    """(M,D) -> (M,E): linear, activation, norm."""

    def __init__(self, config: TiedConfig, width: int, out: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, out, bias=config.transform_bias)
        self.activation = config.activation.fn
        self.norm = make_norm(config.norm, out, config.eps, bias=config.transform_bias)
        init_linear(self.linear, config.init_std)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.activation(self.linear(x)))
