import pytest
import torch

from encdec_train.embedders.pixels import Pixels, PixelsConfig
from encdec_train.types import Mismatch, Plan, Sites, Spec, Units

VIEW = Spec(kind="values", width=3, length=6, coords=2, grid=(2, 3))


def units():
    key = torch.arange(2)[:, None].expand(2, 6)
    sites = Sites(sample=key, place=torch.arange(6).expand(2, 6), grid=(2, 3))
    return Units(values=torch.randn(2, 6, 3), sites=sites)


def embed(part, plan):
    return part.place(part.features(plan.inputs, plan.sites, plan.keep), plan)


def test_values_pass_as_they_are_and_nothing_is_learned():
    given, part = units(), Pixels(PixelsConfig(), VIEW, mask=False)
    tokens = embed(part, Plan(inputs=given, sites=part.sites(given)))
    assert torch.equal(tokens.x, given.values)
    assert tokens.sites.grid == (2, 3)
    assert not list(part.parameters())


def test_kept_and_replaced_sites():
    given, part = units(), Pixels(PixelsConfig(), VIEW, mask=True)
    keep = torch.tensor([[0, 4], [1, 2]])
    tokens = embed(part, Plan(inputs=given, sites=given.sites, keep=keep))
    assert torch.equal(tokens.x[1], given.values[1, [1, 2]])
    assert tokens.sites.grid is None
    hide = torch.tensor([True, False, False, False, False, True]).expand(2, 6)
    tokens = embed(part, Plan(inputs=given, sites=given.sites, replace=hide))
    assert torch.equal(tokens.x[0, 5], part.mask.vector)
    assert torch.equal(tokens.x[:, 1:5], given.values[:, 1:5])


def test_specs():
    spec = PixelsConfig().spec(VIEW)
    assert (spec.kind, spec.width, spec.features, spec.grid) == ("vectors", 3, 3, (2, 3))
    assert spec.raw is VIEW
    with pytest.raises(Mismatch, match="values"):
        PixelsConfig().spec(Spec(kind="ids", width=100))
