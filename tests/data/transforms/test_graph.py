from __future__ import annotations

from typing import Any

import pytest
import torch

from encdec_train.data.config import DataConfig, GraphDataConfig
from encdec_train.data.example import Example, collate
from encdec_train.data.transforms.graph import Graph, GraphConfig
from encdec_train.rng import Rng
from encdec_train.types import Mismatch, Plan

RNG = Rng(0)


def transform(**settings: Any) -> Graph:
    return Graph(GraphConfig(**settings), GraphDataConfig(features=2))


def row(*edges: tuple[int, int], nodes: int = 4) -> dict[str, Any]:
    sources, targets = [a for a, _ in edges], [b for _, b in edges]
    return {"features": [[float(i), 1.0] for i in range(nodes)], "edges": [sources, targets]}


def pairs(graph: Example) -> list[tuple[int, int]]:
    assert graph.edges is not None
    return [(a, b) for a, b in graph.edges.T.tolist()]


def read(part: Graph, given: dict[str, Any]) -> Example:
    found = part(given, 5, RNG, clean=False)["graph"]
    assert isinstance(found, Example)
    return found


def test_edges_go_both_ways_once_without_loops() -> None:
    given = row((0, 1), (1, 0), (2, 2), (3, 1), (0, 1))
    assert pairs(read(transform(), given)) == [(0, 1), (1, 0), (1, 3), (3, 1)]
    assert pairs(read(transform(undirected=False), given)) == [(0, 1), (1, 0), (3, 1)]


def test_ragged_graphs_are_padded_and_edges_shifted() -> None:
    part = transform()
    rows: Any = [part(row((0, 1), nodes=n), i, RNG, clean=False) for i, n in enumerate((2, 4))]
    units = collate(rows)["graph"]
    assert units.values.shape == (2, 4, 2)
    assert units.sites.valid is not None and units.sites.valid.sum(1).tolist() == [2, 4]
    assert units.sites.edges is not None and units.sites.edges.T.tolist() == [[0, 1], [1, 0], [4, 5], [5, 4]]


def test_a_graph_without_edges() -> None:
    assert read(transform(), row()).edges.shape == (2, 0)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "given,said",
    [
        (row((0, 4)), "graph 5: column 'edges' names nodes from 0 to 4, the graph has 4"),
        ({"features": [[1.0]], "edges": [[], []]}, "expected nodes of 2 features"),
    ],
)
def test_broken_rows_are_named(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        transform()(given, 5, RNG, clean=False)


def test_other_data_are_refused() -> None:
    with pytest.raises(Mismatch, match="needs a data set of graphs"):
        Graph(GraphConfig(), DataConfig())


def test_features_and_edges_keep_their_type() -> None:
    graph = read(transform(), row((0, 1)))
    assert graph.values.dtype == torch.float32 and graph.edges.dtype == torch.int64  # type: ignore[union-attr]


def test_hidden_nodes_are_drawn_as_text() -> None:
    part = transform()
    units = collate([part(row((0, 1), (1, 2)), 0, RNG, clean=True)])["graph"]
    mask = torch.tensor([[True, False, True, False]])
    plan = Plan(
        inputs=units,
        sites=units.sites,
        mask=mask,
        where=torch.tensor([0, 2, 3]),
        weight=torch.tensor([1.0, 1.0, 0.0]),
    )
    drawn = part.draw(units, plan, units.values[0, [0, 2, 3]])
    assert drawn is not None and drawn.suffix == "txt"
    first, second = drawn.content.decode().splitlines()
    assert first.startswith("graph 0, node 0, 1 of 1 neighbours visible: true 1:1 0:0")
    assert second.endswith("predicted 0:2 1:1, cosine 1.00")
    assert part.draw(units, plan, torch.zeros(3, 5)) is None  # not features
