"""Block-wise masking against its definition."""

import pytest
import torch

from encdec_train.corruptions.block_mask import BlockMask, BlockMaskConfig
from encdec_train.data.transforms.image import lattice
from encdec_train.rng import Rng
from encdec_train.types import Mismatch, Path, Spec, Units


class Keyed:
    """The one thing that this corruption reads of a step."""

    def __init__(self, step=0):
        self.rng = Rng(0, step)


def spec(side):
    return Spec(kind="vectors", width=1, length=side * side, grid=(side, side))


def plan(rows, side=14, step=0, first=0, **config):
    sites = lattice(torch.arange(first, first + rows)[:, None], (side, side))
    units = Units(values=torch.zeros(rows, side * side, 1), sites=sites)
    return BlockMask(BlockMaskConfig(**config), spec(side))(units, sites, Keyed(step), Path())


def test_as_much_as_asked_and_never_more():
    found = plan(400, ratio=75 / 196)
    counts = found.mask.sum(1)
    assert counts.max() == 75 and (counts >= 60).float().mean() > 0.95
    assert found.where.shape == found.weight.shape == (400 * 75,)
    assert torch.equal(found.weight.view(400, 75).sum(1).long(), counts)
    real = found.where[found.weight > 0]
    assert torch.equal(real.sort().values, found.mask.flatten().nonzero()[:, 0])
    assert torch.equal(found.replace, found.mask)


def test_the_first_rectangle_keeps_its_bounds():
    """With one try the mask is one rectangle of the proposed size and shape."""
    mask = plan(500, tries=1, ratio=0.4, smallest=16, aspect=0.5).mask.view(500, 14, 14)
    mask = mask[mask.flatten(1).any(1)]
    tall, wide = mask.any(2).sum(1), mask.any(1).sum(1)
    assert len(mask) > 300 and torch.equal(tall * wide, mask.sum((1, 2)))
    assert (tall * wide).min() >= 12 and (tall * wide).max() <= 78
    ratio = tall / wide
    assert ratio.min() > 0.4 and ratio.max() < 2.5


def test_every_row_of_patches_is_hidden_as_often_as_its_mirror_image():
    share = torch.stack([plan(500, step=step).mask.float().mean(0) for step in range(6)]).mean(0).view(14, 14)
    assert (share - share.flip(0)).abs().max() < 0.05 and (share - share.flip(1)).abs().max() < 0.05
    assert (share - share.T).abs().max() < 0.05


def test_a_row_is_hidden_the_same_alone_and_in_a_batch():
    together = plan(6).mask
    assert torch.equal(plan(1, first=4).mask[0], together[4])
    assert not torch.equal(plan(6, step=1).mask, together)


def test_rows_that_stay_whole_and_shares_that_vary():
    found = plan(2000, side=16, ratio=0.5, ratio_min=0.1, chance=0.5, smallest=4, even=True)
    counts = found.mask.sum(1)
    touched = counts > 0
    assert 0.46 < touched.float().mean() < 0.54
    shares = counts[touched] / 256
    assert shares.max() <= 0.5 and shares.min() > 0.06  # a row may end a little below its own share
    assert abs(shares.mean() - 0.3) < 0.02 and abs(shares.std() - 0.4 / 12**0.5) < 0.02
    weights = found.weight.view(2000, 128)
    torch.testing.assert_close(weights.sum(1), touched.float())
    assert torch.equal((weights > 0).sum(1), counts)
    together = plan(6, side=16, ratio=0.5, ratio_min=0.1, chance=0.5, smallest=4).mask
    assert all(
        torch.equal(plan(1, side=16, first=i, ratio=0.5, ratio_min=0.1, chance=0.5, smallest=4).mask[0], together[i])
        for i in range(6)
    )


@pytest.mark.parametrize(
    "config,side,said",
    [
        (BlockMaskConfig(ratio=1.0), 14, "ratio: 1.0"),
        (BlockMaskConfig(), 4, "smallest: 16 is not within 1 to 6"),
        (BlockMaskConfig(aspect=0.0), 14, "aspect: 0.0"),
        (BlockMaskConfig(tries=0), 14, "tries: 0"),
        (BlockMaskConfig(ratio_min=0.5), 14, "ratio_min: 0.5 is not within 0 to the ratio 0.4"),
        (BlockMaskConfig(chance=0.0), 14, "chance: 0.0"),
    ],
)
def test_what_does_not_fit_is_named(config, side, said):
    with pytest.raises(Mismatch, match=said):
        config.spec(spec(side))


def test_a_line_has_no_rectangles():
    with pytest.raises(Mismatch, match="two dimensions"):
        BlockMaskConfig().spec(Spec(kind="vectors", width=1, length=9))
