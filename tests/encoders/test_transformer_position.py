"""Positions that every block adds again."""

import torch

from encdec_train.encoders.transformer import Transformer, TransformerConfig
from encdec_train.types import Sites, Spec, Tokens

VIEW = Spec(kind="vectors", width=8, length=5)


def test_blocks_after_the_first_add_positions_again_and_leave_the_prefix_alone():
    part = Transformer(TransformerConfig(width=8, depth=3, heads=2, prefix=2), VIEW)
    place = torch.arange(5).expand(2, 5)
    sites, x, position = Sites(sample=place, place=place), torch.randn(2, 5, 8), torch.randn(2, 5, 8)
    found = part(Tokens(x=x + position, sites=sites, position=position))
    y = torch.cat([part.tokens.expand(2, -1, -1), x], 1)
    for block in part.blocks:
        y = torch.cat([y[:, :2], y[:, 2:] + position], 1)
        y = block(y, sites, prefix=2)
    assert torch.allclose(found.x, part.norm(y), atol=1e-6)
    assert found.position is None  # what follows is not to add them
    assert not torch.allclose(found.x, part(Tokens(x=x + position, sites=sites)).x)
