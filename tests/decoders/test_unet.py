"""The U-Net over a pyramid: SparK's decoder, written out with torch's functions."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from encdec_train.decoders.unet import Unet, UnetConfig
from encdec_train.nn.lattice import join, pyramid
from encdec_train.types import Mismatch, Plan, Sites, Spec, Tokens, Units

VIEW = Spec(kind="values", width=64 * 3, length=4, coords=2, grid=(2, 2))
SITES = replace(VIEW, kind="vectors", raw=VIEW)
MEMORY = pyramid(SITES, [5, 6, 7], [(8, 8), (4, 4), (2, 2)])
CONFIG = UnetConfig(width=16, levels=3)


def given(valid):
    place = torch.arange(4).expand(2, -1)
    sites = Sites(sample=place, place=place, grid=(2, 2), valid=valid)
    layers = {i: torch.randn(2, side * side, width) for i, (side, width) in enumerate([(8, 5), (4, 6), (2, 7)])}
    plan = Plan(inputs=Units(values=torch.zeros(2, 4, 192), sites=sites), sites=sites)
    return Tokens(x=layers[2], sites=sites, layers=layers), plan


def expected(part, layers, valid):
    """(B,3,16,16)."""
    x = 0
    for level, (index, side) in enumerate([(2, 2), (1, 4), (0, 8)]):
        fill, maps = part.fills[level], layers[index].view(2, side, side, -1)
        real = valid.view(2, 2, 2).repeat_interleave(2**level, 1).repeat_interleave(2**level, 2)
        rows = maps[real]
        mean, variance = rows.mean(0), rows.var(0, unbiased=False)
        dense = fill.mask.vector.expand_as(maps).clone()
        dense[real] = (rows - mean) / (variance + 1e-5).sqrt() * fill.norm.weight + fill.norm.bias
        kernel = fill.project.weight.shape[-1]
        assert kernel == (1 if level == 0 else 3)
        x = x + F.conv2d(dense.permute(0, 3, 1, 2), fill.project.weight, fill.project.bias, padding=kernel // 2)
        double, first, first_norm, _, second, second_norm = part.ups[level]
        x = F.conv_transpose2d(x, double.weight, double.bias, stride=2, padding=1)
        x = F.relu6(F.batch_norm(F.conv2d(x, first.weight, padding=1), None, None, *affine(first_norm), True))
        x = F.batch_norm(F.conv2d(x, second.weight, padding=1), None, None, *affine(second_norm), True)
    return F.conv2d(x, part.project.weight, part.project.bias)


def affine(norm):
    return norm.weight, norm.bias


@pytest.mark.parametrize("holes", [True, False])
def test_equals_the_layers_written_out(holes):
    torch.manual_seed(0)
    part = Unet(CONFIG, MEMORY, None, SITES)
    with torch.no_grad():
        for parameter in part.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    valid = torch.tensor([[True, False, False, True], [False, True, False, False]])
    memory, plan = given(valid if holes else None)
    found = part(memory, None, plan)
    whole = torch.ones_like(valid)
    wanted = expected(part, memory.layers, valid if holes else whole)
    pixels = join(found.x, (2, 2), (8, 8)).permute(0, 3, 1, 2)
    torch.testing.assert_close(pixels, wanted, atol=1e-5, rtol=1e-4)
    assert found.x.shape == (2, 4, 192) and found.sites is plan.sites and found.layers is None
    spec = CONFIG.spec(MEMORY, None, SITES)
    assert (spec.rows, spec.width, spec.length) == ("all", 192, 4)


def test_what_stands_in_a_hole_is_not_read():
    part = Unet(CONFIG, MEMORY, None, SITES)
    memory, plan = given(torch.tensor([[True, False, False, True]] * 2))
    sides = [2 ** (3 - i) for i in range(3)]
    real = plan.sites.valid.view(2, 2, 2)
    upped = [real.repeat_interleave(s // 2, 1).repeat_interleave(s // 2, 2).flatten(1)[..., None] for s in sides]
    other = {i: torch.where(upped[i], layer, 9.0) for i, layer in memory.layers.items()}
    torch.testing.assert_close(part(memory, None, plan).x, part(replace(memory, layers=other), None, plan).x)


def test_it_asks_for_as_many_states_as_it_has_levels():
    assert UnetConfig(levels=2, width=8).emits(MEMORY) == [-1, -2]
    assert UnetConfig(levels=5, width=64).emits(MEMORY) == [-1, -2, -3]


def test_the_published_size_has_the_parameters_of_the_authors_decoder():
    """decoder.py and spark.py of keyu-tian/SparK, counted by hand: 768 channels, halved five times."""
    sites = Spec(kind="vectors", width=3072, length=49, grid=(7, 7), raw=Spec(kind="values", width=3072, length=49))
    with torch.device("meta"):
        memory = pyramid(sites, [256, 512, 1024, 2048], [(56, 56), (28, 28), (14, 14), (7, 7)])
        part = Unet(UnetConfig(), memory, None, sites)
    widths = [768 // 2**i for i in range(6)]
    pairs = list(pairwise(widths))
    ups = sum(16 * c * c + c + 9 * c * c + 2 * c + 9 * c * d + 2 * d for c, d in pairs)
    fills = sum(
        3 * e + (9 if level else 1) * e * d + d
        for level, (e, d) in enumerate(zip([2048, 1024, 512, 256], widths, strict=False))
    )
    assert sum(p.numel() for p in part.parameters()) == ups + fills + 24 * 3 + 3
    assert sum(isinstance(m, nn.ConvTranspose2d) for m in part.modules()) == 5


@pytest.mark.parametrize(
    ("config", "memory", "sites", "named"),
    [
        (CONFIG, None, SITES, "memory"),
        (UnetConfig(width=12, levels=3), MEMORY, SITES, "halved 3 times"),
        (CONFIG, replace(MEMORY, grid=None), SITES, "no lattice"),
        (CONFIG, replace(MEMORY, layers=()), SITES, "hidden states"),
        (CONFIG, replace(MEMORY, layers=MEMORY.layers[-1:] * 2), SITES, "twice"),
        (CONFIG, MEMORY, replace(SITES, grid=(3, 3)), "tiled"),
        (CONFIG, MEMORY, replace(SITES, raw=replace(VIEW, width=190)), "8 x 8"),
        (CONFIG, MEMORY, replace(SITES, raw=replace(VIEW, kind="ids")), "ids"),
    ],
)
def test_what_does_not_fit_is_refused(config, memory, sites, named):
    with pytest.raises(Mismatch, match=named):
        config.spec(memory, None, sites)
