"""Blocks that follow a time: they start as the identity, and are then what their equations say."""

import pytest
import torch
import torch.nn.functional as F

from encdec_train.encoders.transformer import Transformer, TransformerConfig
from encdec_train.nn.adaptive import AdaptiveBlock, time_features
from encdec_train.nn.transformer import BlockConfig
from encdec_train.types import Mismatch, Sites, Spec, Tokens

SMALL = {"width": 8, "depth": 2, "heads": 2}


def tokens(cond=None, rows=3):
    sites = Sites(sample=torch.zeros(rows, 4).long(), place=torch.arange(4).expand(rows, 4))
    return Tokens(x=torch.randn(rows, 4, 8), sites=sites, cond=cond)


def test_features_are_waves_of_falling_frequency():
    time = torch.tensor([0.0, 0.25, 0.9])
    found = time_features(time)
    for i in (0, 5, 127):
        angle = 1000 * time * 10000 ** (-i / 128)
        torch.testing.assert_close(found[:, i], angle.cos(), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(found[:, 128 + i], angle.sin(), atol=1e-4, rtol=1e-4)


def test_the_stack_starts_as_a_layer_norm():
    encoder = Transformer(TransformerConfig(adaptive=True, **SMALL), Spec(kind="vectors", width=8))
    given = tokens(time_features(torch.rand(3)))
    torch.testing.assert_close(encoder(given).x, F.layer_norm(given.x, (8,), eps=1e-6))


def test_a_block_scales_shifts_and_gates():
    torch.manual_seed(0)
    block, given, cond = AdaptiveBlock(BlockConfig(**SMALL)), tokens(), torch.randn(3, 8)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.normal_(std=0.3)

    def modulated(norm, x):
        shift, scale = norm.modulation(F.silu(cond)).chunk(2, 1)
        return F.layer_norm(x, (8,), eps=1e-6) * (1 + scale[:, None]) + shift[:, None]

    first, second = block.gates(F.silu(cond)).chunk(2, 1)
    there = torch.nn.MultiheadAttention(8, 2, batch_first=True)
    there.in_proj_weight, there.in_proj_bias = block.attention.qkv.weight, block.attention.qkv.bias
    there.out_proj = block.attention.out
    y = modulated(block.norm, given.x)
    x = given.x + first[:, None] * there(y, y, y)[0]
    x = x + second[:, None] * block.mlp(modulated(block.mlp_norm, x))
    torch.testing.assert_close(block(given.x, given.sites, cond=cond), x, atol=1e-5, rtol=1e-4)


def test_clean_tokens_are_at_time_zero():
    encoder = Transformer(TransformerConfig(adaptive=True, **SMALL), Spec(kind="vectors", width=8))
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.normal_(std=0.3)
    clean = tokens()
    at_zero, later = (
        Tokens(x=clean.x, sites=clean.sites, cond=time_features(torch.full((3,), time))) for time in (0.0, 0.5)
    )
    torch.testing.assert_close(encoder(clean).x, encoder(at_zero).x)
    assert (encoder(clean).x - encoder(later).x).abs().max() > 1e-3


def test_what_does_not_fit_is_named():
    with pytest.raises(Mismatch, match="before each sublayer"):
        TransformerConfig(adaptive=True, norm_first=False).spec(Spec(kind="vectors", width=8))
    with pytest.raises(Mismatch, match="neither dropout"):
        TransformerConfig(adaptive=True, dropout=0.1).spec(Spec(kind="vectors", width=8))
