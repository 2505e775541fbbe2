"""Groups of predicted sites against the decoder run on each group by itself."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from encdec_train.corruptions.drop import flat
from encdec_train.data.transforms.image import lattice
from encdec_train.decoders.mask_tokens import MaskTokens, MaskTokensConfig
from encdec_train.types import Mismatch, Plan, Spec, Tokens, Units

SITES = Spec(kind="vectors", width=6, length=16, coords=2, grid=(4, 4))
MEMORY = replace(SITES, rows="kept", length=5, grid=None, prefix=1)


def build(groups: int) -> MaskTokens:
    torch.manual_seed(0)
    config = MaskTokensConfig(width=8, depth=2, heads=2, groups=groups)
    return MaskTokens(config, MEMORY, None, SITES).eval()


def given(rows: int = 3) -> tuple[Tokens, Plan, torch.Tensor]:
    """Memory of 5 kept sites and a class token, and (rows,2,4) sites in two groups that overlap."""
    sites = lattice(torch.arange(rows)[:, None], (4, 4))
    order = torch.rand(rows, 16, generator=torch.Generator().manual_seed(1)).argsort(1)
    keep, where = order[:, :5], torch.stack([order[:, 5:9], order[:, 7:11]], 1)
    memory = Tokens(x=torch.randn(rows, 6, 6), sites=sites.take(keep), prefix=1)
    units = Units(values=torch.zeros(rows, 16, 1), sites=sites)
    return memory, Plan(inputs=units, sites=sites, keep=keep, where=flat(where.flatten(1), 16)), where


def test_each_group_is_predicted_as_if_it_were_alone() -> None:
    memory, plan, where = given()
    found = build(2)(memory, None, plan)
    assert found.x.shape == (6, 4, 8) and found.index is plan.where
    for group in range(2):
        alone = build(1)(memory, None, replace(plan, where=flat(where[:, group], 16)))
        torch.testing.assert_close(found.x.view(3, 2, 4, 8)[:, group], alone.x)


def test_fillers_change_nothing_for_the_others() -> None:
    memory, plan, where = given()
    weight = torch.ones(3, 2, 4)
    weight[:, 1, 3:] = 0
    filled = where.clone()
    filled[:, 1, 3] = filled[:, 1, 0]
    found = build(2)(memory, None, replace(plan, where=flat(filled.flatten(1), 16), weight=weight.flatten()))
    short = build(1)(memory, None, replace(plan, where=flat(where[:, 1, :3], 16)))
    torch.testing.assert_close(found.x.view(3, 2, 4, 8)[:, 1, :3], short.x)


def test_spec() -> None:
    assert MaskTokensConfig(width=8, heads=2).spec(MEMORY, None, SITES).length == 11
    assert MaskTokensConfig(width=8, heads=2, groups=2).spec(MEMORY, None, SITES).length == 0
    with pytest.raises(Mismatch, match="groups: 0"):
        MaskTokensConfig(width=8, heads=2, groups=0).spec(MEMORY, None, SITES)
