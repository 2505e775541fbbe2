"""Enhanced decoding against attention written out."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from encdec_train.decoders.enhanced import Enhanced, EnhancedConfig
from encdec_train.embedders.ids import IdsConfig
from encdec_train.types import Attend, Mismatch, Plan, Tokens
from tests.texts import documents, padded, view

CONFIG = EnhancedConfig(width=8, heads=1, norm_first=False, final_norm=False)


def test_equals_attention_written_out() -> None:
    torch.manual_seed(0)
    units, sites = padded(documents([9, 5])), IdsConfig(width=8).spec(view())
    part = Enhanced(CONFIG, replace(sites, rows="one", length=1), sites, sites).eval()
    for parameter in part.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    seen = (torch.rand(2, 9, 9) < 0.5) & ~torch.eye(9, dtype=torch.bool)
    seen[:, 1:, 0] = True
    plan = Plan(inputs=units, sites=units.sites, attend=Attend(seen=seen))
    vector, x = torch.randn(2, 1, 8), torch.randn(2, 9, 8)
    one = units.sites.take(torch.zeros(2, 1, dtype=torch.int64))
    found = part(Tokens(x=vector, sites=one), Tokens(x=x, sites=units.sites), plan).x

    block, cross = part.blocks[0], part.blocks[0].cross
    for row, n in enumerate((9, 5)):
        queries = part.norm(vector[row] + part.positions.weight[:n])
        read = torch.cat([vector[row], x[row, 1:n]])
        k, v = cross.kv(read).chunk(2, -1)
        scores = (cross.q(queries) @ k.T / 8**0.5).masked_fill(~seen[row, :n, :n], -torch.inf)
        y = block.cross_norm(queries + cross.out(scores.softmax(-1) @ v))
        y = block.mlp_norm(y + block.mlp.down(F.gelu(block.mlp.up(y))))
        torch.testing.assert_close(found[row, 1:n], y[1:], atol=1e-5, rtol=1e-5)


def test_refuses() -> None:
    sites = IdsConfig(width=8).spec(view())
    with pytest.raises(Mismatch, match="reads one vector"):
        CONFIG.spec(sites, sites, sites)
    with pytest.raises(Mismatch, match="tokens of its own"):
        CONFIG.spec(replace(sites, rows="one"), None, sites)
    with pytest.raises(Mismatch, match="its inputs has 4"):
        CONFIG.spec(replace(sites, rows="one"), replace(sites, width=4), sites)
