"""Random drop against its definition."""

import math
from dataclasses import replace

import pytest
import torch

from encdec_train.corruptions.drop import Drop, DropConfig
from encdec_train.rng import Rng
from encdec_train.types import Mismatch, Path, Sites, Spec, Units


class Keyed:
    """The one thing that this corruption reads of a step."""

    def __init__(self, step=0):
        self.rng = Rng(0, step)


def sites(rows, n, first=0):
    return Sites(
        sample=torch.arange(first, first + rows)[:, None].expand(rows, n), place=torch.arange(n).expand(rows, n)
    )


def plan(rows, n, ratio, step=0, first=0, **path):
    where = sites(rows, n, first)
    units = Units(values=torch.zeros(rows, n, 1), sites=where)
    corruption = Drop(DropConfig(ratio=ratio), Spec(kind="vectors", width=1, length=n))
    return corruption(units, where, Keyed(step), Path(**path))


@pytest.mark.parametrize(("n", "ratio", "kept"), [(196, 0.75, 49), (16, 0.75, 4), (17, 0.6, 6), (10, 0.5, 5)])
def test_counts_are_exact_and_the_two_parts_are_the_whole(n, ratio, kept):
    found = plan(5, n, ratio)
    assert found.keep.shape == (5, kept)
    assert found.mask.sum(1).tolist() == [n - kept] * 5
    assert (found.keep.diff(dim=1) > 0).all()
    lost = found.where.view(5, -1) - torch.arange(5)[:, None] * n
    assert (lost.diff(dim=1) > 0).all()
    assert torch.equal(torch.cat([found.keep, lost], 1).sort(1).values, torch.arange(n).expand(5, n))
    assert torch.equal(found.mask.flatten().nonzero()[:, 0], found.where)


def test_every_site_is_dropped_equally_often():
    mask = torch.stack([plan(500, 16, 0.75, step).mask for step in range(20)]).flatten(0, 1)
    share = mask.float().mean(0)
    assert (share - 0.75).abs().max() < 4.5 * (0.75 * 0.25 / len(mask)) ** 0.5
    pairs = torch.corrcoef(mask.T.float()) - torch.eye(16)
    assert (pairs.sum(1) / 15 + 1 / 15).abs().max() < 0.02  # a fixed count makes sites repel by 1 / (N - 1)


def test_a_row_gets_the_same_mask_in_any_batch_and_another_at_another_step_or_draw():
    whole = plan(8, 64, 0.5)
    assert torch.equal(plan(2, 64, 0.5, first=3).mask, whole.mask[3:5])
    assert not torch.equal(plan(8, 64, 0.5, step=1).mask, whole.mask)
    assert not torch.equal(plan(8, 64, 0.5, draw=1).mask, whole.mask)


@pytest.mark.parametrize(("ratio", "length"), [(0.0, 16), (1.0, 16), (0.75, 0), (0.95, 16)])
def test_refuses_what_cannot_be(ratio, length):
    with pytest.raises(Mismatch):
        DropConfig(ratio=ratio).spec(Spec(kind="vectors", width=4, length=length))


def lattice_plan(rows, grid, first=0, **config):
    n = math.prod(grid)
    where = replace(sites(rows, n, first), grid=grid)
    units = Units(values=torch.zeros(rows, n, 1), sites=where)
    corruption = Drop(DropConfig(**config), Spec(kind="vectors", width=1, length=n, grid=grid))
    return corruption(units, where, Keyed(), Path())


def test_tubes_hide_the_same_places_in_all_frames():
    """The numbers of VideoMAE: 20 of 196 places stay, in 8 pairs of frames."""
    found = lattice_plan(3, (8, 14, 14), ratio=0.897, block=[0, 1, 1])
    assert found.keep.shape == (3, 160) and found.where.shape == (3 * 1408,)
    mask = found.mask.view(3, 8, 196)
    assert torch.equal(mask, mask[:, :1].expand_as(mask)) and mask[:, 0].sum(1).tolist() == [176] * 3
    assert not torch.equal(mask[0], mask[1])
    spec = DropConfig(ratio=0.897, block=[0, 1, 1]).spec(Spec(kind="vectors", width=1, length=1568, grid=(8, 14, 14)))
    assert spec.length == 160 and spec.rows == "kept"


