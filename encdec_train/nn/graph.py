"""Message passing over edges that are data: graph attention, graph isomorphism, and what both need.

All layers see the nodes of a batch as one flat graph: S = B*N nodes, edges between them, no edges between
rows. Padded nodes are isolated, so that nothing flows out of them. On CUDA the order of sums over edges is
fixed only with `trainer.deterministic`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encdec_train.nn.batch_norm import BatchNorm1d, over_ranks
from encdec_train.types import Mismatch, Sites, Spec, Tokens


@dataclass(frozen=True, eq=False, kw_only=True)
class Graph:
    """The edges of a whole batch, over its flat nodes."""

    source: Tensor  # (E,) int64
    target: Tensor  # (E,) int64
    real: Tensor | None  # (S,) bool, None = all
    nodes: int  # S

    @classmethod
    def of(cls, sites: Sites) -> Graph:
        assert sites.edges is not None, "the spec of a graph part refuses a view without edges"
        real = None if sites.valid is None else sites.valid.flatten()
        source, target = sites.edges
        return cls(source=source, target=target, real=real, nodes=sites.rows * sites.n)

    def with_loops(self) -> Graph:
        """The same, every node a neighbour of itself."""
        loops = torch.arange(self.nodes, device=self.source.device)
        return replace(self, source=torch.cat([self.source, loops]), target=torch.cat([self.target, loops]))


def at_edges(nodes: Tensor, ends: Tensor) -> Tensor:
    """(S,...) at one end of every edge -> (E,...).

    The gradient of `nodes[ends]` is summed by several threads in no fixed order, that of `index_select` is not.
    """
    return nodes.index_select(0, ends)


def sum_edges(messages: Tensor, graph: Graph) -> Tensor:
    """(E,...) messages -> (S,...): the sum over the incoming edges of each node."""
    out = messages.new_zeros(graph.nodes, *messages.shape[1:])
    return out.index_add(0, graph.target, messages)


def edge_softmax(scores: Tensor, graph: Graph) -> Tensor:
    """(E,H) -> (E,H): softmax over the incoming edges of each node, in float32."""
    scores = scores.float()
    index = graph.target[:, None].expand_as(scores)
    top = scores.new_full((graph.nodes, scores.shape[1]), -torch.inf)
    top = top.scatter_reduce(0, index, scores.detach(), "amax")
    weights = (scores - at_edges(top, graph.target)).exp()
    return weights / at_edges(sum_edges(weights, graph), graph.target)


class NodeNorm(Enum):
    """Normalisation of node vectors."""

    none = "none"
    layer = "layer"
    batch = "batch"  # over the real nodes of the batch

    def make(self, width: int) -> nn.Module:
        """A module called with (S,D) and the graph."""
        kinds = {NodeNorm.none: _NoNorm, NodeNorm.layer: _LayerNorm, NodeNorm.batch: NodeBatchNorm}
        return kinds[self](width)


class _NoNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()

    def forward(self, x: Tensor, graph: Graph) -> Tensor:
        return x


class _LayerNorm(nn.LayerNorm):
    def forward(self, x: Tensor, graph: Graph) -> Tensor:  # type: ignore[override]
        return super().forward(x)


class NodeBatchNorm(BatchNorm1d):
    """Batch normalisation whose statistics leave padded nodes out (Ioffe and Szegedy 2015)."""

    def forward(self, x: Tensor, graph: Graph) -> Tensor:  # type: ignore[override]
        """(S,D) -> (S,D)."""
        if graph.real is None or not self.training:
            return super().forward(x)
        return over_ranks(self, x, graph.real)


class NodeActivation(Enum):
    """Non-linearity after a layer."""

    prelu = "prelu"  # one learned slope for each layer (He et al. 2015)
    relu = "relu"
    elu = "elu"
    none = "none"

    def make(self) -> nn.Module:
        kinds = {"prelu": nn.PReLU, "relu": nn.ReLU, "elu": nn.ELU, "none": nn.Identity}
        return kinds[self.value]()


class GatLayer(nn.Module):
    """Graph attention (Velickovic et al. 2018, arXiv:1710.10903, equations 1 to 5), then norm and activation.

    The score of an edge is LeakyReLU(a_source . W h_source + a_target . W h_target): the paper's
    a^T [W h || W h], split in two so that nothing is concatenated on edges.
    """

    def __init__(
        self,
        given: int,
        width: int,
        heads: int,
        *,
        norm: NodeNorm,
        activation: NodeActivation,
        residual: bool,
        dropout: float,
        attention_dropout: float,
        slope: float,
    ) -> None:
        super().__init__()
        self.heads, self.slope = heads, slope
        self.dropout, self.attention_dropout = dropout, attention_dropout
        self.project = nn.Linear(given, width, bias=False)
        self.source = nn.Parameter(torch.empty(heads, width // heads))
        self.target = nn.Parameter(torch.empty(heads, width // heads))
        self.bias = nn.Parameter(torch.zeros(width))
        self.skip = make_skip(given, width) if residual else None
        self.norm, self.activation = norm.make(width), activation.make()
        gain = nn.init.calculate_gain("relu")
        for weight in (self.project.weight, self.source, self.target):
            nn.init.xavier_normal_(weight, gain)

    def forward(self, x: Tensor, graph: Graph) -> Tensor:
        """(S,C) -> (S,D); `graph` with self loops."""
        x = F.dropout(x, self.dropout, self.training)
        h = self.project(x).unflatten(-1, (self.heads, -1))  # (S,H,d)
        y = sum_edges(at_edges(h, graph.source) * self.weights(h, graph)[..., None], graph).flatten(1) + self.bias
        if self.skip is not None:
            y = y + self.skip(x)
        return self.activation(self.norm(y, graph))

    def weights(self, h: Tensor, graph: Graph) -> Tensor:
        """(S,H,d) -> (E,H): how much each edge carries; they sum to 1 over the edges into a node."""
        outgoing, incoming = ((h * side).sum(-1) for side in (self.source, self.target))
        scores = at_edges(outgoing, graph.source) + at_edges(incoming, graph.target)
        weights = edge_softmax(F.leaky_relu(scores, self.slope), graph)
        return F.dropout(weights, self.attention_dropout, self.training)


class GinLayer(nn.Module):
    """MLP((1 + eps) h + sum of the neighbours): graph isomorphism (Xu et al. 2019, arXiv:1810.00826, 4.1).

    Args:
        hidden: width between the two linear layers of the MLP; the norm and the activation stand there too.
        finish: norm and activation after the MLP.
    """

    def __init__(
        self,
        given: int,
        hidden: int,
        width: int,
        *,
        norm: NodeNorm,
        activation: NodeActivation,
        residual: bool,
        dropout: float,
        eps: float,
        learn_eps: bool,
        finish: bool = True,
    ) -> None:
        super().__init__()
        self.dropout = dropout
        self.eps: float | nn.Parameter = nn.Parameter(torch.tensor([eps])) if learn_eps else eps
        self.up, self.down = nn.Linear(given, hidden), nn.Linear(hidden, width)
        self.hidden_norm, self.hidden_activation = norm.make(hidden), activation.make()
        self.norm = norm.make(width) if finish else NodeNorm.none.make(width)
        self.activation = (activation if finish else NodeActivation.none).make()
        self.skip = make_skip(given, width) if residual else None

    def forward(self, x: Tensor, graph: Graph) -> Tensor:
        """(S,C) -> (S,D); `graph` without self loops: `eps` weighs the node itself."""
        x = F.dropout(x, self.dropout, self.training)
        y = (1 + self.eps) * x + sum_edges(at_edges(x, graph.source), graph)
        y = self.hidden_activation(self.hidden_norm(self.up(y), graph))
        y = self.activation(self.norm(self.down(y), graph))
        return y if self.skip is None else y + self.skip(x)


def make_skip(given: int, width: int) -> nn.Module:
    """The residual way around a layer: a projection only where the widths differ."""
    if given == width:
        return nn.Identity()
    skip = nn.Linear(given, width, bias=False)
    nn.init.xavier_normal_(skip.weight, nn.init.calculate_gain("relu"))
    return skip


def run_layers(layers: Iterable[nn.Module], tokens: Tokens, graph: Graph, emit: Iterable[int] = ()) -> Tokens:
    """Tokens (B,N,C) through the layers of a graph; padded nodes come out as zeros."""
    kept, layers_out = set(emit), {}
    rows, n, _ = tokens.x.shape
    x = tokens.x.flatten(0, 1)
    for i, layer in enumerate(layers):
        x = layer(x, graph)
        if i in kept:
            layers_out[i] = _hide_padding(x, graph).unflatten(0, (rows, n))
    x = _hide_padding(x, graph).unflatten(0, (rows, n))
    return replace(tokens, x=x, layers=layers_out or None)


def _hide_padding(x: Tensor, graph: Graph) -> Tensor:
    return x if graph.real is None else x.masked_fill(~graph.real[:, None], 0.0)


def check_graph(part: str, upstream: Spec) -> None:
    """Refuse what no graph layer can read."""
    if upstream.kind != "vectors":
        raise Mismatch(f"{part} needs vectors, it is given {upstream.kind}")
    if not upstream.edges:
        raise Mismatch(f"{part} needs edges, the view has none")
    if upstream.prefix:
        raise Mismatch(f"{part} has no place for the {upstream.prefix} leading tokens it is given")
    if upstream.rows != "all":
        raise Mismatch(f"{part} needs all nodes of a graph, it is given {upstream.rows} sites: replace, do not drop")


def check_ranges(part: str, *, least: dict[str, int], shares: dict[str, float]) -> None:
    """Refuse sizes below 1 and dropouts outside of [0, 1)."""
    for name, size in least.items():
        if size < 1:
            raise Mismatch(f"{part}.{name}: {size} is below 1")
    for name, share in shares.items():
        if not 0 <= share < 1:
            raise Mismatch(f"{part}.{name}: {share} is not in [0, 1)")
