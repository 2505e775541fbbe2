"""Small random graphs for tests."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from encdec_train.data.example import Example, collate
from encdec_train.types import Spec, Tokens, Units

FEATURES = 6
VIEW = Spec(kind="values", width=FEATURES, edges=True)
VECTORS = replace(VIEW, kind="vectors", features=FEATURES, raw=VIEW)


def example(nodes: int, seed: int, *, density: float = 0.3) -> Example:
    """A random undirected graph without loops."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(nodes, FEATURES, generator=generator)
    half = (torch.rand(nodes, nodes, generator=generator) < density).triu(1)
    return Example(values=values, sample=seed, edges=(half | half.T).nonzero().T)


def units(*examples: Example) -> Units:
    return collate([{"graph": graph} for graph in examples])["graph"]


def tokens(given: Units) -> Tokens:
    return Tokens(x=given.values, sites=given.sites)


def adjacency(graph: Example) -> Tensor:
    """(N,N) float: [target, source] = 1 for each edge."""
    assert graph.edges is not None
    dense = torch.zeros(len(graph.values), len(graph.values), dtype=graph.values.dtype)
    dense[graph.edges[1], graph.edges[0]] = 1
    return dense


def permuted(graph: Example, order: Tensor) -> Example:
    """The same graph, node `order[i]` now at place i."""
    assert graph.edges is not None
    return replace(graph, values=graph.values[order], edges=order.argsort()[graph.edges])
