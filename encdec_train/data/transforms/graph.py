"""Graphs: rows of node features and edges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from encdec_train.data.config import DataConfig, GraphDataConfig
from encdec_train.data.example import Example, Row
from encdec_train.data.transform import Drawing, Transform
from encdec_train.registry import transforms
from encdec_train.rng import Rng
from encdec_train.types import Mismatch, Plan, Spec, Units

SHOWN = 4  # graphs, nodes of each and features of each that are shown to people


@dataclass(kw_only=True)
class GraphConfig:
    undirected: bool = True  # carry every edge both ways


@transforms.register("graph", GraphConfig)
class Graph(Transform):
    """{column: N lists of C numbers, edges: (2,E)} -> view "graph": values (N,C), edges (2,E').

    Doubled edges and self loops are taken out: an encoder adds the loops that it wants.
    """

    def __init__(self, config: GraphConfig, data: DataConfig) -> None:
        super().__init__(config, data)
        if not isinstance(data, GraphDataConfig):
            raise Mismatch(
                f"transform 'graph' needs a data set of graphs, {type(data).__name__} describes another kind"
            )
        self.column, self.edges, self.width = data.column or "features", data.edges, data.features

    def specs(self) -> dict[str, Spec]:
        return {"graph": Spec(kind="values", width=self.width, edges=True)}

    def __call__(self, item: Any, sample: int, rng: Rng, *, clean: bool) -> Row:
        values = torch.from_numpy(np.asarray(item[self.column]).astype(np.float32))
        edges = torch.from_numpy(np.asarray(item[self.edges], dtype=np.int64).reshape(2, -1))
        self._check(values, edges, sample)
        return {"graph": Example(values=values, sample=sample, edges=self._simple(edges, len(values)))}

    def _check(self, values: Tensor, edges: Tensor, sample: int) -> None:
        if values.dim() != 2 or values.shape[1] != self.width:
            raise ValueError(
                f"graph {sample}: column '{self.column}' has shape {tuple(values.shape)}, expected nodes of "
                f"{self.width} features (data.features)"
            )
        if edges.numel() and not 0 <= int(edges.min()) <= int(edges.max()) < len(values):
            raise ValueError(
                f"graph {sample}: column '{self.edges}' names nodes from {int(edges.min())} to "
                f"{int(edges.max())}, the graph has {len(values)}"
            )

    def _simple(self, edges: Tensor, nodes: int) -> Tensor:
        """(2,E'): no loops, no doubles, both ways if asked, in a fixed order."""
        source, target = edges[:, edges[0] != edges[1]]
        if self.config.undirected:
            source, target = torch.cat([source, target]), torch.cat([target, source])
        keys = torch.unique(source * nodes + target)
        return torch.stack([keys // nodes, keys % nodes])

    def draw(self, units: Units, plan: Plan, prediction: Tensor) -> Drawing | None:
        """The hidden nodes of a few graphs as text: their neighbours, true and predicted features, the cosine."""
        if plan.where is None or plan.mask is None or prediction.shape[1:] != (self.width,):
            return None
        weight = plan.weight if plan.weight is not None else torch.ones(len(plan.where))
        lines: list[str] = []
        shown: dict[int, int] = {}
        for where, predicted, counted in zip(plan.where.tolist(), prediction, weight.tolist(), strict=True):
            graph, node = divmod(where, units.sites.n)
            if counted and graph < SHOWN and shown.get(graph, 0) < SHOWN:
                shown[graph] = shown.get(graph, 0) + 1
                lines.append(_describe(units, plan.mask, graph, node, predicted))
        return Drawing(suffix="txt", content="\n".join(lines).encode() + b"\n")

    def show(self, units: Units, plan: Plan) -> Drawing | None:
        """A few graphs in lines: their size, the nodes whose features are hidden, and who is next to whom."""
        from encdec_train.data.pictures import hidden

        assert units.sites.edges is not None
        edges, real, n = units.sites.edges.cpu(), units.sites.real().cpu(), units.sites.n
        unseen = hidden(plan)
        lines = []
        for graph in range(min(SHOWN, units.sites.rows)):
            source, target = edges[:, edges[0] // n == graph] % n
            away = [] if unseen is None else (unseen[graph] & real[graph]).nonzero().flatten().tolist()
            pairs = " ".join(f"{a}-{b}" for a, b in zip(source.tolist(), target.tolist(), strict=True) if a < b)
            lines += [
                f"graph {graph}: {int(real[graph].sum())} nodes",
                f"hidden    {' '.join(map(str, away)) or 'none'}",
                f"edges     {pairs}",
                "",
            ]
        return Drawing(suffix="txt", content="\n".join(lines).encode())

    def preprocess(self) -> dict[str, Any]:
        return {"view": "graph", "features": self.width, "undirected": self.config.undirected}


def _describe(units: Units, mask: Tensor, graph: int, node: int, predicted: Tensor) -> str:
    """One hidden node in a line: features by their number, the largest first."""
    true = units.values[graph, node].to(predicted)
    assert units.sites.edges is not None
    source, target = units.sites.edges
    around = source[target == graph * units.sites.n + node]
    visible = int((~mask.flatten()[around]).sum())
    cosine = torch.nn.functional.cosine_similarity(true, predicted, dim=0)
    return (
        f"graph {graph}, node {node}, {visible} of {len(around)} neighbours visible: "
        f"true {_largest(true)}, predicted {_largest(predicted)}, cosine {cosine:.2f}"
    )


def _largest(features: Tensor) -> str:
    found = features.topk(min(SHOWN, len(features)))
    return " ".join(f"{i}:{v:.2g}" for i, v in zip(found.indices.tolist(), found.values.tolist(), strict=True))
