"""Sums over all pairs against the same sums of the whole, in float64; the kernel in float32."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F

from encdec_train.kernels import contrastive
from encdec_train.kernels.backend import Backend, using
from encdec_train.kernels.contrastive import log_sum_exp, softplus_sum
from encdec_train.losses.info_nce import InfoNce, InfoNceConfig
from encdec_train.losses.nt_xent import NtXent, NtXentConfig
from encdec_train.losses.pairwise_sigmoid import PairwiseSigmoid, PairwiseSigmoidConfig
from encdec_train.losses.queued_nce import QueuedNce, QueuedNceConfig
from encdec_train.types import Spec

SIZES = [(1, 1, 3), (17, 17, 5), (63, 65, 20), (65, 63, 17), (130, 130, 33)]


@pytest.fixture
def small(monkeypatch):
    """Chunks of few rows."""
    monkeypatch.setattr(contrastive, "CHUNK", 150)


def vectors(n, m, width, dtype=torch.float64):
    torch.manual_seed(n + m)
    left, right = (F.normalize(torch.randn(rows, width, dtype=torch.float64), dim=-1).to(dtype) for rows in (n, m))
    numbers = (torch.tensor(x, dtype=dtype) for x in (7.0, -3.0))
    return [x.requires_grad_() for x in (left, right, *numbers)]


def whole(left, right, scale, bias, skip, kind):
    """The definition: all scores at once."""
    scores = left @ right.T * scale
    if kind == "softplus":
        return F.softplus(scores + bias).sum(1)
    if skip is not None:
        away = torch.arange(len(left))[:, None] + skip == torch.arange(len(right))
        scores = scores.masked_fill(away, -torch.inf)
    return scores.logsumexp(1) if kind == "rows" else torch.cat([scores.logsumexp(1), scores.logsumexp(0)])


def ours(left, right, scale, bias, skip, kind):
    if kind == "softplus":
        return softplus_sum(left, right, scale, bias)
    rows, columns = log_sum_exp(left, right, scale, skip, both=kind == "both")
    return rows if kind == "rows" else torch.cat([rows, columns])


def gradients(found, inputs, kind):
    weight = torch.linspace(-1, 2, len(found), dtype=found.dtype)
    return torch.autograd.grad((found * weight).sum(), inputs[: 4 if kind == "softplus" else 3])


CASES = [("rows", None), ("rows", 0), ("rows", 3), ("rows", -2), ("both", None), ("both", 1), ("softplus", None)]


def defined(n, m, skip):
    return not (skip is not None and min(n, m) == 1)


@pytest.mark.parametrize(("kind", "skip"), CASES)
@pytest.mark.parametrize(("n", "m", "width"), SIZES)
def test_chunks_give_the_whole(small, n, m, width, kind, skip):
    if defined(n, m, skip):
        inputs = vectors(n, m, width)
        one, other = ours(*inputs, skip, kind), whole(*inputs, skip, kind)
        torch.testing.assert_close(one, other)
        for a, b in zip(gradients(one, inputs, kind), gradients(other, inputs, kind), strict=True):
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize(("kind", "skip"), CASES)
@pytest.mark.parametrize(("n", "m", "width"), SIZES)
def test_kernels_in_float32_against_the_whole_in_float64(n, m, width, kind, skip):
    if defined(n, m, skip):
        inputs = vectors(n, m, width)
        near = [x.detach().float().requires_grad_() for x in inputs]
        with using(backend=Backend.triton, strict=True):
            one = ours(*near, skip, kind)
            found = gradients(one, near, kind)
        other = whole(*inputs, skip, kind)
        torch.testing.assert_close(one.double(), other, rtol=2e-6, atol=2e-6)
        for a, b in zip(found, gradients(other, inputs, kind), strict=True):
            torch.testing.assert_close(a.double(), b, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("backend", [Backend.reference, Backend.triton])
@pytest.mark.parametrize("kind", ["both", "softplus"])
def test_gradcheck(small, backend, kind):
    inputs = vectors(3, 4, 2)
    wanted = inputs if kind == "softplus" else inputs[:3]
    with using(backend=backend, strict=True):
        assert torch.autograd.gradcheck(lambda *x: ours(*x, *inputs[len(x) :], None, kind), wanted, atol=1e-6)


@pytest.mark.parametrize("backend", [Backend.reference, Backend.triton])
def test_the_sides_may_be_swapped_and_may_be_views(backend):
    left, right, scale, _ = (x.detach() for x in vectors(17, 23, 6, torch.float32))
    with using(backend=backend):
        rows, columns = log_sum_exp(left, right, scale, both=True)
        swapped = log_sum_exp(right, left, scale, both=True)
        view = log_sum_exp(left.T.contiguous().T, torch.cat([right, right], 1)[:, :6], scale, both=True)
    for one, other in ((swapped, (columns, rows)), (view, (rows, columns))):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


def test_all_scores_equal_is_the_logarithm_of_their_number(kernels):
    same = torch.ones(5, 4)
    rows, columns = log_sum_exp(same, torch.ones(70, 4), 1.0, both=True)
    torch.testing.assert_close(rows, torch.full((5,), 4 + math.log(70)))
    torch.testing.assert_close(columns, torch.full((70,), 4 + math.log(5)))


def test_operations_of_torch_and_compile(small):
    left, right, scale, bias = vectors(5, 4, 3)
    ops = torch.ops.encdec_train
    torch.library.opcheck(ops.contrastive.default, (left, right, scale, bias, 1, True, True, False))
    rows, columns, slopes = left.detach()[:, 0], right.detach()[:, 0], torch.empty(0, dtype=torch.float64)
    given = (*(x.detach() for x in (left, right, scale, bias)), rows, columns, rows, columns, 1, True, False, True)
    torch.library.opcheck(ops.contrastive_backward.default, given)
    given = (*given[:5], slopes, rows, slopes, 1, False, False, False)
    torch.library.opcheck(ops.contrastive_backward.default, given)

    def loss(left, right, scale):
        rows, columns = log_sum_exp(left, right, scale, both=True)
        return (rows + 2 * columns.sum()).sum()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    for run in (compiled, torch.compile(loss, fullgraph=True, backend="aot_eager", dynamic=True)):
        for one, other in zip(
            torch.autograd.grad(run(left, right, scale), [left, right, scale]),
            torch.autograd.grad(loss(left, right, scale), [left, right, scale]),
            strict=True,
        ):
            torch.testing.assert_close(one, other)


@pytest.mark.parametrize(
    "make",
    [
        lambda: InfoNce(InfoNceConfig(learned=True), None),
        lambda: InfoNce(InfoNceConfig(both=False), None),
        lambda: NtXent(NtXentConfig(temperature=0.2), None),
        lambda: PairwiseSigmoid(PairwiseSigmoidConfig(bias=-2.0), None),
        lambda: QueuedNce(QueuedNceConfig(queue=20), Spec(kind="vectors", width=5)),
    ],
    ids=["both ways", "one way", "self-pair", "sigmoid", "queue"],
)
@pytest.mark.parametrize("backend", [Backend.reference, Backend.triton])
def test_losses_of_many_are_those_of_few(monkeypatch, make, backend):
    sides = [torch.randn(9, 5) for _ in range(3)]
    part = make()
    found = []
    for limit in (contrastive.MANY, 10):
        monkeypatch.setattr(contrastive, "MANY", limit)
        left, right = ([x.clone().requires_grad_() for x in side] for side in (sides[:1], sides[1:]))
        with using(backend=backend), torch.autocast("cpu", torch.bfloat16):
            loss = copy.deepcopy(part)(left, right, pairs=[(0, 0), (0, 1)]).sum
        wanted = [*left, *right]
        given = torch.autograd.grad(loss, wanted, allow_unused=True)
        found.append([loss.detach(), *(x for x in given if x is not None)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=2e-5, atol=1e-5)


def test_ranks_find_their_own_columns(monkeypatch):
    monkeypatch.setattr(contrastive, "MANY", 10)
    everyone = F.normalize(torch.randn(12, 4), dim=-1)
    part = NtXent(NtXentConfig(), None)
    whole = part.rows(everyone, everyone, 2)
    monkeypatch.setattr("encdec_train.losses.nt_xent.world", lambda: (1, 2))
    torch.testing.assert_close(part.rows(everyone[6:], everyone, 2), whole[6:])
