from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from encdec_train.decoders.remask import Remask, RemaskConfig, RemaskLayer
from encdec_train.embedders.raw import Raw, RawEmbedderConfig
from encdec_train.encoders.gat import Gat, GatConfig
from encdec_train.heads.identity import IdentityHeadConfig
from encdec_train.types import Mismatch, Plan, Spec, Tokens
from tests.graphs import FEATURES, VECTORS, example, units

MEMORY = replace(VECTORS, width=16)


def given() -> tuple[Tokens, Plan]:
    batch = units(example(6, 0), example(9, 1))
    mask = torch.zeros(2, 9, dtype=torch.bool)
    mask[0, :3] = mask[1, 4:] = True
    x = torch.randn(2, 9, 16, generator=torch.Generator().manual_seed(0))
    return Tokens(x=x, sites=batch.sites), Plan(inputs=batch, sites=batch.sites, mask=mask)


@pytest.mark.parametrize("layer", RemaskLayer)
@pytest.mark.parametrize("learned", [False, True])
def test_what_was_encoded_at_masked_nodes_is_not_read(layer: RemaskLayer, learned: bool) -> None:
    decoder = Remask(RemaskConfig(layer=layer, learned=learned), MEMORY, None, VECTORS)
    memory, plan = given()
    out = decoder(memory, None, plan)
    assert out.x.shape == (2, 9, FEATURES)
    assert plan.mask is not None
    other = replace(memory, x=torch.where(plan.mask[..., None], 5.0, memory.x))
    torch.testing.assert_close(decoder(other, None, plan).x, out.x)
    changed = replace(memory, x=torch.where(plan.mask[..., None], memory.x, 5.0))
    assert not torch.allclose(decoder(changed, None, plan).x, out.x)


@pytest.mark.parametrize("layer", RemaskLayer)
def test_all_parameters_learn(layer: RemaskLayer) -> None:
    decoder = Remask(RemaskConfig(layer=layer, learned=True), MEMORY, None, VECTORS)
    memory, plan = given()
    decoder(memory, None, plan).x.square().sum().backward()
    assert all(parameter.grad is not None for parameter in decoder.parameters())


@pytest.mark.parametrize(
    "config,memory,said",
    [
        (RemaskConfig(heads=4), MEMORY, "width 6 does not divide into 4 heads"),
        (RemaskConfig(), None, "no memory"),
        (RemaskConfig(), replace(MEMORY, edges=False), "needs edges"),
        (RemaskConfig(dropout=-0.1), MEMORY, "dropout: -0.1"),
    ],
)
def test_what_does_not_fit_is_named(config: RemaskConfig, memory: Any, said: str) -> None:
    with pytest.raises(Mismatch, match=said):
        config.spec(memory, None, VECTORS)


def official_parameters(c: int, hidden: int) -> int:
    """GraphMAE's transductive model by hand (THUDM/GraphMAE: two GAT layers, PReLU; one GAT layer back)."""
    mask_token = c
    first = c * hidden + 2 * hidden + hidden + 1  # projection, two score vectors, bias, PReLU
    second = hidden * hidden + 2 * hidden + hidden + 1
    to_decoder = hidden * hidden
    decoder = hidden * c + 2 * c + c  # one head as wide as the features, no activation
    return mask_token + first + second + to_decoder + decoder


@pytest.mark.parametrize("c,hidden", [(1433, 512), (500, 1024)])  # Cora, PubMed
def test_parameters_of_the_official_architecture(c: int, hidden: int) -> None:
    view = Spec(kind="values", width=c, edges=True)
    sites = RawEmbedderConfig().spec(view)
    config = GatConfig(width=hidden, depth=2, heads=4)
    memory = config.spec(sites)
    decoder = RemaskConfig().spec(memory, None, sites)
    assert IdentityHeadConfig().spec(decoder, view).width == c
    with torch.device("meta"):
        parts = [
            Raw(RawEmbedderConfig(), view, mask=True),
            Gat(config, sites),
            Remask(RemaskConfig(), memory, None, sites),
        ]
    assert sum(p.numel() for part in parts for p in part.parameters()) == official_parameters(c, hidden)
