"""What each site may see, against a dense mask written out."""

from __future__ import annotations

import pytest
import torch

from encdec_train.nn.attention import allow, attention
from encdec_train.types import Attend
from tests.texts import documents, packed, padded


@pytest.mark.parametrize("own", [True, False])
def test_seen_narrows_self_attention_and_reading_a_memory(own: bool) -> None:
    """Dense, and in packed rows, where the loop over documents must give way."""
    docs = documents([6, 9])
    for units in (padded(docs), packed(docs, [[0, 1]], 16)):
        sites, rows, n = units.sites, units.sites.rows, units.sites.n
        seen = torch.rand(rows, n, n) < 0.5
        seen |= torch.eye(n, dtype=torch.bool)
        before = allow(None, sites, sites, own=own)
        after = allow(Attend(seen=seen), sites, sites, own=own)
        assert torch.equal(after, seen & before)
        q, k, v = torch.randn(3, rows, 2, n, 4)
        found = attention(q, k, v, query=sites, key=sites, attend=Attend(seen=seen), own=own)
        scores = (q @ k.mT / 2).masked_fill(~after[:, None], -torch.inf)
        torch.testing.assert_close(found[:, :, :6], (scores.softmax(-1) @ v)[:, :, :6], atol=1e-5, rtol=1e-5)


def test_prefix_tokens_do_not_read_padding() -> None:
    """A class token is that of its row, whatever longer rows stand beside it."""
    long, short = padded(documents([9, 4])), padded(documents([9, 4])[1:])
    q, k, v = torch.randn(3, 2, 2, 1 + 9, 8).unbind()
    whole = attention(q, k, v, query=long.sites, key=long.sites, prefix=(1, 1))
    alone = attention(*(x[1:, :, : 1 + 4] for x in (q, k, v)), query=short.sites, key=short.sites, prefix=(1, 1))
    torch.testing.assert_close(whole[1:, :, : 1 + 4], alone)
