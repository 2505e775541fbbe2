"""Graph isomorphism network (Xu et al. 2019, arXiv:1810.00826).

GraphMAE (Hou et al. 2022, arXiv:2205.10803) classifies graphs with it. Its data carry self loops, so that a
node counts itself twice: `eps: 1` says the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from torch import nn

from encdec_train.nn.graph import (
    GinLayer,
    Graph,
    NodeActivation,
    NodeNorm,
    check_graph,
    check_ranges,
    run_layers,
)
from encdec_train.registry import encoders
from encdec_train.types import Attend, Layer, Mismatch, Spec, Tokens


@dataclass(kw_only=True)
class GinConfig:
    width: int = 512  # D, and the width inside the two-layer MLPs
    depth: int = 2  # layers
    norm: NodeNorm = NodeNorm.batch
    activation: NodeActivation = NodeActivation.prelu
    residual: bool = False  # around every layer, projected where widths differ
    dropout: float = 0.0  # of what each layer is given
    eps: float = 0.0  # a node weighs 1 + eps, each neighbour 1
    learn_eps: bool = False  # learn eps from this start, one for each layer
    emit: list[int] = field(default_factory=list)  # layers whose output is kept in `Tokens.layers`

    def spec(self, upstream: Spec) -> Spec:
        part = "encoder 'gin'"
        check_graph(part, upstream)
        check_ranges(part, least={"width": self.width, "depth": self.depth}, shares={"dropout": self.dropout})
        return replace(upstream, width=self.width, layers=(Layer(self.width),) * self.depth)


@encoders.register("gin", GinConfig)
class Gin(nn.Module):
    """(B,N,C) -> (B,N,D) along `tokens.sites.edges`. `width` is D."""

    def __init__(self, config: GinConfig, upstream: Spec) -> None:
        super().__init__()
        self.config, self.width = config, config.width
        self.layers = nn.ModuleList(
            GinLayer(
                config.width if i else upstream.width,
                config.width,
                config.width,
                norm=config.norm,
                activation=config.activation,
                residual=config.residual,
                dropout=config.dropout,
                eps=config.eps,
                learn_eps=config.learn_eps,
            )
            for i in range(config.depth)
        )

    def forward(self, tokens: Tokens, attend: Attend | None = None) -> Tokens:
        if attend is not None:
            raise Mismatch("encoder 'gin' reads along edges: the corruption's attention pattern has no meaning here")
        return run_layers(self.layers, tokens, Graph.of(tokens.sites), self.config.emit)
