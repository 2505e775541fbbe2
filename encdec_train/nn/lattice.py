"""Equal blocks of a lattice: what is hidden together, and the arrays that patches are cut from and put back into."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from encdec_train.kernels import masking
from encdec_train.rng import Rng
from encdec_train.types import Layer, Mismatch, Sites, Spec


def check_blocks(part: str, grid: tuple[int, ...] | None, block: Sequence[int]) -> None:
    """Raise `Mismatch` unless blocks of these sides tile the lattice; 0 stands for the whole axis."""
    if not block:
        return
    if grid is None:
        raise Mismatch(f"{part}.block: {list(block)} needs a lattice, the view has none")
    fits = len(block) == len(grid) and all(b == 0 or (b > 0 and n % b == 0) for b, n in zip(block, grid, strict=False))
    if not fits:
        raise Mismatch(f"{part}.block: {list(block)} does not tile a lattice of {' x '.join(map(str, grid))}")


def block_count(length: int, grid: tuple[int, ...] | None, block: Sequence[int]) -> int:
    """Number of blocks that `length` sites make; without a block, each site is one."""
    if not block or grid is None:
        return length
    return math.prod(n // b if b else 1 for n, b in zip(grid, block, strict=True))


def blocks(grid: tuple[int, ...], block: Sequence[int], device: torch.device) -> Tensor:
    """(blocks,sites of a block) int64: the sites of every block, blocks and sites in row-major order."""
    sides = [b or n for n, b in zip(grid, block, strict=True)]
    index = torch.arange(math.prod(grid), device=device)
    split = [size for n, b in zip(grid, sides, strict=True) for size in (n // b, b)]
    axes = range(len(grid))
    return index.view(split).permute([2 * i for i in axes] + [2 * i + 1 for i in axes]).reshape(-1, math.prod(sides))


def split_blocks(
    sites: Sites, block: Sequence[int], rng: Rng, tag: str, kept: int, predicted: int
) -> tuple[Tensor, Tensor]:
    """Sites of the first `kept` and of the last `predicted` blocks of each row, the blocks in random order.

    Returns:
        (B,kept * sites of a block) and (B,predicted * sites of a block) int64, each in the order of the row.
    """
    if not block:
        keep, lost, _ = masking.keep(sites.sample, sites.place, rng, tag, kept, predicted)
        return keep, lost
    assert sites.grid is not None, "check_blocks comes first"
    table = blocks(sites.grid, block, sites.sample.device)
    first = table[:, 0]
    keep, lost, _ = masking.keep(sites.sample[:, first], sites.place[:, first], rng, tag, kept, predicted)
    return table[keep].flatten(1).sort(1).values, table[lost].flatten(1).sort(1).values


def cut(values: Tensor, patch: Sequence[int]) -> Tensor:
    """(B,*sizes,C) -> (B,N,product of patch * C): patches in row-major order, each with its own order kept."""
    axes = len(patch)
    split = [size for n, p in zip(values.shape[1:-1], patch, strict=True) for size in (n // p, p)]
    order = [0, *range(1, 2 * axes, 2), *range(2, 2 * axes + 1, 2), 2 * axes + 1]
    n = math.prod(split[::2])
    return values.reshape(values.shape[0], *split, values.shape[-1]).permute(order).reshape(values.shape[0], n, -1)


def join(patches: Tensor, grid: Sequence[int], patch: Sequence[int]) -> Tensor:
    """(B,N,product of patch * C) -> (B,*sizes,C): the inverse of `cut`."""
    axes = len(patch)
    tiles = patches.reshape(patches.shape[0], *grid, *patch, -1)
    order = [0] + [axis for i in range(axes) for axis in (1 + i, 1 + axes + i)] + [1 + 2 * axes]
    sizes = [n * p for n, p in zip(grid, patch, strict=True)]
    return tiles.permute(order).reshape(patches.shape[0], *sizes, -1)


def rows(x: Tensor) -> Tensor:
    """(B,D,h,w) -> (B,h*w,D)."""
    return x.flatten(2).transpose(1, 2)


def coarse_sites(sites: Sites, grid: Sequence[int]) -> Sites:
    """Sites of the lattice (h, w) that is left: new places, no coordinates, the key of the picture."""
    h, w = grid
    place = torch.arange(h * w, device=sites.sample.device)
    sample = sites.sample[:, :1].expand(-1, h * w)
    return Sites(sample=sample, place=place.expand_as(sample), grid=(h, w))


class Cells:
    """Which cells of other lattices over the same plane are real: those that hold a real site, or a part of one.

    The answer for each size is made once.
    """

    def __init__(self, valid: Tensor, grid: tuple[int, ...]) -> None:
        self.valid = valid.unflatten(1, grid)[:, None].float()  # (B,1,H,W)
        self.made: dict[tuple[int, ...], Tensor] = {}

    def under(self, x: Tensor) -> Tensor:
        """(B,1,h,w) bool, for maps (B,D,h,w)."""
        size = tuple(x.shape[-2:])
        if size not in self.made:
            self.made[size] = F.adaptive_max_pool2d(self.valid, size) > 0
        return self.made[size]


def cells(sites: Sites) -> Cells | None:
    """None where all sites are real."""
    return None if sites.valid is None or sites.grid is None else Cells(sites.valid, sites.grid)


def plane(part: str, upstream: Spec) -> tuple[int, int]:
    """(H, W) of the lattice that `part` reads.

    Raises:
        Mismatch: it is given anything but vectors on a full lattice of two dimensions.
    """
    if upstream.kind != "vectors":
        raise Mismatch(f"{part} needs vectors, it is given {upstream.kind}")
    if upstream.grid is None or len(upstream.grid) != 2:
        given = "no lattice" if upstream.grid is None else f"a lattice of {len(upstream.grid)} dimensions"
        raise Mismatch(f"{part} needs a full lattice of two dimensions, it is given {given}")
    if upstream.prefix:
        raise Mismatch(f"{part} takes no prefix tokens, it is given {upstream.prefix}")
    return upstream.grid[0], upstream.grid[1]


def pyramid(upstream: Spec, widths: Sequence[int], grids: Sequence[tuple[int, ...]]) -> Spec:
    """What comes out of stages on ever coarser lattices: the last, and all of them as layers."""
    layers = tuple(Layer(width, grid) for width, grid in zip(widths, grids, strict=True))
    last = grids[-1]
    left = replace(upstream, rows="coarse", length=math.prod(last), grid=last, coords=0, edges=False)
    return replace(left, width=widths[-1], layers=layers)
