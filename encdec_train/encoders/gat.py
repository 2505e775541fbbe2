"""Graph attention network (Velickovic et al. 2018, arXiv:1710.10903), as GraphMAE encodes with it.

Hou et al. 2022 (arXiv:2205.10803) and its code: heads are concatenated in every layer, the last one
included, and a PReLU follows every layer.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from torch import nn

from encdec_train.nn.graph import (
    GatLayer,
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
class GatConfig:
    width: int = 512  # D, all heads together
    depth: int = 2  # layers
    heads: int = 4
    norm: NodeNorm = NodeNorm.none
    activation: NodeActivation = NodeActivation.prelu
    residual: bool = False  # around every layer, projected where widths differ
    dropout: float = 0.0  # of what each layer is given
    attention_dropout: float = 0.0  # of the edges' weights
    slope: float = 0.2  # of the scores' leaky ReLU
    emit: list[int] = field(default_factory=list)  # layers whose output is kept in `Tokens.layers`

    def spec(self, upstream: Spec) -> Spec:
        part = "encoder 'gat'"
        check_graph(part, upstream)
        shares = {"dropout": self.dropout, "attention_dropout": self.attention_dropout}
        check_ranges(part, least={"width": self.width, "depth": self.depth, "heads": self.heads}, shares=shares)
        if self.width % self.heads:
            raise Mismatch(f"{part}: width {self.width} does not divide into {self.heads} heads")
        return replace(upstream, width=self.width, layers=(Layer(self.width),) * self.depth)


@encoders.register("gat", GatConfig)
class Gat(nn.Module):
    """(B,N,C) -> (B,N,D) along `tokens.sites.edges`. `width` is D."""

    def __init__(self, config: GatConfig, upstream: Spec) -> None:
        super().__init__()
        self.config, self.width = config, config.width
        self.layers = nn.ModuleList(
            GatLayer(
                config.width if i else upstream.width,
                config.width,
                config.heads,
                norm=config.norm,
                activation=config.activation,
                residual=config.residual,
                dropout=config.dropout,
                attention_dropout=config.attention_dropout,
                slope=config.slope,
            )
            for i in range(config.depth)
        )

    def forward(self, tokens: Tokens, attend: Attend | None = None) -> Tokens:
        if attend is not None:
            raise Mismatch("encoder 'gat' reads along edges: the corruption's attention pattern has no meaning here")
        return run_layers(self.layers, tokens, Graph.of(tokens.sites).with_loops(), self.config.emit)
