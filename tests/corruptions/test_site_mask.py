"""Masked sites against their definition."""

import pytest
import torch

from encdec_train.corruptions.site_mask import SiteMask, SiteMaskConfig
from encdec_train.data.example import crop_keys
from encdec_train.rng import Rng
from encdec_train.types import Mismatch, Path, Sites, Spec, Units


class Keyed:
    """The one thing that this corruption reads of a step."""

    def __init__(self, step=0):
        self.rng = Rng(0, step)


def plan(rows, documents, length, ratio, step=0, first=0, valid=None, **path):
    n = documents * length
    number = torch.arange(documents).repeat_interleave(length)
    sample = torch.stack([crop_keys(torch.arange(first, first + rows), int(d)) for d in number], 1)
    sites = Sites(
        sample=sample,
        place=torch.arange(length).repeat(documents).expand(rows, n),
        doc=number.expand(rows, n),
        valid=valid,
        max_len=length,
    )
    units = Units(values=torch.zeros(rows, n, 1), sites=sites)
    spec = Spec(kind="vectors", width=1, length=n, max_len=length)
    return SiteMask(SiteMaskConfig(ratio=ratio), spec)(units, sites, Keyed(step), Path(**path))


@pytest.mark.parametrize(
    ("documents", "length", "ratio", "hidden"), [(7, 42, 0.4, 17), (1, 10, 0.5, 5), (3, 9, 0.6, 6)]
)
def test_every_document_loses_exactly_its_share(documents, length, ratio, hidden):
    found = plan(4, documents, length, ratio)
    assert (found.mask.view(4, documents, length).sum(2) == hidden).all()
    assert found.replace is found.mask and found.keep is None and found.weight is None
    assert torch.equal(found.mask.flatten().nonzero()[:, 0], found.where)


def test_documents_are_masked_apart_and_all_sites_equally_often():
    mask = torch.stack([plan(200, 2, 12, 0.5, step).mask for step in range(20)]).flatten(0, 1).float()
    assert (mask.mean(0) - 0.5).abs().max() < 4.5 * (0.25 / len(mask)) ** 0.5
    across = torch.corrcoef(mask.T)[:12, 12:]
    assert across.abs().max() < 5 / len(mask) ** 0.5


def test_a_row_gets_the_same_mask_in_any_batch_and_another_at_another_step_or_draw():
    whole = plan(8, 3, 16, 0.4)
    assert torch.equal(plan(2, 3, 16, 0.4, first=3).mask, whole.mask[3:5])
    assert not torch.equal(plan(8, 3, 16, 0.4, step=1).mask, whole.mask)
    assert not torch.equal(plan(8, 3, 16, 0.4, draw=1).mask, whole.mask)


def test_padding_weighs_nothing():
    valid = torch.arange(8).expand(3, 8) < 6
    found = plan(3, 1, 8, 0.5, valid=valid)
    assert torch.equal(found.weight, valid.flatten()[found.where].float())


@pytest.mark.parametrize(
    ("ratio", "length", "max_len"), [(0.0, 16, 16), (1.0, 16, 16), (0.4, 0, 0), (0.95, 16, 16), (0.4, 16, 5)]
)
def test_refuses_what_cannot_be(ratio, length, max_len):
    with pytest.raises(Mismatch):
        SiteMaskConfig(ratio=ratio).spec(Spec(kind="vectors", width=4, length=length, max_len=max_len))
