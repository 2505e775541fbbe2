"""Blocks of a lattice against their definition, row by row in plain Python."""

from __future__ import annotations

import pytest
import torch

from encdec_train.corruptions.multi_block import MultiBlock, MultiBlockConfig
from encdec_train.data.transforms.image import lattice
from encdec_train.rng import Rng
from encdec_train.types import Mismatch, Path, Plan, Spec, Units

SIDES = (10, 12)


class Keyed:
    """The one thing that this corruption reads of a step."""

    def __init__(self, step: int = 0) -> None:
        self.rng = Rng(0, step)


def spec(grid: tuple[int, ...] | None = SIDES) -> Spec:
    return Spec(kind="vectors", width=1, length=120, coords=2, grid=grid)


def plan(rows: int, step: int = 0, first: int = 0, draw: int = 0, **changes: object) -> Plan:
    sites = lattice(torch.arange(first, first + rows)[:, None], SIDES)
    units = Units(values=torch.zeros(rows, 120, 1), sites=sites)
    config = MultiBlockConfig(**changes)  # type: ignore[arg-type]
    return MultiBlock(config, spec())(units, sites, Keyed(step), Path(draw=draw))  # type: ignore[arg-type]


def groups(found: Plan, rows: int, blocks: int) -> list[list[list[int]]]:
    """Sites of every block of every row, without fillers."""
    assert found.where is not None and found.weight is not None
    index = (found.where.view(rows, -1) - 120 * torch.arange(rows)[:, None]).view(rows, blocks, -1)
    real = found.weight.view(rows, blocks, -1) > 0
    return [[index[r, b][real[r, b]].tolist() for b in range(blocks)] for r in range(rows)]


def test_every_group_is_a_rectangle_of_the_asked_size() -> None:
    areas, ratios = [], []
    for row in groups(plan(200), 200, 4):
        for block in row:
            down = sorted({site // 12 for site in block})
            right = sorted({site % 12 for site in block})
            assert block == [12 * i + j for i in down for j in right]  # whole, in row-major order
            assert down == list(range(down[0], down[-1] + 1)) and right == list(range(right[0], right[-1] + 1))
            areas.append(len(block))
            ratios.append(len(down) / len(right))
    assert max(areas) == 24 and min(areas) >= 15 and abs(sum(areas) / 800 - 0.175 * 120) < 1.5  # sides are rounded
    assert 0.6 < min(ratios) < 0.85 and 1.3 < max(ratios) < 2


def test_counts_are_fixed_and_the_context_is_outside_of_all_blocks() -> None:
    found = plan(50)
    assert found.where is not None and found.keep is not None and found.mask is not None and found.weight is not None
    assert found.where.shape == found.weight.shape == (50 * 4 * 24,)
    assert found.keep.shape == (50, 120 - 4 * 24) == (50, MultiBlockConfig().spec(spec()).length)
    assert (found.keep.diff(dim=1) > 0).all()
    for row, blocks in enumerate(groups(found, 50, 4)):
        union = {site for block in blocks for site in block}
        assert set(found.mask[row].nonzero()[:, 0].tolist()) == union
        assert not union & set(found.keep[row].tolist())
    assert found.mask.flatten()[found.where].all()  # fillers too stand in their block


def test_the_context_is_a_square_where_it_is_large_enough() -> None:
    found = plan(100, blocks=1, scale=[0.02, 0.8], context=[0.6, 0.6])  # K = 24 of a square of 8 x 8
    assert found.keep is not None and found.mask is not None
    for row in range(100):
        kept = found.keep[row]
        if (~found.mask[row]).sum() > 100:  # a square of 64 less a block below 20
            assert (kept // 12).max() - (kept // 12).min() < 8 and (kept % 12).max() - (kept % 12).min() < 8


def test_a_row_is_the_same_in_any_batch_and_another_at_another_step_or_draw() -> None:
    whole, part = plan(8), plan(2, first=3)
    assert torch.equal(part.keep, whole.keep[3:5])  # type: ignore[index, arg-type]
    assert groups(part, 2, 4) == groups(whole, 8, 4)[3:5]
    assert not torch.equal(plan(8, step=1).mask, whole.mask)  # type: ignore[arg-type]
    assert not torch.equal(plan(8, draw=1).mask, whole.mask)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "grid", "said"),
    [
        ({}, None, "lattice of two dimensions"),
        ({"blocks": 0}, SIDES, "blocks: 0"),
        ({"blocks": 5}, SIDES, "may leave nothing"),
        ({"scale": [0.3, 0.2]}, SIDES, "scale"),
        ({"context": [0.5, 1.5]}, SIDES, "context"),
        ({"ratio": [1.0]}, SIDES, "ratio"),
    ],
)
def test_what_does_not_fit_is_named(changes: dict[str, object], grid: tuple[int, ...] | None, said: str) -> None:
    with pytest.raises(Mismatch, match=said):
        MultiBlockConfig(**changes).spec(spec(grid))  # type: ignore[arg-type]
