"""MAE's decoder with learned positions before every block, as Point-MAE has it."""

import pytest
import torch

from encdec_train.decoders.mask_tokens import HolePosition, MaskTokens, MaskTokensConfig
from encdec_train.types import Mismatch, Plan, Sites, Spec, Tokens, Units

SITES = Spec(kind="vectors", width=8, length=6, coords=3)
MEMORY = Spec(kind="vectors", width=8, length=2, coords=3, rows="kept")


def config(**settings):
    return MaskTokensConfig(width=8, depth=3, heads=2, position=HolePosition.learned, project=False, **settings)


@pytest.mark.parametrize("prefix", [0, 1])
def test_holes_are_those_of_blocks_over_all_sites(prefix):
    part = MaskTokens(config(every_block=True), MEMORY, None, SITES)
    place, coords = torch.arange(6).expand(2, 6), torch.randn(2, 6, 3)
    sites = Sites(sample=place, place=place, coords=coords)
    keep, lost = torch.tensor([[1, 4], [0, 5]]), torch.tensor([[0, 2, 3, 5], [1, 2, 3, 4]])
    plan = Plan(
        inputs=Units(values=coords, sites=sites),
        sites=sites,
        keep=keep,
        where=(lost + torch.tensor([[0], [6]])).flatten(),
    )
    x = torch.randn(2, prefix + 2, 8)
    found = part(Tokens(x=x, sites=sites.take(keep), prefix=prefix), None, plan)
    order = torch.cat([keep, lost], 1)
    position = part.position(torch.stack([coords[i, order[i]] for i in range(2)]))
    y = torch.cat([x, part.token.expand(2, 4, -1)], 1)
    whole = Sites(sample=place, place=place)
    for block in part.blocks:
        y = torch.cat([y[:, :prefix], y[:, prefix:] + position], 1)
        y = block(y, whole, prefix=prefix)
    assert torch.allclose(found.x, part.norm(y)[:, -4:], atol=1e-5)
    assert found.index is plan.where


def test_without_a_layer_between_them_the_widths_must_agree():
    with pytest.raises(Mismatch, match="set project=true"):
        MaskTokensConfig(width=4, heads=2, project=False).spec(MEMORY, None, SITES)
    names = dict(MaskTokens(config(), MEMORY, None, SITES).named_parameters())
    assert not [name for name in names if name.startswith("project")]
