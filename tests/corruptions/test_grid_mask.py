"""Blocks that are replaced, against their definition."""

import pytest
import torch

from encdec_train.corruptions.grid_mask import GridMask, GridMaskConfig
from encdec_train.rng import Rng
from encdec_train.types import Mismatch, Path, Sites, Spec, Units


class Keyed:
    """The one thing that this corruption reads of a step."""

    def __init__(self, step=0):
        self.rng = Rng(0, step)


def plan(rows, grid, step=0, first=0, valid=None, **config):
    n = grid[0] * grid[1]
    sample = torch.arange(first, first + rows)[:, None].expand(rows, n)
    where = Sites(sample=sample, place=torch.arange(n).expand(rows, n), grid=grid, valid=valid)
    spec = Spec(kind="vectors", width=1, length=n, grid=grid)
    GridMaskConfig(**config).spec(spec)
    units = Units(values=torch.zeros(rows, n, 1), sites=where)
    return GridMask(GridMaskConfig(**config), spec)(units, where, Keyed(step), Path())


def test_simmims_numbers():
    """30 of 49 blocks of 2 x 2 patches of 16 pixels (ceil of 0.6 * 49), every block whole."""
    found = plan(5, (14, 14), ratio=0.6, block=[2, 2])
    assert found.mask.sum(1).tolist() == [120] * 5 and found.replace is found.mask and found.keep is None
    cells = found.mask.view(5, 7, 2, 7, 2).transpose(2, 3).flatten(3)
    assert torch.equal(cells.all(-1), cells.any(-1))
    assert torch.equal(found.mask.flatten().nonzero()[:, 0], found.where)


def test_single_sites_are_hidden_equally_often():
    mask = torch.cat([plan(500, (4, 4), step, ratio=0.6).mask for step in range(10)])
    assert (mask.sum(1) == 10).all()
    assert (mask.float().mean(0) - 0.625).abs().max() < 4.5 * (0.625 * 0.375 / len(mask)) ** 0.5


def test_a_row_gets_the_same_mask_in_any_batch_and_another_at_another_step():
    whole = plan(8, (8, 8), block=[2, 4])
    assert torch.equal(plan(2, (8, 8), first=3, block=[2, 4]).mask, whole.mask[3:5])
    assert not torch.equal(plan(8, (8, 8), step=1, block=[2, 4]).mask, whole.mask)


def test_padding_has_no_weight():
    valid = torch.ones(2, 16, dtype=torch.bool)
    valid[1, 8:] = False
    found = plan(2, (4, 4), valid=valid)
    assert torch.equal(found.weight.bool(), valid.flatten()[found.where])


@pytest.mark.parametrize(
    "config", [{"ratio": 0.0}, {"ratio": 1.0}, {"ratio": 0.95}, {"block": [3, 2]}, {"block": [4, 4]}]
)
def test_refuses_what_cannot_be(config):
    with pytest.raises(Mismatch):
        GridMaskConfig(**config).spec(Spec(kind="vectors", width=4, length=16, grid=(4, 4)))
    with pytest.raises(Mismatch, match="one length"):
        GridMaskConfig().spec(Spec(kind="vectors", width=4))
