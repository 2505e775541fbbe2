"""Sums over all pairs of two sets of vectors, in O(N D) memory: what contrastive losses need besides their positives.

The score of a pair is scale * left . right + bias. `log_sum_exp` gives the normaliser of every row, and of every column
in the same pass: InfoNCE one way and both ways. `softplus_sum` gives the sum of log(1 + exp(score)) of every row: the
sigmoid loss without its positive. A pair on one diagonal can be left out (a vector against itself); more columns than
rows are harder or gathered negatives; the positives are a product of rows, which the loss makes itself.

Forward and backward go over tiles and keep only what they sum up; the backward pass computes every score again, once
for the rows' gradient and once for the columns'. On a GPU in Triton (after Cheng et al. 2024, "Inf-CL",
arXiv:2410.17243, without its passes through memory), elsewhere in chunks of rows in torch. Products follow
`torch.get_float32_matmul_precision`: three TF32 products for "highest", one for the others. Autocast is for the caller
to turn off.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from encdec_train.kernels.backend import Operation, below_autograd, choose, define, interpreted, launch, register

MANY = 2**24  # scores from which on they are not kept: 4096 x 4096, 64 MiB of float32
CHUNK = 2**22  # scores of a chunk in torch
NONE = 2**30  # no diagonal is left out: no column stands so far from its row
Sums = tuple[Tensor, Tensor]


def _narrow(*, dtype: torch.dtype, interpreted: bool) -> str | None:
    fits = dtype is torch.float32 or (interpreted and dtype is torch.float64)
    return None if fits else f"its kernel takes float32, not {str(dtype).removeprefix('torch.')}"


register(Operation(name="contrastive", refuses=_narrow))


def many(left: Tensor, right: Tensor) -> bool:
    """Whether the scores of (N,D) and (M,D) vectors are so many that a loss should not keep them."""
    return left.device.type != "meta" and len(left) * len(right) > MANY


def log_sum_exp(
    left: Tensor, right: Tensor, scale: Tensor | float, skip: int | None = None, *, both: bool = False
) -> Sums:
    """The logarithm of the sum of exponentials of scores.

    Args:
        left: (N,D).
        right: (M,D).
        scale: of the dot products, above 0; gets a gradient if it is a tensor ().
        skip: the pair of row i and column i + skip is left out; none: all pairs count.
        both: give that of columns as well.

    Returns:
        (N,) of rows; (M,) of columns, or (0,).
    """
    found: Sums = _call(left, right, scale, 0.0, skip, softmax=True, both=both)
    return found


def softplus_sum(left: Tensor, right: Tensor, scale: Tensor | float, bias: Tensor | float) -> Tensor:
    """(N,): the sum of log(1 + exp(scale * left . right + bias)) over all (M,D) of `right`."""
    return _call(left, right, scale, bias, None, softmax=False, both=False)[0]


def _call(
    left: Tensor,
    right: Tensor,
    scale: Tensor | float,
    bias: Tensor | float,
    skip: int | None,
    *,
    softmax: bool,
    both: bool,
) -> Sums:
    kernel = choose("contrastive", left.device, dtype=left.dtype, interpreted=interpreted()) == "triton"
    numbers = [_number(x, left) for x in (scale, bias)]
    found: Sums = _sums(left, right, *numbers, NONE if skip is None else skip, softmax, both, kernel)
    return found


def _number(x: Tensor | float, like: Tensor) -> Tensor:
    """() of the dtype of `like`; a Python number is filled in, as copying it would wait for the device."""
    if isinstance(x, Tensor):
        return x.to(like.dtype)
    return torch.full((), x, dtype=like.dtype, device=like.device)


def _run(
    left: Tensor, right: Tensor, scale: Tensor, bias: Tensor, skip: int, softmax: bool, both: bool, kernel: bool
) -> Sums:
    if kernel:
        return _forward_kernel(left, right, scale, bias, skip, softmax, both)
    rows = []
    columns = left.new_full((len(right) if both else 0,), -torch.inf)
    for _, tile in _tiles(left, right, scale, bias, skip):
        if softmax:
            rows.append(tile.logsumexp(1))
            columns = torch.logaddexp(columns, tile.logsumexp(0)) if both else columns
        else:
            rows.append(F.softplus(tile).sum(1))
    return torch.cat(rows), columns


def _tiles(left: Tensor, right: Tensor, scale: Tensor, bias: Tensor, skip: int) -> Iterator[tuple[slice, Tensor]]:
    """Rows and their scores against all columns."""
    size = max(CHUNK // len(right), 1)
    for start in range(0, len(left), size):
        part = slice(start, start + size)
        tile = (left[part] @ right.T).mul_(scale).add_(bias)
        if skip != NONE:
            row = torch.arange(start, start + len(tile), device=left.device)
            column = torch.arange(len(right), device=left.device)
            tile.masked_fill_(row[:, None] + skip == column, -torch.inf)
        yield part, tile


def _run_backward(
    left: Tensor,
    right: Tensor,
    scale: Tensor,
    bias: Tensor,
    rows: Tensor,
    columns: Tensor,
    row_slopes: Tensor,
    column_slopes: Tensor,
    skip: int,
    softmax: bool,
    kernel: bool,
    wanted: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of `left`, of `right` if it is wanted, and what each row weighs in all."""
    sums, slopes = (rows, columns), (row_slopes, column_slopes)
    if kernel:
        ours, weight = _backward_kernel(left, right, scale, bias, sums, slopes, skip, softmax)
        if not wanted:
            return ours, left.new_empty(0), weight
        theirs, _ = _backward_kernel(right, left, scale, bias, sums[::-1], slopes[::-1], -skip, softmax)
        return ours, theirs, weight
    ours, weight = torch.empty_like(left), torch.empty_like(rows)
    theirs = torch.zeros_like(right) if wanted else left.new_empty(0)
    for part, tile in _tiles(left, right, scale, bias, skip):
        if softmax:
            slope = row_slopes[part, None] * (tile - rows[part, None]).exp()
            if len(columns):
                slope += column_slopes * (tile - columns).exp()
        else:
            slope = row_slopes[part, None] * tile.sigmoid()
        ours[part] = slope @ right
        weight[part] = slope.sum(1)
        if wanted:
            theirs.addmm_(slope.T, left[part])
    return ours.mul_(scale), theirs.mul_(scale), weight


