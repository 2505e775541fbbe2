"""Positions inside attention: what they are by definition, and that packing does not change them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from encdec_train.nn.position import LinearBias, PointPosition, rotate, rotation
from encdec_train.nn.transformer import Attention, BlockConfig
from encdec_train.types import Sites


def line(n: int, rows: int = 1) -> Sites:
    place = torch.arange(n).expand(rows, -1)
    return Sites(sample=place, place=place)


def test_rotation_is_a_product_of_complex_numbers() -> None:
    x, place = torch.randn(2, 3, 5, 8, dtype=torch.float64), torch.tensor([[0, 1, 2, 7, 30], [4, 3, 2, 1, 0]])
    pairs = torch.complex(x[..., :4], x[..., 4:])
    frequency = 100.0 ** (-torch.arange(4, dtype=torch.float64) * 2 / 8)
    turned = pairs * torch.polar(torch.ones(()).double(), place[:, None, :, None] * frequency)
    expected = torch.cat([turned.real, turned.imag], -1)
    torch.testing.assert_close(rotate(x, rotation(place, 8, 100.0)), expected, atol=1e-5, rtol=1e-5)


def test_rotation_is_that_of_transformers() -> None:
    llama = pytest.importorskip("transformers.models.llama.modeling_llama")
    q, k, place = torch.randn(1, 2, 6, 8), torch.randn(1, 2, 6, 8), torch.arange(6)[None]
    turned = rotation(place, 8, 10000.0)
    cos, sin = (torch.cat([part, part], -1)[:, 0] for part in turned)
    expected = llama.apply_rotary_pos_emb(q, k, cos, sin)
    torch.testing.assert_close((rotate(q, turned), rotate(k, turned)), expected)


def test_products_know_distances_alone() -> None:
    q, k = torch.randn(1, 1, 1, 16), torch.randn(1, 1, 1, 16)

    def score(a: int, b: int) -> torch.Tensor:
        turned = (rotate(x, rotation(torch.tensor([[at]]), 16, 500.0)) for x, at in ((q, a), (k, b)))
        return (next(turned) * next(turned)).sum()

    torch.testing.assert_close(score(3, 7), score(40, 44), atol=1e-4, rtol=1e-4)
    assert (score(3, 7) - score(7, 3)).abs() > 1e-3  # left is not right


def test_the_prefix_is_not_turned_and_last_rows_keep_their_places() -> None:
    x, turned = torch.randn(1, 1, 6, 4), rotation(torch.arange(1, 5)[None], 4, 10.0, prefix=2)
    y = rotate(x, turned)
    assert torch.equal(y[:, :, :2], x[:, :, :2]) and not torch.equal(y[:, :, 2], x[:, :, 2])
    torch.testing.assert_close(rotate(x[:, :, 4:], turned), y[:, :, 4:])


@pytest.mark.parametrize("heads", [1, 2, 6, 8, 12, 16])
def test_slopes_are_those_of_transformers(heads: int) -> None:
    bloom = pytest.importorskip("transformers.models.bloom.modeling_bloom")
    theirs = bloom.build_alibi_tensor(torch.ones(1, 5), heads, torch.float32).view(heads, 5)  # slope * place
    bias = LinearBias(heads)(line(5)).dense(5, 5)
    torch.testing.assert_close(bias[:, 0], -theirs)
    torch.testing.assert_close(bias, bias.transpose(1, 2))


def test_a_linear_bias_is_added_to_the_scores() -> None:
    """Against torch's own attention with a mask of penalties."""
    torch.manual_seed(0)
    ours, x, sites = Attention(BlockConfig(width=16, heads=4)), torch.randn(3, 9, 16), line(9, 3)
    theirs = nn.MultiheadAttention(16, 4, batch_first=True)
    theirs.load_state_dict(
        {
            "in_proj_weight": ours.qkv.weight,
            "in_proj_bias": ours.qkv.bias,
            "out_proj.weight": ours.out.weight,
            "out_proj.bias": ours.out.bias,
        }
    )
    distance = (torch.arange(9)[:, None] - torch.arange(9)).abs()
    penalty = -torch.tensor([1 / 4, 1 / 16, 1 / 64, 1 / 256])[:, None, None] * distance
    expected, _ = theirs(x, x, x, attn_mask=penalty.repeat(3, 1, 1))
    found = ours(x, query=sites, key=sites, prefix=(0, 0), bias=LinearBias(4)(sites))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_a_point_position_is_two_layers():
    part, coords = PointPosition(3, 8, 6), torch.randn(2, 5, 3)
    wanted = F.gelu(coords @ part.up.weight.T + part.up.bias) @ part.down.weight.T + part.down.bias
    assert torch.allclose(part(coords), wanted, atol=1e-6)
