"""The Triton side of `kernels.blocks`: integer work only, so that it equals its twin bit for bit."""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import triton
import triton.language as tl

from encdec_train.kernels.crosscompile import Job
from encdec_train.kernels.masking_triton import begin, below, chance, fold

LEVELS = tl.constexpr(1024)


@triton.jit
def side(square):
    """Half the root of an integer, rounded, at least 1: right whatever the root is rounded to."""
    root = tl.sqrt(square.to(tl.float32)).to(tl.int64)
    root += ((root + 1) * (root + 1) <= square).to(tl.int64)
    root -= (root * root > square).to(tl.int64)
    return tl.maximum((root + 1) >> 1, 1)


TAGS = ["ratio_tag", "chance_tag", "area_tag", "aspect_tag", "top_tag", "left_tag"]


@triton.jit(do_not_specialize=[*TAGS, "count", "smallest", "low", "high"])
def rectangles_kernel(
    sample,
    table,
    step,
    out,
    ratio_tag,
    chance_tag,
    area_tag,
    aspect_tag,
    top_tag,
    left_tag,
    height,
    width,
    stride,
    count,
    smallest,
    tries,
    limit,
    low,
    high,
    VARIES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """All rectangles of a row, one after the other. One program for a row, which keeps its mask."""
    row = tl.program_id(0).to(tl.int64)
    key = tl.load(sample + row * stride)
    n = height * width
    most = count.to(tl.int64)
    if VARIES:
        spread = (high - low).to(tl.int64) * chance(fold(begin(step, ratio_tag), key))
        most = ((low + (spread >> 24)) * n) >> 24
    most = tl.where(chance(fold(begin(step, chance_tag), key)) < limit, most, 0)
    areas, aspects = fold(begin(step, area_tag), key), fold(begin(step, aspect_tag), key)
    tops, starts = fold(begin(step, top_tag), key), fold(begin(step, left_tag), key)
    here = tl.arange(0, BLOCK)
    down, right = here // width, here % width
    hidden = here < 0
    left = most
    for turn in range(0, tries):
        area = (smallest.to(tl.int64) << 24) + chance(fold(areas, turn)) * (left - smallest)
        ratio = tl.load(table + ((chance(fold(aspects, turn)) * LEVELS) >> 24))
        tall, wide = side((area * ratio) >> 38), side(((area << 18) // ratio) >> 24)
        top = (chance(fold(tops, turn)) * (height - tall + 1)) >> 24
        start = (chance(fold(starts, turn)) * (width - wide + 1)) >> 24
        block = (down >= top) & (down < top + tall) & (right >= start) & (right < start + wide) & (here < n)
        new = tl.sum((block & (hidden == 0)).to(tl.int32), 0)
        taken = (new > 0) & (new <= left) & (tall < height) & (wide < width)
        hidden = hidden | (block & taken)
        left -= tl.where(taken, new, 0)
    tl.store(out + row * n + here, hidden, mask=here < n)


@triton.jit
def between(start, low, high):
    """Uniform from `low` to `high`."""
    return low + (((high - low).to(tl.int64) * chance(start)) >> 24)


SQUARES = ["scale_tag", "ratio_tag", "top_tag", "left_tag", "square_tag", "square_top_tag", "square_left_tag"]
BOUNDS = ["scale_low", "scale_high", "ratio_low", "ratio_high", "context_low", "context_high"]


@triton.jit(do_not_specialize=[*SQUARES, *BOUNDS])
def targets_kernel(
    sample,
    step,
    where,
    weight,
    score,
    scale_tag,
    ratio_tag,
    top_tag,
    left_tag,
    square_tag,
    square_top_tag,
    square_left_tag,
    rows,
    columns,
    stride,
    scale_low,
    scale_high,
    ratio_low,
    ratio_high,
    context_low,
    context_high,
    most,
    BLOCKS: tl.constexpr,
    MOST: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The blocks of a row, their sites in a list, and what is left for the context. One program for a row."""
    row = tl.program_id(0).to(tl.int64)
    key = tl.load(sample + row * stride)
    n = rows * columns
    here, lane = tl.arange(0, BLOCK), tl.arange(0, MOST)
    down, right = here // columns, here % columns
    taken = here < 0
    for block in range(0, BLOCKS):
        area = between(fold(fold(begin(step, scale_tag), key), block), scale_low, scale_high) * n
        ratio = between(fold(fold(begin(step, ratio_tag), key), block), ratio_low, ratio_high)
        tall = tl.minimum(side((area * ratio) >> 38), tl.minimum(rows, most))
        wide = tl.minimum(tl.minimum(side(((area << 18) // ratio) >> 24), columns), most // tall)
        top = below(fold(fold(begin(step, top_tag), key), block), rows - tall + 1)
        left = below(fold(fold(begin(step, left_tag), key), block), columns - wide + 1)
        real = lane < tall * wide
        at = tl.where(real, lane, 0)
        index = (top + at // wide) * columns + left + at % wide
        out = (row * BLOCKS + block) * most + lane
        tl.store(where + out, row * n + index, mask=lane < most)
        tl.store(weight + out, real.to(tl.float32), mask=lane < most)
        taken = taken | ((down >= top) & (down < top + tall) & (right >= left) & (right < left + wide))
    edge = side((between(fold(begin(step, square_tag), key), context_low, context_high) * n) >> 22)
    height, width = tl.minimum(edge, rows), tl.minimum(edge, columns)
    top = below(fold(begin(step, square_top_tag), key), rows - height + 1)
    left = below(fold(begin(step, square_left_tag), key), columns - width + 1)
    square = (down >= top) & (down < top + height) & (right >= left) & (right < left + width)
    tl.store(score + row * n + here, tl.where(taken, 0, 1 + square.to(tl.int32)).to(tl.uint8), mask=here < n)


def options(n: int) -> tuple[int, int]:
    """Tile and warps of a program that holds a lattice of `n` sites: 128 sites a warp."""
    block = max(16, triton.next_power_of_2(n))
    return block, min(max(block // 128, 1), 8)


def jobs(arch: int) -> list[Job]:
    """Every kernel as `blocks` launches it, the same for all architectures."""
    found = []
    for n in (256, 1024, 4096):
        block, warps = options(n)
        rectangles = dict.fromkeys(("sample", "table", "step"), "*i64") | {"out": "*i1", "stride": "i64"}
        rectangles |= dict.fromkeys(TAGS, "i64")
        rectangles |= dict.fromkeys(("height", "width", "count", "smallest", "tries", "limit", "low", "high"), "i32")
        for varies in (False, True):
            found.append(
                Job(
                    name=f"rectangles {n} varies={varies}",
                    kernel=rectangles_kernel,
                    signature=rectangles,
                    constants={"VARIES": varies, "BLOCK": block},
                    options={"num_warps": warps},
                )
            )
        targets = dict.fromkeys(("sample", "step", "where"), "*i64") | {"weight": "*fp32", "score": "*u8"}
        targets |= dict.fromkeys(SQUARES, "i64") | {"stride": "i64"}
        targets |= dict.fromkeys(("rows", "columns", *BOUNDS, "most"), "i32")
        found.append(
            Job(
                name=f"targets {n}",
                kernel=targets_kernel,
                signature=targets,
                constants={"BLOCKS": 4, "MOST": options(n // 5)[0], "BLOCK": block},
                options={"num_warps": warps},
            )
        )
    return found