def _precision() -> str:
    return "tf32x3" if torch.get_float32_matmul_precision() == "highest" else "tf32"


def _kernels(left: Tensor) -> tuple[Any, Any, dict[str, Any]]:
    """The module of kernels, their tiles, and what all of them are told of their numbers."""
    from encdec_train.kernels import contrastive_triton as to

    tiles = launch("contrastive", left.device, left.dtype, left.shape[1], 0)
    accumulate = to.tl.float64 if left.dtype is torch.float64 else to.tl.float32
    return to, tiles, {"ACC": accumulate, "PRECISION": _precision()}


def _forward_kernel(
    left: Tensor, right: Tensor, scale: Tensor, bias: Tensor, skip: int, softmax: bool, both: bool
) -> Sums:
    to, tiles, numbers = _kernels(left)
    left, right, (n, width), m = left.contiguous(), right.contiguous(), left.shape, len(right)
    blocks = -(-n // tiles["forward"]["BM"])
    rows, parts = left.new_empty(n), left.new_empty(blocks if both else 0, m)
    to.forward_kernel[(blocks,)](
        *(left, right, scale, bias, rows, parts, n, m, width, skip),
        SOFTMAX=softmax,
        BOTH=both,
        **numbers,
        **tiles["forward"],
    )
    return rows, parts.logsumexp(0) if both else left.new_empty(0)


def _backward_kernel(
    left: Tensor, right: Tensor, scale: Tensor, bias: Tensor, sums: Sums, slopes: Sums, skip: int, softmax: bool
) -> Sums:
    """Gradient of `left`, and what each of its rows weighs. Sums and slopes of no length are not there."""
    to, tiles, numbers = _kernels(left)
    left, right, (n, width), m = left.contiguous(), right.contiguous(), left.shape, len(right)
    found, weight = torch.empty_like(left), left.new_empty(n)
    grid = (-(-n // tiles["backward"]["BM"]), -(-width // tiles["backward"]["BD"]))
    to.backward_kernel[grid](
        *(left, right, scale, bias, *sums, *(slope.contiguous() for slope in slopes)),
        *(found, weight, n, m, width, skip),
        SOFTMAX=softmax,
        ROWS=len(slopes[0]) > 0,
        COLUMNS=len(slopes[1]) > 0,
        **numbers,
        **tiles["backward"],
    )
    return found, weight


class _Sums(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, left: Tensor, right: Tensor, scale: Tensor, bias: Tensor, *how: Any) -> Sums:
        with below_autograd():
            rows, columns = _sums(left, right, scale, bias, *how)
        ctx.save_for_backward(left, right, scale, bias, rows, columns)
        ctx.how = how
        return rows, columns

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, rows: Tensor, columns: Tensor) -> Any:
        skip, softmax, _, kernel = ctx.how
        left, _, scale, *_ = ctx.saved_tensors
        _, wanted, scaled, biased = ctx.needs_input_grad[:4]
        ours, theirs, weight = _slopes(*ctx.saved_tensors, rows, columns, skip, softmax, kernel, wanted)
        by_scale = (ours * left).sum() / scale if scaled else None
        return (ours, theirs if wanted else None, by_scale, weight.sum() if biased else None, None, None, None, None)


_sums = define(
    "contrastive(Tensor left, Tensor right, Tensor scale, Tensor bias, int skip, bool softmax, bool both, bool kernel)"
    " -> (Tensor, Tensor)",
    _run,
    lambda left, right, scale, bias, skip, softmax, both, kernel: (
        left.new_empty(len(left)),
        left.new_empty(len(right) if both else 0),
    ),
    _Sums.apply,
)
_slopes = define(
    "contrastive_backward(Tensor left, Tensor right, Tensor scale, Tensor bias, Tensor rows, Tensor columns,"
    " Tensor row_slopes, Tensor column_slopes, int skip, bool softmax, bool kernel, bool wanted)"
    " -> (Tensor, Tensor, Tensor)",
    _run_backward,
    lambda left, right, scale, bias, rows, columns, row_slopes, column_slopes, skip, softmax, kernel, wanted: (
        left.new_empty(left.shape),
        left.new_empty(right.shape if wanted else (0,)),
        left.new_empty(len(left)),
    ),
)
