"""Kernels that draw rectangles against their twins, bit for bit, and both against what was stored."""

import hashlib
import math

import pytest
import torch

from encdec_train.kernels import blocks
from encdec_train.kernels.backend import Backend, using
from encdec_train.kernels.blocks import Rectangles, Targets
from encdec_train.rng import Rng
from tests.twins import rng, twice

GRIDS = [(1, 1), (1, 17), (7, 9), (5, 13), (10, 13), (14, 14), (33, 40)]
TABLE = torch.tensor(blocks.ratios(0.3))


def how(n, ratio=0.4, **changes):
    settings = {"count": round(ratio * n), "low": None, "high": ratio, "chance": 1.0, "smallest": 4, "tries": 12}
    return Rectangles(**{**settings, **changes})


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("changes", [{}, {"low": 0.1, "chance": 0.5, "smallest": 1}])
def test_rectangles(grid, changes):
    n = math.prod(grid)
    sample = torch.arange(10).unfold(0, 1, 2)[:, 0] * 7919  # strided
    asked = how(n, **changes)
    found = twice(lambda: blocks.rectangles(sample, grid, TABLE, rng(), "a", asked))
    assert found.shape == (5, n) and (found.sum(1) <= asked.count).all()
    alone = blocks.rectangles(sample[3:4], grid, TABLE, rng(), "a", asked)
    assert torch.equal(alone[0], found[3])
    assert blocks.rectangles(sample[:0], grid, TABLE, rng(), "a", asked).shape == (0, n)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("count", [1, 4])
def test_targets(grid, count):
    n = math.prod(grid)
    most = max(1, int(n * 0.2))
    asked = Targets(blocks=count, most=most, scale=(0.15, 0.2), ratio=(0.75, 1.5), context=(0.85, 1.0))
    sample = torch.arange(5) * 7919
    where, weight, score = twice(lambda: blocks.targets(sample, grid, rng(), "a", asked))
    where = where.view(5, count, most) - torch.arange(5)[:, None, None] * n
    real = weight.view(5, count, most) > 0
    for row in range(5):
        for block in range(count):
            inside = where[row, block][real[row, block]]
            down, right = inside // grid[1], inside % grid[1]
            tall, wide = (int(x.max() - x.min()) + 1 for x in (down, right))
            assert len(inside.unique()) == len(inside) == tall * wide <= most
            assert (where[row, block][~real[row, block]] == inside[0]).all()
        assert torch.equal((score[row] == 0).nonzero()[:, 0], where[row].unique())


def test_a_side_is_half_a_root_rounded():
    square = torch.arange(200_000)
    expected = [max(1, (math.isqrt(x) + 1) // 2) for x in range(200_000)]
    assert blocks.side(square).tolist() == expected
    large = torch.tensor([2**31 - 1, 46340**2, 46340**2 - 1])
    assert blocks.side(large).tolist() == [(math.isqrt(x) + 1) // 2 for x in large.tolist()]


def test_sides_have_the_area_and_the_ratio():
    ratio = TABLE[torch.arange(0, 1024, 33)]
    tall, wide = blocks.sides(torch.full_like(ratio, 900 * blocks.ONE), ratio)
    exact = ratio.double() / blocks.UNIT
    assert torch.equal(tall, (900 * exact).sqrt().round().long())
    assert torch.equal(wide, (900 / exact).sqrt().round().long())
    spread = TABLE.double().log()
    torch.testing.assert_close(
        spread.diff(), torch.full((1023,), -2 * math.log(0.3) / 1024).double(), atol=2e-4, rtol=0
    )


def digest(*tensors):
    return hashlib.sha256(b"".join(x.numpy().tobytes() for x in tensors)).hexdigest()[:16]


GOLDEN = {"rectangles": "41259cabb0ee47d5", "targets": "5abc59c1ad7ba1d7"}


@pytest.mark.parametrize("backend", [Backend.reference, Backend.triton])
def test_blocks_are_those_that_were_stored(backend):
    sample = torch.arange(4) * 13
    asked = Targets(blocks=4, most=39, scale=(0.15, 0.2), ratio=(0.75, 1.5), context=(0.85, 1.0))
    with using(backend=backend, strict=True):
        found = {
            "rectangles": digest(blocks.rectangles(sample, (14, 14), TABLE, rng(), "golden", how(196, smallest=16))),
            "targets": digest(*blocks.targets(sample, (14, 14), rng(), "golden", asked)),
        }
    assert found == GOLDEN


def test_operations_of_torch():
    sample, step = torch.arange(3), torch.tensor(4)
    ops, tags = torch.ops.encdec_train, list(range(7))
    sizes = [8, 4, 3, blocks.ONE, 0, blocks.ONE // 2, 1]
    torch.library.opcheck(ops.mask_rectangles.default, (sample, TABLE, step, tags[:6], [4, 5], sizes))
    bounds = [blocks.ONE // 8, blocks.ONE // 6, blocks.UNIT, blocks.UNIT, blocks.ONE // 2, blocks.ONE]
    torch.library.opcheck(ops.mask_targets.default, (sample, step, tags, [4, 5], bounds, 2, 3))


def test_as_one_graph(kernels):
    def run(sample, step):
        return blocks.rectangles(sample, (5, 7), TABLE, Rng(1, step), "a", how(35))

    inputs = torch.arange(3), torch.tensor(2)
    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(*inputs), run(*inputs))
