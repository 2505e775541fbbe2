from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from encdec_train.encoders.gat import Gat, GatConfig
from encdec_train.encoders.gin import Gin, GinConfig
from encdec_train.nn.graph import NodeNorm
from encdec_train.types import Attend, Mismatch
from tests.graphs import VECTORS, VIEW, example, permuted, tokens, units

ENCODERS = {
    "gat": (Gat, GatConfig(width=8, depth=2, heads=2)),
    "gat batch norm": (Gat, GatConfig(width=8, depth=2, heads=2, norm=NodeNorm.batch, residual=True)),
    "gin": (Gin, GinConfig(width=8, depth=2)),
}


@pytest.fixture(params=ENCODERS)
def encoder(request: pytest.FixtureRequest) -> Any:
    torch.manual_seed(0)
    part, config = ENCODERS[request.param]
    return part(config, VECTORS)  # type: ignore[arg-type]


def test_a_batch_is_its_graphs_one_by_one(encoder: Any) -> None:
    encoder.eval()
    graphs = [example(n, n) for n in (5, 9, 1, 7)]
    batch = encoder(tokens(units(*graphs)))
    assert batch.x.shape == (4, 9, 8)
    for row, graph in zip(batch.x, graphs, strict=True):
        n = len(graph.values)
        torch.testing.assert_close(row[:n], encoder(tokens(units(graph))).x[0])
        assert not row[n:].any()  # padded nodes


def test_padding_changes_nothing_in_training(encoder: Any) -> None:
    """Statistics of a batch are those of its real nodes, however far the rows are padded."""
    few, graphs = example(4, 1), [example(6, 2), example(6, 3)]
    padded = units(*graphs, few)
    longer = units(*graphs, few, example(11, 4))
    sites = longer.sites
    assert sites.valid is not None and sites.edges is not None
    hidden = replace(
        longer,
        sites=replace(
            sites,
            valid=sites.valid & (torch.arange(4) < 3)[:, None],
            edges=sites.edges[:, sites.edges[0] < 33],
        ),
    )
    torch.testing.assert_close(encoder(tokens(padded)).x, encoder(tokens(hidden)).x[:3, :6], rtol=1e-4, atol=1e-5)


def test_nodes_have_no_order(encoder: Any) -> None:
    encoder.eval()
    graph, order = example(10, 5), torch.randperm(10, generator=torch.Generator().manual_seed(0))
    straight = encoder(tokens(units(graph))).x[0]
    torch.testing.assert_close(encoder(tokens(units(permuted(graph, order)))).x[0], straight[order])


def test_all_parameters_learn(encoder: Any) -> None:
    encoder(tokens(units(example(8, 6), example(5, 7)))).x.square().sum().backward()
    assert all(parameter.grad is not None for parameter in encoder.parameters())


def test_emitted_layers() -> None:
    encoder = Gin(GinConfig(width=8, depth=3, emit=[0, 2]), VECTORS).eval()
    found = encoder(tokens(units(example(6, 0), example(4, 1))))
    assert found.layers is not None and set(found.layers) == {0, 2}
    assert torch.equal(found.layers[2], found.x)


@pytest.mark.parametrize(
    "config,upstream,said",
    [
        (GatConfig(width=10, heads=4), VECTORS, "width 10 does not divide into 4 heads"),
        (GatConfig(dropout=1.0), VECTORS, "dropout: 1.0 is not in"),
        (GatConfig(), replace(VECTORS, edges=False), "needs edges"),
        (GinConfig(depth=0), VECTORS, "depth: 0 is below 1"),
        (GinConfig(), replace(VECTORS, rows="kept"), "needs all nodes"),
        (GinConfig(), replace(VECTORS, prefix=1), "no place for the 1 leading"),
        (GinConfig(), VIEW, "needs vectors"),
    ],
)
def test_what_does_not_fit_is_named(config: Any, upstream: Any, said: str) -> None:
    with pytest.raises(Mismatch, match=said):
        config.spec(upstream)


def test_an_attention_pattern_is_refused(encoder: Any) -> None:
    with pytest.raises(ValueError, match="along edges"):
        encoder(tokens(units(example(4, 0))), Attend(causal=True))
