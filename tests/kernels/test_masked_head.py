"""The chunked head against a linear layer and torch's cross entropy."""

import pytest
import torch
import torch.nn.functional as F

from encdec_train.heads.linear import Linear, LinearHeadConfig
from encdec_train.heads.tied import Tied, TiedConfig
from encdec_train.kernels import masked_head as kernel
from encdec_train.kernels.masked_head import masked_head
from encdec_train.losses.cross_entropy import CrossEntropy, CrossEntropyConfig
from encdec_train.types import Goal, Spec


def inputs(rows, width=7, ids=11, dtype=torch.float64):
    torch.manual_seed(rows)
    made = [torch.randn(*shape, dtype=dtype, requires_grad=True) for shape in ((rows, width), (ids, width), (ids,))]
    return made, torch.randint(ids, (rows,)), torch.rand(rows, dtype=dtype) + 0.5


@pytest.fixture
def small(monkeypatch):
    """Chunks of two rows of eleven scores."""
    monkeypatch.setattr(kernel, "SMALL", 25)


@pytest.mark.parametrize("rows", [1, 17, 65])
@pytest.mark.parametrize(("smoothing", "z"), [(0.0, 0.0), (0.1, 0.0), (0.2, 0.01)])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("biased", [False, True])
def test_it_is_the_cross_entropy_of_the_whole(small, rows, smoothing, z, weighted, biased):
    (x, table, bias), ids, weight = inputs(rows)
    bias, weight = bias if biased else None, weight if weighted else None
    scores = F.linear(x, table, bias)
    losses = F.cross_entropy(scores, ids, reduction="none", label_smoothing=smoothing)
    losses = losses + z * scores.logsumexp(-1).square()
    whole = (losses if weight is None else losses * weight).sum()
    ours = masked_head(x, table, bias, ids, weight, smoothing, z)
    torch.testing.assert_close(ours, whole)
    wanted = [tensor for tensor in (x, table, bias) if tensor is not None]
    for one, other in zip(torch.autograd.grad(3 * ours, wanted), torch.autograd.grad(3 * whole, wanted), strict=True):
        torch.testing.assert_close(one, other)


def test_gradcheck(small):
    tensors, ids, weight = inputs(5, width=3, ids=6)
    assert torch.autograd.gradcheck(lambda *x: masked_head(*x, ids, weight, 0.1, 0.01), tensors)


def test_rows_at_some_places_are_all_it_needs(small):
    (x, table, bias), ids, _ = inputs(17)
    where = torch.tensor([3, 9, 9, 0])
    full = F.cross_entropy(F.linear(x, table, bias), ids, reduction="none")[where].sum()
    torch.testing.assert_close(masked_head(x[where], table, bias, ids[where], None), full)


def test_under_autocast_products_are_narrow_and_sums_are_not(small):
    (x, table, bias), ids, weight = inputs(17, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        ours = masked_head(x, table, bias, ids, weight)
        plain = (F.cross_entropy(F.linear(x, table, bias).float(), ids, reduction="none") * weight).sum()
    assert ours.dtype is torch.float32
    torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-4)
    sides = (torch.autograd.grad(side, [x, table, bias]) for side in (ours, plain))
    for one, other in zip(*sides, strict=True):
        assert one.dtype is torch.float32
        torch.testing.assert_close(one, other, rtol=2e-2, atol=2e-2)


def test_without_a_gradient_none_is_made(small):
    (x, table, bias), ids, weight = inputs(17)
    with torch.no_grad():
        ours = masked_head(x, table, bias, ids, weight)
    assert not ours.requires_grad
    torch.testing.assert_close(ours, masked_head(x, table, bias, ids, weight).detach())
    frozen = masked_head(x, table.detach(), bias.detach(), ids, weight)
    assert torch.autograd.grad(frozen, x)[0].shape == x.shape


def test_operation_of_torch_and_compile(small):
    (x, table, bias), ids, weight = inputs(5)
    arguments = (x, table, bias, ids, weight, 0.1, 0.01, torch.float64, 25, True)
    torch.library.opcheck(torch.ops.encdec_train.masked_head.default, arguments)
    compiled = torch.compile(masked_head, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(
        torch.autograd.grad(compiled(x, table, bias, ids, weight), x),
        torch.autograd.grad(masked_head(x, table, bias, ids, weight), x),
    )


@pytest.mark.parametrize("kind", ["linear", "tied"])
def test_the_loss_takes_it_where_the_scores_are_more_than_a_chunk(small, kind):
    upstream, goal = Spec(kind="vectors", width=6), Spec(kind="ids", width=11)
    if kind == "linear":
        head = Linear(LinearHeadConfig(), upstream, goal, None)
    else:
        embedder = torch.nn.Module()
        embedder.table = torch.nn.Embedding(11, 4)
        head = Tied(TiedConfig(transform=True, bias=True, scale=True), upstream, goal, embedder)
    loss = CrossEntropy(CrossEntropyConfig(smoothing=0.1), goal)
    target = Goal(values=torch.arange(9), weight=torch.rand(9))
    rows = torch.randn(9, 6, requires_grad=True)
    whole, ours = (loss(head(rows), target) * target.weight).sum(), loss.fused(head, rows, target)
    torch.testing.assert_close(ours, whole)
    named = [rows, *head.parameters(), *(embedder.parameters() if kind == "tied" else ())]
    for one, other in zip(torch.autograd.grad(ours, named), torch.autograd.grad(whole, named), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    assert loss.fused(head, rows[:2], Goal(values=torch.arange(2))) is None  # one chunk: plain torch
    assert loss.fused(torch.nn.Identity(), rows, target) is None  # no linear layer
