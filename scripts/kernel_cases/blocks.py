"""Rectangles of a lattice: every kernel gives the bits that torch gives on the CPU; timed against torch and authors."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from encdec_train.corruptions.block_mask import BlockMask, BlockMaskConfig
from encdec_train.corruptions.multi_block import MultiBlock, MultiBlockConfig
from encdec_train.kernels import blocks
from encdec_train.kernels.backend import Backend, using
from encdec_train.types import Path, Sites, Spec, Units
from kernel_cases.common import Bench, Check, Goal, Inputs
from kernel_cases.masking import _Keyed, _on_cpu, _rng

GRIDS = ((1, 1), (7, 9), (14, 14), (32, 32), (64, 64))


def _key(rows: int, dtype: torch.dtype, device: torch.device) -> Inputs:
    sample = torch.arange(rows, device=device) * 7919
    return sample, sample


def _rectangles(grid: tuple[int, int], low: float | None, sample: Tensor, _: Tensor) -> Inputs:
    n = math.prod(grid)
    how = blocks.Rectangles(count=round(0.4 * n), low=low, high=0.4, chance=0.9, smallest=min(16, n), tries=40)
    table = torch.tensor(blocks.ratios(0.3), device=sample.device)
    return (blocks.rectangles(sample, grid, table, _rng(sample.device), "a", how),)


def _targets(grid: tuple[int, int], sample: Tensor, _: Tensor) -> Inputs:
    most = max(1, math.prod(grid) // 5)
    how = blocks.Targets(blocks=4, most=most, scale=(0.15, 0.2), ratio=(0.75, 1.5), context=(0.85, 1.0))
    return blocks.targets(sample, grid, _rng(sample.device), "a", how)


def checks() -> Iterator[Check]:
    for grid in GRIDS:
        calls = {
            "rectangles": partial(_rectangles, grid, None),
            "rectangles of shares": partial(_rectangles, grid, 0.1),
            "targets": partial(_targets, grid),
        }
        for name, call in calls.items():
            yield Check(
                name=f"{name} grid={grid}",
                inputs=partial(_key, 257),
                kernel=call,
                twin=partial(_on_cpu, call),
                dtypes=(torch.float32,),
                exact=True,
            )


def lattice(rows: int, side: int, device: torch.device) -> Sites:
    place = torch.arange(side * side, device=device).expand(rows, -1)
    sample = torch.arange(rows, device=device)[:, None].expand_as(place)
    return Sites(sample=sample, place=place, grid=(side, side))


def _drawn(part: Any, rows: int, side: int, device: torch.device) -> dict[str, Callable[[], object]]:
    sites = lattice(rows, side, device)
    units, part = Units(values=torch.zeros(rows, side**2, 1, device=device), sites=sites), part.to(device)
    step = _Keyed(_rng(device))

    def draw(backend: Backend) -> object:
        with using(backend=backend):
            return part(units, sites, step, Path())

    return {"ours": partial(draw, Backend.auto), "torch": partial(draw, Backend.reference)}


def rectangles_by_turns(side: int, count: int) -> Tensor:
    """Block-wise masking as its authors do it: Python, site by site (microsoft/unilm, beit/masking_generator.py)."""
    hidden, left = torch.zeros(side, side, dtype=torch.bool), count
    for _ in range(40):
        area, ratio = random.uniform(16, max(left, 16)), math.exp(random.uniform(math.log(0.3), -math.log(0.3)))
        tall, wide = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if tall >= side or wide >= side:
            continue
        top, start = random.randint(0, side - tall), random.randint(0, side - wide)
        block = hidden[top : top + tall, start : start + wide]
        new = block.numel() - int(block.sum())
        if 0 < new <= left:
            block.fill_(True)
            left -= new
    return hidden


def rectangles_of_rows(rows: int, side: int, device: torch.device) -> dict[str, Callable[[], object]]:
    spec = Spec(kind="vectors", width=1, length=side * side, grid=(side, side))
    drawn = _drawn(BlockMask(BlockMaskConfig(), spec), rows, side, device)
    return drawn | {"turns in Python": lambda: [rectangles_by_turns(side, 75) for _ in range(rows)]}


def targets_of_rows(rows: int, side: int, device: torch.device) -> dict[str, Callable[[], object]]:
    spec = Spec(kind="vectors", width=1, length=side * side, grid=(side, side))
    return _drawn(MultiBlock(MultiBlockConfig(), spec), rows, side, device)


def benches() -> Iterator[Bench]:
    torch_, python = Goal(against="torch", times=3.0), Goal(against="turns in Python", times=50.0)
    rows = partial(rectangles_of_rows, 256, 14)
    yield Bench(name="rectangles, 256 rows of 14 x 14", prepare=rows, goals=(torch_, python))
    yield Bench(
        name="targets and context, 256 rows of 14 x 14", prepare=partial(targets_of_rows, 256, 14), goals=(torch_,)
    )


def tunings() -> Iterator[Any]:
    """Tiles are constants: these kernels are bound by their launch."""
    return iter(())
