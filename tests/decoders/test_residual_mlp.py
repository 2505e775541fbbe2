"""Residual perceptrons against their equations."""

import pytest
import torch
import torch.nn.functional as F

from encdec_train.decoders.residual_mlp import ResidualMlpConfig, ResidualMlpDecoder
from encdec_train.nn.position import sincos
from encdec_train.types import Mismatch, Plan, Sites, Spec, Tokens, Units

MEMORY = Spec(kind="vectors", width=6, length=4, coords=2, prefix=1)


def decode(part, x):
    place = torch.arange(4).expand(2, -1)
    coords = torch.stack([place // 2, place % 2], -1).float()
    sites = Sites(sample=place, place=place, coords=coords)
    plan = Plan(inputs=Units(values=coords, sites=sites), sites=sites)
    return part(Tokens(x=x, sites=sites, prefix=1), None, plan), coords


@pytest.mark.parametrize("bias", [True, False])
def test_equals_the_equations(bias):
    torch.manual_seed(0)
    config = ResidualMlpConfig(width=8, depth=2, bias=bias)
    part, x = ResidualMlpDecoder(config, MEMORY, None, MEMORY), torch.randn(2, 5, 6)
    with torch.no_grad():
        for parameter in part.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    found, coords = decode(part, x)

    def norm(y, layer):
        y = (y - y.mean(-1, keepdim=True)) / (y.var(-1, unbiased=False, keepdim=True) + 1e-6).sqrt()
        return y * layer.weight + layer.bias

    y = F.linear(x[:, 1:], part.project.weight, part.project.bias) + sincos(coords, 8)
    for block in part.blocks:
        up, down = block.mlp.up, block.mlp.down
        assert up.weight.shape == (32, 8) and (up.bias is None) == (not bias)
        y = y + F.linear(F.gelu(F.linear(norm(y, block.norm), up.weight, up.bias)), down.weight, down.bias)
    torch.testing.assert_close(found.x, norm(y, part.norm), atol=1e-5, rtol=1e-5)
    assert found.prefix == 0
    assert found.x.shape[-1] == config.spec(MEMORY, None, MEMORY).width


def test_every_site_is_read_by_itself():
    part, x = ResidualMlpDecoder(ResidualMlpConfig(width=8, depth=2), MEMORY, None, MEMORY), torch.randn(2, 5, 6)
    other = x.clone()
    other[:, 3] += 1
    changed = (decode(part, x)[0].x != decode(part, other)[0].x).any(-1)
    assert changed.tolist() == [[False, False, True, False]] * 2


@pytest.mark.parametrize(
    ("changes", "memory", "named"),
    [
        ({}, None, "memory"),
        ({"depth": 0}, MEMORY, "depth"),
        ({}, Spec(kind="vectors", width=6, length=4), "coordinates"),
    ],
)
def test_what_cannot_be_is_refused(changes, memory, named):
    with pytest.raises(Mismatch, match=named):
        ResidualMlpConfig(**changes).spec(memory, None, MEMORY)
