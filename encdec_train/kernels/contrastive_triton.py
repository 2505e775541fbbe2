"""The Triton side of `kernels.contrastive`: all pairs of two sets of vectors, tile by tile, none of them kept.

A tile of similarities is made of loaded tiles only; the gradient of the columns is that of the rows with the two sides
swapped, so no accumulator is ever transposed (which several versions of Triton miscompile for sm_90) and nothing is
added up by atomics.
"""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

from encdec_train.kernels.backend import table
from encdec_train.kernels.crosscompile import Job


@triton.jit
def scores(
    left,
    right,
    rows,
    columns,
    n,
    m,
    width,
    scale,
    bias,
    skip,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    ACC: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """(BM,BN) scale * left . right + bias; minus infinity where there is no pair or it is left out."""
    total = tl.zeros([BM, BN], ACC)
    for start in range(0, width, BK):
        at = start + tl.arange(0, BK)
        one = tl.load(
            left + rows[:, None].to(tl.int64) * width + at[None, :],
            mask=(rows < n)[:, None] & (at < width)[None, :],
            other=0.0,
        )
        other = tl.load(
            right + columns[:, None].to(tl.int64) * width + at[None, :],
            mask=(columns < m)[:, None] & (at < width)[None, :],
            other=0.0,
        )
        total = tl.dot(one, tl.trans(other), total, input_precision=PRECISION, out_dtype=ACC)
    real = (rows < n)[:, None] & (columns < m)[None, :] & (columns[None, :] != rows[:, None] + skip)
    return tl.where(real, total * scale + bias, float("-inf"))


@triton.jit
def log_of_sum(top, total):
    """Maximum and sum of exponentials to the logarithm; nothing at all gives minus infinity."""
    return tl.where(total > 0, top + tl.log(tl.where(total > 0, total, 1.0)), float("-inf"))


@triton.jit
def finite(top):
    return tl.where(top == float("-inf"), 0.0, top)


@triton.jit
def softplus(x):
    """log(1 + exp(x)); 0 for minus infinity."""
    return tl.maximum(x, 0.0) + tl.log(1.0 + tl.exp(-tl.abs(x)))


@triton.jit
def forward_kernel(
    left,
    right,
    scale,
    bias,
    row_sums,
    column_parts,
    n,
    m,
    width,
    skip,
    SOFTMAX: tl.constexpr,
    BOTH: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    ACC: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Of each row the logarithm of the sum of exponentials, or the sum of softplus. One program: BM rows, all columns.

    BOTH: of each column what these rows contribute, (blocks of rows,m).
    """
    block = tl.program_id(0)
    rows = block * BM + tl.arange(0, BM)
    by, plus = tl.load(scale), tl.load(bias)
    top, total = tl.full([BM], float("-inf"), ACC), tl.zeros([BM], ACC)
    for start in range(0, m, BN):
        columns = start + tl.arange(0, BN)
        tile = scores(left, right, rows, columns, n, m, width, by, plus, skip, BM, BN, BK, ACC, PRECISION)
        if SOFTMAX:
            high = tl.maximum(top, tl.max(tile, 1))
            shift = finite(high)
            total = total * tl.exp(top - shift) + tl.sum(tl.exp(tile - shift[:, None]), 1)
            top = high
            if BOTH:
                peak = tl.max(tile, 0)
                part = log_of_sum(peak, tl.sum(tl.exp(tile - finite(peak)[None, :]), 0))
                tl.store(column_parts + block.to(tl.int64) * m + columns, part, mask=columns < m)
        else:
            total += tl.sum(softplus(tile), 1)
    if SOFTMAX:
        total = log_of_sum(top, total)
    tl.store(row_sums + rows, total, mask=rows < n)


@triton.jit
def backward_kernel(
    left,
    right,
    scale,
    bias,
    row_sums,
    column_sums,
    row_slopes,
    column_slopes,
    gradient,
    weights,
    n,
    m,
    width,
    skip,
    SOFTMAX: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    BD: tl.constexpr,
    ACC: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Gradient of BD features of BM rows of `left`, and how much each row weighs in all.

    ROWS, COLUMNS: whether the sums of rows, of columns have a slope. The score of a pair is computed again.
    """
    rows = tl.program_id(0) * BM + tl.arange(0, BM)
    features = tl.program_id(1) * BD + tl.arange(0, BD)
    by, plus = tl.load(scale), tl.load(bias)
    if ROWS:
        row_sum = tl.load(row_sums + rows, mask=rows < n, other=0.0)
        row_slope = tl.load(row_slopes + rows, mask=rows < n, other=0.0)
    found, weight = tl.zeros([BM, BD], ACC), tl.zeros([BM], ACC)
    for start in range(0, m, BN):
        columns = start + tl.arange(0, BN)
        tile = scores(left, right, rows, columns, n, m, width, by, plus, skip, BM, BN, BK, ACC, PRECISION)
        slope = tl.zeros([BM, BN], ACC)
        if ROWS:
            if SOFTMAX:
                slope += row_slope[:, None] * tl.exp(tile - row_sum[:, None])
            else:
                slope += row_slope[:, None] * tl.sigmoid(tile)
        if COLUMNS:
            column_slope = tl.load(column_slopes + columns, mask=columns < m, other=0.0)
            if SOFTMAX:
                column_sum = tl.load(column_sums + columns, mask=columns < m, other=0.0)
                slope += column_slope[None, :] * tl.exp(tile - column_sum[None, :])
            else:
                slope += column_slope[None, :] * tl.sigmoid(tile)
        weight += tl.sum(slope, 1)
        there = (columns < m)[:, None] & (features < width)[None, :]
        at = columns[:, None].to(tl.int64) * width + features[None, :]
        vectors = tl.load(right + at, mask=there, other=0.0)
        found = tl.dot(slope.to(vectors.dtype), vectors, found, input_precision=PRECISION, out_dtype=ACC)
    at = rows[:, None].to(tl.int64) * width + features[None, :]
    tl.store(gradient + at, found * by, mask=(rows < n)[:, None] & (features < width)[None, :])
    if tl.program_id(1) == 0:
        tl.store(weights + rows, weight, mask=rows < n)


def jobs(arch: int) -> list[Job]:
    """Both kernels with every choice of tiles for an architecture, and with the safe ones, in both precisions."""
    shipped = table("contrastive")
    choices = [row["kernels"] for row in shipped["rows"] if row["arch"] == arch] + [shipped["safe"]]
    return [
        job(kernel, tiles[kernel], softmax, precision)
        for tiles in choices
        for kernel in ("forward", "backward")
        for softmax, precision in ((True, "tf32x3"), (True, "tf32"), (False, "tf32x3"))
    ]


def job(kernel: str, tiles: dict[str, int], softmax: bool, precision: str) -> Job:
    """One kernel as `contrastive` launches it, with both sides' sums where there are two."""
    function, flags, floats = forward_kernel, {"BOTH": softmax}, ["row_sums", "column_parts"]
    if kernel == "backward":
        function, flags = backward_kernel, {"ROWS": True, "COLUMNS": softmax}
        floats = ["row_sums", "column_sums", "row_slopes", "column_slopes", "gradient", "weights"]
    constants = {name: value for name, value in tiles.items() if name not in ("num_warps", "num_stages")}
    fixed: dict[str, Any] = {"SOFTMAX": softmax, **flags, "ACC": tl.float32, "PRECISION": precision}
    return Job(
        name=f"{kernel} {'softmax' if softmax else 'softplus'} {precision} {tiles}",
        kernel=function,
        signature=dict.fromkeys(("left", "right", "scale", "bias", *floats), "*fp32")
        | dict.fromkeys(("n", "m", "width", "skip"), "i32"),
        constants=constants | fixed,
        options={name: tiles[name] for name in ("num_warps", "num_stages")},
    )
