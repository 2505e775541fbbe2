from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encdec_train.nn.graph import (
    GatLayer,
    GinLayer,
    Graph,
    NodeActivation,
    NodeBatchNorm,
    NodeNorm,
    edge_softmax,
    sum_edges,
)
from tests.graphs import FEATURES, adjacency, example, units


def gat(**changes: object) -> GatLayer:
    settings: dict = dict(
        norm=NodeNorm.none,
        activation=NodeActivation.prelu,
        residual=False,
        dropout=0.0,
        attention_dropout=0.0,
        slope=0.2,
    )
    layer = GatLayer(FEATURES, 8, 2, **(settings | changes)).double()
    nn.init.normal_(layer.bias)
    return layer


def gin(**changes: object) -> GinLayer:
    settings: dict = dict(
        norm=NodeNorm.none,
        activation=NodeActivation.relu,
        residual=False,
        dropout=0.0,
        eps=0.3,
        learn_eps=False,
    )
    return GinLayer(FEATURES, 10, 8, **(settings | changes)).double()


def dense_gat(layer: GatLayer, x: Tensor, linked: Tensor) -> Tensor:
    """The paper's equations 1 to 5 on a dense adjacency: a^T [W h_i || W h_j] over all pairs."""
    n, heads = len(x), layer.heads
    h = (x @ layer.project.weight.T).view(n, heads, -1)
    pairs = torch.cat([h[:, None].expand(n, n, heads, -1), h[None, :].expand(n, n, heads, -1)], -1)  # [i, j]
    a = torch.cat([layer.target, layer.source], -1)
    scores = F.leaky_relu((pairs * a).sum(-1), layer.slope)
    reads = (linked + torch.eye(n)) > 0
    alpha = scores.masked_fill(~reads[..., None], -torch.inf).softmax(1)
    y = torch.einsum("ijh,jhd->ihd", alpha, h).reshape(n, -1) + layer.bias
    if layer.skip is not None:
        y = y + layer.skip(x)
    return layer.activation(y)


def dense_gin(layer: GinLayer, x: Tensor, linked: Tensor) -> Tensor:
    """MLP(((1 + eps) I + A) X)."""
    y = ((1 + layer.eps) * torch.eye(len(x)).double() + linked) @ x
    y = layer.activation(layer.down(layer.hidden_activation(layer.up(y))))
    return y if layer.skip is None else y + layer.skip(x)


def flat(graph: object) -> tuple[Tensor, Graph]:
    batch = units(graph)  # type: ignore[arg-type]
    return batch.values.flatten(0, 1).double(), Graph.of(batch.sites)


@pytest.mark.parametrize("residual", [False, True])
def test_gat_is_dense_attention_over_neighbours(residual: bool) -> None:
    graph, layer = example(9, 0), gat(residual=residual)
    x, edges = flat(graph)
    expected = dense_gat(layer, x, adjacency(graph).double())
    torch.testing.assert_close(layer(x, edges.with_loops()), expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("residual", [False, True])
def test_gin_is_a_dense_product(residual: bool) -> None:
    graph, layer = example(9, 0), gin(residual=residual)
    x, edges = flat(graph)
    torch.testing.assert_close(layer(x, edges), dense_gin(layer, x, adjacency(graph).double()))


@pytest.mark.parametrize("make,dense,loops", [(gat, dense_gat, True), (gin, dense_gin, False)])
def test_gradients_are_those_of_the_dense_form(make, dense, loops) -> None:  # type: ignore[no-untyped-def]
    graph, layer = example(7, 1), make()
    x, edges = flat(graph)
    x.requires_grad_()
    edges = edges.with_loops() if loops else edges
    weights = torch.randn(7, 8).double()
    inputs = [x, *layer.parameters()]
    ours = torch.autograd.grad((layer(x, edges) * weights).sum(), inputs)
    theirs = torch.autograd.grad((dense(layer, x, adjacency(graph).double()) * weights).sum(), inputs)
    for our, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(our, their, rtol=1e-5, atol=1e-5)


def test_edge_softmax_sums_to_one_where_edges_arrive() -> None:
    _, graph = flat(example(12, 2))
    scores = 1000 * torch.randn(len(graph.source), 3)  # far beyond what exp can hold
    total = sum_edges(edge_softmax(scores, graph), graph)
    arrive = torch.zeros(graph.nodes).index_add(0, graph.target, torch.ones(len(graph.target))) > 0
    torch.testing.assert_close(total[arrive], torch.ones_like(total[arrive]))


def test_a_node_without_neighbours_reads_itself() -> None:
    layer = gat(activation=NodeActivation.none)
    x, graph = flat(example(4, 3, density=0.0))
    torch.testing.assert_close(
        layer(x, graph.with_loops()), x @ layer.project.weight.T + layer.bias, rtol=1e-6, atol=1e-7
    )


def test_batch_norm_leaves_padding_out() -> None:
    norm, reference = NodeBatchNorm(5), nn.BatchNorm1d(5)
    real = torch.rand(40) < 0.6
    x = torch.randn(40, 5) * 3 + 1
    none = torch.empty(0, dtype=torch.int64)
    graph = Graph(source=none, target=none, real=real, nodes=40)
    torch.testing.assert_close(norm(x, graph)[real], reference(x[real]), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(norm.running_mean, reference.running_mean)
    torch.testing.assert_close(norm.running_var, reference.running_var)
    norm.eval()
    reference.eval()
    torch.testing.assert_close(norm(x, graph), reference(x))


def test_learned_eps_gets_a_gradient() -> None:
    layer = gin(learn_eps=True)
    x, graph = flat(example(6, 4))
    layer(x, graph).sum().backward()
    assert isinstance(layer.eps, nn.Parameter) and layer.eps.grad is not None
