"""Attention over packed documents, one after the other, against its definition by a dense mask."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from encdec_train.kernels.attention import Bias
from encdec_train.nn.attention import attention
from encdec_train.types import Attend, Sites

LENGTHS = [[5, 3], [12], [2]]  # of rows of 12: padding of 4, none, and 10, which is longer than `longest`
N, LONGEST = 12, 12


def sites() -> Sites:
    doc, place, bounds = [], [], [0]
    for lengths in LENGTHS:
        fill = N - sum(lengths)
        doc.append([i for i, n in enumerate(lengths) for _ in range(n)] + [-1] * fill)
        place.append([p for n in [*lengths, fill] for p in range(n)])
        bounds += [*lengths, fill]
    ids = torch.tensor(doc)
    return Sites(
        sample=ids,
        place=torch.tensor(place),
        valid=ids >= 0,
        doc=ids,
        cu_seqlens=torch.tensor(bounds).cumsum(0).int(),
        max_len=LONGEST,
    )


@pytest.mark.parametrize("biased", [False, True], ids=["plain", "bias"])
@pytest.mark.parametrize(
    "attend",
    [None, Attend(causal=True), Attend(window=2), Attend(causal=True, window=2)],
    ids=["all", "causal", "window", "both"],
)
def test_equals_the_dense_mask(attend: Attend | None, biased: bool) -> None:
    """Values at real sites, zeros at padding, and the same gradient of the bias."""
    torch.manual_seed(0)
    at = sites()
    q, k, v = (torch.randn(3, 2, N, 4) for _ in range(3))
    found = []
    for chosen in (at, replace(at, cu_seqlens=None)):
        table = torch.linspace(-1, 1, 2 * (2 * LONGEST - 1)).view(2, -1).requires_grad_()
        bias = Bias(diagonals=table, origin=LONGEST - 1) if biased else None
        out = attention(q, k, v, query=chosen, key=chosen, attend=attend, bias=bias)
        real = out.transpose(1, 2)[at.valid]
        real.square().sum().backward() if bias is not None else None
        found.append((out, real, table.grad))
    torch.testing.assert_close(found[0][1], found[1][1])
    assert not found[0][0].transpose(1, 2)[~at.valid].any()
    if biased:
        torch.testing.assert_close(found[0][2], found[1][2])


def test_padding_may_be_longer_than_any_document() -> None:
    """The bias of 5 places does not reach the 10 sites of padding, and need not."""
    short = [[5, 3], [4, 4, 4], [2]]
    at = sites()
    doc = torch.tensor([[0] * 5 + [1] * 3 + [-1] * 4, [0] * 4 + [1] * 4 + [2] * 4, [0] * 2 + [-1] * 10])
    bounds = torch.tensor([0, 5, 3, 4, 4, 4, 4, 0, 2, 10]).cumsum(0).int()
    at = replace(at, doc=doc, valid=doc >= 0, cu_seqlens=bounds, max_len=5)
    assert int(bounds[-1]) == N * len(short)
    q = torch.randn(3, 1, N, 4)
    out = attention(q, q, q, query=at, key=at, bias=Bias(diagonals=torch.zeros(1, 9), origin=4))
    assert out.isfinite().all() and not out[2, 0, 2:].any()