def test_a_part_of_what_was_dropped_is_predicted():
    """The numbers of CrossMAE: of 196 patches 49 are kept and 49 predicted."""
    found, whole = (lattice_plan(4, (14, 14), ratio=0.75, predict=share) for share in (0.3333, 1.0))
    assert torch.equal(found.keep, whole.keep)
    assert found.mask.sum(1).tolist() == [49] * 4
    assert torch.equal(found.mask.flatten().nonzero()[:, 0], found.where)
    assert not (found.mask & ~whole.mask).any()
    assert torch.equal(lattice_plan(1, (14, 14), first=2, ratio=0.75, predict=0.3333).mask, found.mask[2:3])


def test_which_part_is_predicted_is_drawn_evenly():
    mask = torch.cat([lattice_plan(500, (4, 4), first=500 * i, ratio=0.75, predict=0.5).mask for i in range(10)])
    assert (mask.float().mean(0) - 0.375).abs().max() < 4.5 * (0.375 * 0.625 / len(mask)) ** 0.5


@pytest.mark.parametrize("config", [{"predict": 0.0}, {"predict": 1.5}, {"predict": 0.01}, {"block": [3, 1]}])
def test_refuses_parts_and_blocks_that_cannot_be(config):
    with pytest.raises(Mismatch):
        DropConfig(**config).spec(Spec(kind="vectors", width=4, length=16, grid=(4, 4)))


VALUES = Spec(kind="values", width=3, length=36, grid=(6, 6))
PIXELS = Spec(kind="vectors", width=3, length=36, grid=(6, 6), raw=VALUES)


def hollow_plan(rows=4, first=0, **config):
    where = replace(sites(rows, 36, first), grid=(6, 6))
    units = Units(values=torch.randn(rows, 36, 3), sites=where)
    made = Drop(DropConfig(**config), PIXELS)(units, where, Keyed(), Path())
    return units, made


def test_holes_are_what_would_have_been_dropped():
    """The same sites are hidden and predicted; all stay on the lattice, empty and not valid."""
    units, found = hollow_plan(ratio=0.6, block=[2, 2], hollow=True)
    _, dropped = hollow_plan(ratio=0.6, block=[2, 2])
    assert torch.equal(found.mask, dropped.mask) and torch.equal(found.where, dropped.where)
    assert found.keep is None and found.sites.grid == (6, 6)
    assert torch.equal(found.sites.valid, ~found.mask) and found.sites.valid.sum(1).tolist() == [12] * 4
    assert torch.equal(found.inputs.sites.valid, found.sites.valid)
    assert torch.equal(found.inputs.values[found.sites.valid], units.values[found.sites.valid])
    assert (found.inputs.values[found.mask] == 0).all()
    assert DropConfig(ratio=0.6, block=[2, 2], hollow=True).spec(PIXELS) == PIXELS


def test_holes_that_are_not_predicted_are_empty_too():
    _, found = hollow_plan(ratio=0.5, predict=0.5, hollow=True)
    assert found.mask.sum(1).tolist() == [9] * 4 and found.sites.valid.sum(1).tolist() == [18] * 4
    assert (found.inputs.values[~found.sites.valid] == 0).all()
    assert torch.equal(hollow_plan(1, 2, ratio=0.5, predict=0.5, hollow=True)[1].sites.valid, found.sites.valid[2:3])


@pytest.mark.parametrize(
    "changes",
    [
        {"raw": None},
        {"raw": replace(VALUES, kind="ids")},
        {"raw": replace(VALUES, length=72)},
        {"docs": True},
        {"max_len": 18},
    ],
)
def test_only_values_of_single_sites_are_emptied(changes):
    with pytest.raises(Mismatch, match="hollow"):
        DropConfig(hollow=True).spec(replace(PIXELS, **changes))
