"""Blocks and patches of a lattice against loops over its places."""

import itertools

import pytest
import torch

from encdec_train.nn.lattice import block_count, blocks, check_blocks, cut, join, split_blocks
from encdec_train.rng import Rng
from encdec_train.types import Mismatch, Sites


@pytest.mark.parametrize(
    ("grid", "block"), [((4, 6), (2, 3)), ((3, 4, 4), (0, 1, 1)), ((2, 4, 6), (1, 2, 0)), ((5,), (1,))]
)
def test_blocks_are_those_of_a_loop(grid, block):
    sides = [b or n for n, b in zip(grid, block, strict=True)]
    groups = {}
    for place, where in enumerate(itertools.product(*map(range, grid))):
        groups.setdefault(tuple(w // s for w, s in zip(where, sides, strict=True)), []).append(place)
    found = blocks(grid, block, torch.device("cpu"))
    assert found.tolist() == [groups[key] for key in sorted(groups)]
    assert block_count(found.numel(), grid, block) == len(groups)


def test_without_a_block_each_site_is_one():
    assert block_count(12, (3, 4), []) == block_count(12, None, []) == 12


@pytest.mark.parametrize("block", [[2, 3], []])
def test_blocks_are_split_by_their_first_site_and_all_sites_come_once(block):
    place = torch.arange(24).expand(3, -1)
    sites = Sites(sample=torch.arange(3)[:, None].expand(-1, 24), place=place, grid=(4, 6))
    count = block_count(24, (4, 6), block)
    keep, lost = split_blocks(sites, block, Rng(0, 0), "x", count // 4, count - count // 4)
    assert keep.shape == (3, 6)
    assert (keep.diff(dim=1) > 0).all()
    assert torch.equal(torch.cat([keep, lost], 1).sort(1).values, place)
    if block:
        table = blocks((4, 6), block, torch.device("cpu"))
        assert all(any(torch.equal(one, known) for known in table) for one in keep)
        order = Rng(0, 0).order("x", sites.sample[:, table[:, 0]], place[:, table[:, 0]])
        assert torch.equal(keep, table[order[:, 0]])
    alone = Sites(sample=sites.sample[1:2], place=place[1:2], grid=(4, 6))
    again, _ = split_blocks(alone, block, Rng(0, 0), "x", count // 4, count - count // 4)
    assert torch.equal(again, keep[1:2])


@pytest.mark.parametrize("sizes,patch", [((4, 6), (2, 3)), ((4, 4, 6), (2, 1, 3)), ((6,), (2,))])
@pytest.mark.parametrize("channels", [1, 3])
def test_patches_are_cut_in_order_and_go_back(sizes, patch, channels):
    values = torch.randn(2, *sizes, channels)
    grid = [n // p for n, p in zip(sizes, patch, strict=True)]
    found = cut(values, patch)
    for i, corner in enumerate(itertools.product(*map(range, grid))):
        window = tuple(slice(c * p, (c + 1) * p) for c, p in zip(corner, patch, strict=True))
        assert torch.equal(found[:, i], values[(slice(None), *window)].flatten(1))
    assert torch.equal(join(found, grid, patch), values)


@pytest.mark.parametrize(
    ("grid", "block", "text"),
    [
        (None, [2], "needs a lattice"),
        ((4, 4), [2], "does not tile"),
        ((4, 4), [3, 2], "of 4 x 4"),
        ((4, 4), [-1, 2], "tile"),
    ],
)
def test_what_does_not_tile_is_refused(grid, block, text):
    with pytest.raises(Mismatch, match=text):
        check_blocks("corruption 'x'", grid, block)
    check_blocks("corruption 'x'", grid, [])
