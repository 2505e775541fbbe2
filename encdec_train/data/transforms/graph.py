"""Graphs: rows of node features and edges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from encdec_train.data.config import DataConfig, GraphDataConfig
from encdec_train.data.example import Example, Row
from encdec_train.data.transform import Transform
from encdec_train.registry import transforms
from encdec_train.rng import Rng
from encdec_train.types import Mismatch, Spec


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
        values = torch.from_numpy(
            np.asarray(item[self.column], dtype=np.float32)
        )  # nested lists: numpy is faster
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

    def preprocess(self) -> dict[str, Any]:
        return {"view": "graph", "features": self.width, "undirected": self.config.undirected}
