"""Blocks of the transformer that are skipped at random."""

import torch

from encdec_train.encoders.transformer import Transformer, TransformerConfig
from encdec_train.types import Sites, Spec, Tokens

INPUT = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))


def run(part):
    place = torch.arange(5).expand(2, -1)
    tokens = Tokens(x=INPUT, sites=Sites(sample=place, place=place))
    return part(tokens).x


def make(layer_drop):
    torch.manual_seed(0)
    config = TransformerConfig(width=8, depth=3, heads=2, final_norm=False, layer_drop=layer_drop)
    return Transformer(config, Spec(kind="vectors", width=8))


def test_blocks_are_skipped_in_training_alone():
    torch.testing.assert_close(run(make(0.9).eval()), run(make(0.0)))
    part = make(0.5)
    skipped = [
        bool(torch.equal(run(part), INPUT)) for _ in range(400)
    ]  # all three at once: one time in eight
    assert 0.06 < sum(skipped) / 400 < 0.2


def test_every_block_stays_in_the_graph():
    part = make(0.999)
    run(part).sum().backward()
    assert all(p.grad is not None for p in part.parameters())
