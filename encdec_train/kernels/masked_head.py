"""A linear layer and its cross entropy at some rows, chunk by chunk: the scores (M,V) never exist as a whole.

The forward pass of a chunk makes its scores, its loss and at once the gradients for rows, table and bias, so that the
backward pass has only to scale them: three products of M * V * D as in plain torch, none made twice, and memory for one
chunk. That is possible because the loss of a row enters the total with a weight that is known beforehand.

All of it is torch. The work is three matrix products that cuBLAS does and a softmax between them that touches each
score a few times; a Triton kernel pays only where it beats this compiled, which was not measured, so there is none.
Chunked in this way: Liger Kernel (Hsu et al. 2024, arXiv:2410.10989, section 3.2).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from encdec_train.kernels.backend import below_autograd, define

CHUNK = {"cuda": 2**26}  # scores of one chunk: on a GPU as many as keep its matrix products large
SMALL = 2**24  # elsewhere
Found = tuple[Tensor, Tensor, Tensor, Tensor]


def chunked(rows: Tensor, table: Tensor) -> bool:
    """Whether the scores of (M,D) rows by a (V,D) table are more than one chunk: else plain torch is as good."""
    return rows.device.type != "meta" and len(rows) * len(table) > _room(rows)


def _room(rows: Tensor) -> int:
    return CHUNK.get(rows.device.type, SMALL)


def masked_head(
    rows: Tensor,
    table: Tensor,
    bias: Tensor | None,
    ids: Tensor,
    weight: Tensor | None,
    smoothing: float = 0.0,
    z: float = 0.0,
) -> Tensor:
    """The weighted sum of the cross entropies of linear scores against ids.

    Under autocast the products are computed in its dtype and all else in float32, as `F.linear` and the loss do.

    Args:
        rows: (M,D).
        table: (V,D) weights of the linear layer.
        bias: (V,) or none.
        ids: (M,) int64.
        weight: (M,) float, of each row; none: all ones.
        smoothing: share of the target that is spread over all ids.
        z: weight of the squared log normaliser.

    Returns:
        () float32, or float64 for float64 rows. Its gradient exists once: it is computed on the way.
    """
    device = rows.device.type
    known = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    dtype = torch.get_autocast_dtype(device) if known else rows.dtype
    wanted = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in (rows, table, bias))
    found: Found = _masked_head(rows, table, bias, ids, weight, smoothing, z, dtype, _room(rows), wanted)
    return found[0]


def _run(
    rows: Tensor,
    table: Tensor,
    bias: Tensor | None,
    ids: Tensor,
    weight: Tensor | None,
    smoothing: float,
    z: float,
    dtype: torch.dtype,
    room: int,
    wanted: bool,
) -> Found:
    """The sum, and the gradients of rows, table and bias if they are wanted, else nothing in their places."""
    exact = torch.promote_types(torch.float32, dtype)
    total = torch.zeros((), dtype=exact, device=rows.device)
    gradients = [torch.zeros_like(x, dtype=exact) for x in (rows, table, _like_bias(table, bias))] if wanted else []
    near = table.to(dtype)
    size = max(room // len(table), 1)
    for start in range(0, len(rows), size):
        part = slice(start, start + size)
        x, target = rows[part].to(dtype), ids[part]
        scores = F.linear(x, near, None if bias is None else bias.to(dtype)).to(exact)
        lse = scores.logsumexp(1, keepdim=True)
        share = None if weight is None else weight[part, None].to(exact)
        loss = lse - (1 - smoothing) * scores.gather(1, target[:, None])
        loss = loss - smoothing * scores.mean(1, keepdim=True) if smoothing else loss
        loss = loss + z * lse.square() if z else loss
        total += (loss if share is None else loss * share).sum()
        if not wanted:
            continue
        scores.sub_(lse).exp_()  # from here on the gradient of the scores
        if z:
            scores.mul_(1 + 2 * z * lse)
        if smoothing:
            scores.sub_(smoothing / len(table))
        scores.scatter_add_(1, target[:, None], scores.new_full((len(target), 1), smoothing - 1))
        if share is not None:
            scores.mul_(share)
        if bias is not None:
            gradients[2] += scores.sum(0)
        slope = scores.to(dtype)
        gradients[0][part] = slope @ near
        gradients[1] += slope.T @ x
    nothing = [total.new_empty(0)] * 3
    return (total, *(gradients or nothing))  # type: ignore[return-value]


def _like_bias(table: Tensor, bias: Tensor | None) -> Tensor:
    return table.new_empty(0) if bias is None else bias


def _fake(
    rows: Tensor,
    table: Tensor,
    bias: Tensor | None,
    ids: Tensor,
    weight: Tensor | None,
    smoothing: float,
    z: float,
    dtype: torch.dtype,
    room: int,
    wanted: bool,
) -> Found:
    exact = torch.promote_types(torch.float32, dtype)
    shapes = [x.shape if wanted else (0,) for x in (rows, table, _like_bias(table, bias))]
    return (rows.new_empty((), dtype=exact), *(rows.new_empty(shape, dtype=exact) for shape in shapes))  # type: ignore[return-value]


class _MaskedHead(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Found:
        with below_autograd():
            found: Found = _masked_head(*inputs)
        ctx.dtypes = [None if x is None else x.dtype for x in inputs[:3]]
        ctx.save_for_backward(*found[1:])
        ctx.mark_non_differentiable(*found[1:])
        return found

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: Any) -> Any:
        asked = zip(ctx.saved_tensors, ctx.dtypes, ctx.needs_input_grad[:3], strict=True)
        found = [(kept * gradient).to(dtype) if needed else None for kept, dtype, needed in asked]
        return (*found, *[None] * 7)


_masked_head = define(
    "masked_head(Tensor rows, Tensor table, Tensor? bias, Tensor ids, Tensor? weight, float smoothing, float z,"
    " ScalarType dtype, int room, bool wanted) -> (Tensor, Tensor, Tensor, Tensor)",
    _run,
    _fake,
    _MaskedHead.apply,
)
