"""GraphMAE's decoder: hide the encoded masked nodes again, then a graph layer fills them from the others.

Hou et al. 2022 (arXiv:2205.10803), section 3, re-mask decoding. The layer's output is the prediction
itself, so its width is that of the raw features and the head is `identity`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

import torch
from torch import Tensor, nn

from encdec_train.nn.graph import (
    GatLayer,
    GinLayer,
    Graph,
    NodeActivation,
    NodeNorm,
    check_graph,
    check_ranges,
    run_layers,
)
from encdec_train.registry import decoders
from encdec_train.types import Mismatch, Plan, Spec, Tokens


class RemaskLayer(Enum):
    """Which graph layer decodes."""

    gat = "gat"
    gin = "gin"


@dataclass(kw_only=True)
class RemaskConfig:
    layer: RemaskLayer = RemaskLayer.gat
    width: int | None = None  # of the output; none: of the view's raw features
    hidden: int | None = None  # inside the gin layer's MLP; none: the width of the memory
    heads: int = 1  # of the gat layer
    norm: NodeNorm = NodeNorm.none  # inside the gin layer's MLP
    activation: NodeActivation = NodeActivation.prelu  # inside the gin layer's MLP
    dropout: float = 0.0  # of what the layer is given
    attention_dropout: float = 0.0  # of the gat layer's weights
    slope: float = 0.2  # of the gat layer's leaky ReLU
    eps: float = 0.0  # of the gin layer: a node weighs 1 + eps
    learned: bool = False  # hide with a learned vector instead of zeros

    def spec(self, memory: Spec | None, inputs: Spec | None, sites: Spec) -> Spec:
        part = "decoder 'remask'"
        if memory is None:
            raise Mismatch(f"{part} reads encoded nodes, it has no memory")
        if inputs is not None:
            raise Mismatch(f"{part} takes no inputs of its own")
        check_graph(part, memory)
        width = self._width(sites)
        shares = {"dropout": self.dropout, "attention_dropout": self.attention_dropout}
        check_ranges(part, least={"width": width, "heads": self.heads}, shares=shares)
        if self.layer is RemaskLayer.gat and width % self.heads:
            raise Mismatch(f"{part}: width {width} does not divide into {self.heads} heads")
        return replace(memory, width=width)

    def _width(self, sites: Spec) -> int:
        raw = sites.raw
        if self.width is None and (raw is None or raw.kind != "values"):
            raise Mismatch("decoder 'remask': the view has no raw values to take its width from: set decoder.width")
        return self.width or raw.width  # type: ignore[union-attr]


@decoders.register("remask", RemaskConfig)
class Remask(nn.Module):
    """memory (B,N,D) -> (B,N,C); what the encoder made of the plan's masked nodes is not read."""

    def __init__(self, config: RemaskConfig, memory: Spec, inputs: Spec | None, sites: Spec) -> None:
        super().__init__()
        self.config, self.width = config, config.spec(memory, inputs, sites).width
        self.project = nn.Linear(memory.width, memory.width, bias=False)
        self.token = nn.Parameter(torch.zeros(memory.width)) if config.learned else None
        self.layer = self._layer(memory.width)

    def _layer(self, given: int) -> nn.Module:
        config = self.config
        if config.layer is RemaskLayer.gin:
            return GinLayer(
                given,
                config.hidden or given,
                self.width,
                norm=config.norm,
                activation=config.activation,
                residual=False,
                dropout=config.dropout,
                eps=config.eps,
                learn_eps=False,
                finish=False,
            )
        return GatLayer(
            given,
            self.width,
            config.heads,
            norm=NodeNorm.none,
            activation=NodeActivation.none,
            residual=False,
            dropout=config.dropout,
            attention_dropout=config.attention_dropout,
            slope=config.slope,
        )

    def forward(self, memory: Tokens, inputs: Tokens | None, plan: Plan) -> Tokens:
        if plan.mask is None:
            raise Mismatch("decoder 'remask' needs a corruption that says which nodes are masked")
        graph = Graph.of(plan.sites)
        if self.config.layer is RemaskLayer.gat:
            graph = graph.with_loops()
        x = self.hide(self.project(memory.x), plan.mask)
        return run_layers([self.layer], replace(memory, x=x), graph)

    def hide(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B,N,D) with the decoder's mask vector at the masked nodes."""
        if self.token is None:
            return x.masked_fill(mask[..., None], 0.0)
        return torch.where(mask[..., None], self.token.to(x.dtype), x)
