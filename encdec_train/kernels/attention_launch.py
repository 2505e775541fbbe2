"""The attention kernels as operations of torch: their launches, and the order in which a bias's gradient is summed."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from encdec_train.kernels import backend
from encdec_train.kernels.attention_pattern import ROLES, codes
from encdec_train.types import Mismatch

PARTIAL = 16 * 2**20  # bytes that partial sums of the bias's gradient may take


def _rows(x: Tensor) -> Tensor:
    """With the features of a row side by side, as the kernels read them."""
    x = x if x.stride(-1) == 1 else x.contiguous()
    if x.shape[2] * x.stride(2) >= 2**31:
        raise Mismatch("attention: a row of the batch spans more than the 2**31 numbers that kernels count")
    return x


def _strides(*tensors: Tensor) -> list[int]:
    return [step for x in tensors for step in x.stride()[:3]]


def _broadcast(x: Tensor | None, axis: int) -> int:
    """Stride of an axis that may have one entry for all."""
    return 0 if x is None or x.shape[axis] == 1 else x.stride(axis)


def _flat(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.contiguous()


def _launch(q: Tensor, k: Tensor, *, narrow: bool) -> tuple[backend.Launch, dict[str, Any]]:
    """Tile sizes of the kernels, and the constants that all of them share.

    Dropout and a lattice keep more in registers, so their tiles are `narrow`.
    """
    dim = max(16, 1 << (q.shape[-1] - 1).bit_length())
    name = "attention_narrow" if narrow else "attention"
    tiles = backend.launch(name, q.device, q.dtype, dim, max(q.shape[2], k.shape[2]))
    fixed = {"GROUP": q.shape[1] // k.shape[1], "SIZE": q.shape[-1], "DIM": dim, "PRECISION": "ieee"}
    return tiles, fixed


def _tiles(n: int, size: int) -> int:
    return -(-n // size)


def _like(x: Tensor, rows: int) -> Tensor:
    """Room for (B,H,rows,d) whose memory is (B,rows,H,d)."""
    return x.new_empty(x.shape[0], rows, x.shape[1], x.shape[3]).transpose(1, 2)


def _run_forward(  # noqa: PLR0913
    q: Tensor,
    k: Tensor,
    v: Tensor,
    diagonals: Tensor | None,
    first: Tensor | None,
    stop: Tensor | None,
    query_label: Tensor | None,
    key_label: Tensor | None,
    seed: Tensor | None,
    origin: int,
    wide: int,
    lead: int,
    scale: float,
    rate: float,
) -> tuple[Tensor, Tensor]:
    from encdec_train.kernels.attention_triton import forward_kernel

    q, k, v = _rows(q), _rows(k), _rows(v)
    diagonals, first, stop, query_label, key_label = map(_flat, (diagonals, first, stop, query_label, key_label))
    b, h, n, _ = q.shape
    tiles, fixed = _launch(q, k, narrow=bool(rate or wide))
    out, lse = _like(q, n), q.new_empty(b, h, n, dtype=torch.float32)
    if out.numel():
        forward_kernel[_tiles(n, tiles["forward"]["BM"]) * b * h,](
            q, k, v, diagonals, first, stop, query_label, key_label, seed, out, lse,
            *_strides(q, k, v), _broadcast(first, 0), _broadcast(first, 1),
            _broadcast(query_label, 0), _broadcast(key_label, 0),
            h, n, k.shape[2], origin, 0 if diagonals is None else diagonals.shape[1], scale, rate,
            WIDE=wide, LEAD=lead, **fixed, **tiles["forward"],
        )  # fmt: skip
    return out, lse


def _fake_forward(q: Tensor, k: Tensor, v: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return _like(q, q.shape[2]), q.new_empty(q.shape[:3], dtype=torch.float32)


def _run_backward(  # noqa: PLR0913
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    diagonals: Tensor | None,
    first: Tensor | None,
    stop: Tensor | None,
    query_label: Tensor | None,
    key_label: Tensor | None,
    seed: Tensor | None,
    origin: int,
    wide: int,
    lead: int,
    scale: float,
    rate: float,
    learned: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    from encdec_train.kernels.attention_triton import key_kernel, query_kernel

    grad, q, k, v = _rows(grad), _rows(q), _rows(k), _rows(v)
    diagonals, first, stop, query_label, key_label = map(_flat, (diagonals, first, stop, query_label, key_label))
    out = out.transpose(1, 2).contiguous().transpose(1, 2)
    (b, h, n, _), keys = q.shape, k.shape[2]
    tiles, fixed = _launch(q, k, narrow=bool(rate or wide))
    entries = 0 if diagonals is None else diagonals.shape[1]
    delta, dq, dk, dv = torch.empty_like(lse), _like(q, n), _like(k, keys), _like(v, keys)
    sums = _Sums(q, keys, wide, lead, tiles["query"], learned)
    for rows in sums.slices():
        at = [x if x is None or x.shape[0] == 1 else x[rows] for x in (first, stop, query_label, key_label)]
        query_kernel[_tiles(n, tiles["query"]["BM"]) * len(q[rows]) * h,](
            q[rows], k[rows], v[rows], diagonals, *at, seed, grad[rows], out[rows], lse[rows], delta[rows], dq[rows],
            sums.room(len(q[rows])), *_strides(q, k, v, grad), _broadcast(first, 0), _broadcast(first, 1),
            _broadcast(query_label, 0), _broadcast(key_label, 0),
            h, n, keys, origin, entries, sums.width, rows.start * h, scale, rate,
            WIDE=wide, LEAD=lead, CHUNKS=sums.chunks, **fixed, **tiles["query"],
        )  # fmt: skip
        sums.take()
    readers, until = _readers(first, stop, n, keys)
    if dk.numel():
        key_kernel[_tiles(keys, tiles["key"]["BN"]) * b * k.shape[1],](
            q, k, v, diagonals, first, stop, readers, until, query_label, key_label, seed, grad, lse, delta, dk, dv,
            *_strides(q, k, v, grad), _broadcast(first, 0), _broadcast(first, 1), _broadcast(readers, 0),
            _broadcast(query_label, 0), _broadcast(key_label, 0),
            h, n, keys, origin, entries, scale, rate,
            WIDE=wide, LEAD=lead, **fixed, **tiles["key"],
        )  # fmt: skip
    return dq, dk, dv, sums.fold(entries, origin)


class _Sums:
    """The gradient of the bias, from sums over the tiles of a row of the batch to its table, in a fixed order.

    Rows of the batch take turns, so that the sums of all tiles need no more than `PARTIAL` bytes.
    """

    def __init__(self, q: Tensor, keys: int, wide: int, lead: int, tile: dict[str, int], learned: bool) -> None:
        self.rows, self.heads, queries, _ = q.shape
        self.bm, self.bn, self.wide, self.lead, self.learned = tile["BM"], tile["BN"], wide, lead, learned
        self.tiles, self.key_tiles = _tiles(queries, self.bm), _tiles(keys, self.bn)
        span = _spread(self.bm, wide) + _spread(self.bn, wide) + 1  # differences of codes between two tiles
        self.chunks = _tiles(span, self.bn) if wide else 0
        self.width = self.key_tiles * self.chunks * self.bn if wide else (self.key_tiles + 1) * self.bn
        self.width += ROLES if lead else 0
        shape = (self.heads, self.tiles, self.width) if learned else (0,)
        self.total = q.new_zeros(shape, dtype=torch.float32)
        self.part: Tensor | None = None

    def slices(self) -> list[slice]:
        """Rows of the batch that one launch takes."""
        if not self.rows * self.heads * self.tiles:
            return []
        size = max(1, PARTIAL // (4 * max(1, self.total.numel()))) if self.learned else self.rows
        return [slice(start, min(start + size, self.rows)) for start in range(0, self.rows, size)]

    def room(self, rows: int) -> Tensor | None:
        """(rows,H,tiles,width) for one launch."""
        self.part = self.total.new_zeros(rows, *self.total.shape) if self.learned else None
        return self.part

    def take(self) -> None:
        """What the launch has left there."""
        if self.part is not None:
            self.total += self.part.sum(0)

    def fold(self, entries: int, origin: int) -> Tensor:
        """(H,entries): over all tiles; (0,) if the bias is not learned."""
        if not self.learned:
            return self.total
        if not self.wide:
            return self._line(entries, origin)
        if not self.lead:
            return self._lattice(self.total, entries, origin)
        sites, roles = self.total.split([self.width - ROLES, ROLES], 2)
        return torch.cat([self._lattice(sites, entries - ROLES, origin), roles.sum(1)], 1)

    def _line(self, entries: int, origin: int) -> Tensor:
        """Entry u of tile t is diagonal u - (t + 1) * BM + 1 + origin: each row of tiles is moved, then all are added.

        Rows that are padded and then cut BM shorter are moved by BM each, as Transformer-XL shifts its scores.
        """
        room = self.tiles * self.bm
        moved = F.pad(self.total.flip(1), (0, room)).flatten(1)
        width = self.width + room - self.bm
        sums = moved[:, : self.tiles * width].unflatten(1, (self.tiles, width)).sum(1)
        start = room - 1 - origin
        return F.pad(sums, (-start, start + entries - width))

    def _lattice(self, total: Tensor, entries: int, origin: int) -> Tensor:
        device = total.device
        code = codes(max(self.tiles * self.bm, self.key_tiles * self.bn), self.wide, self.lead, device)
        least = (
            code[None, : self.key_tiles * self.bn : self.bn] - code[self.bm - 1 : self.tiles * self.bm : self.bm, None]
        )
        index = (least[..., None] + torch.arange(self.chunks * self.bn, device=device) + origin).flatten()
        index = torch.where((index >= 0) & (index < entries), index, entries)
        found = total.new_zeros(entries + 1, self.heads)
        return found.index_put_((index,), total.flatten(1).T, accumulate=True)[:entries].T


def _spread(sites: int, wide: int) -> int:
    """How far apart the codes of so many neighbouring sites can be."""
    return sites - 1 + _tiles(sites - 1, wide) * (wide - 1) if wide else sites - 1


def _readers(first: Tensor | None, stop: Tensor | None, queries: int, keys: int) -> tuple[Tensor | None, Tensor | None]:
    """(1 or B, Nk): the first query that may read a key, and the one behind the last."""
    if first is None or stop is None:
        return None, None
    ends = stop.expand(-1, queries).cummax(1).values
    begins = first.expand(-1, queries).flip(1).cummin(1).values.flip(1).contiguous()
    key = torch.arange(keys, dtype=torch.int32, device=first.device).expand(len(first), -1).contiguous()
    found = [torch.searchsorted(bounds, key, right=True, out_int32=True) for bounds in (ends, begins)]
    return found[0], found[1]


def _fake_backward(grad: Tensor, q: Tensor, k: Tensor, v: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    diagonals, learned = rest[2], rest[-1]
    shape = diagonals.shape if learned else (0,)
    table = q.new_empty(shape, dtype=torch.float32)
    return _like(q, q.shape[2]), _like(k, k.shape[2]), _like(v, v.shape[2]), table


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
        with backend.below_autograd():
            out, lse = forward(q, k, v, *rest)
        tensors, ctx.numbers = rest[:6], rest[6:]
        ctx.save_for_backward(q, k, v, out, lse, *tensors)
        ctx.mark_non_differentiable(lse)
        return out, lse

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        learned = ctx.needs_input_grad[3]
        dq, dk, dv, table = backward(grad, *ctx.saved_tensors, *ctx.numbers, learned)
        return dq, dk, dv, table if learned else None, *[None] * 10


WHAT = (
    "Tensor? diagonals, Tensor? first, Tensor? stop, Tensor? query_label, Tensor? key_label, "
    "Tensor? seed, SymInt origin, int wide, int lead, float scale, float rate"
)
forward = backend.define(
    f"attention(Tensor q, Tensor k, Tensor v, {WHAT}) -> (Tensor, Tensor)",
    _run_forward,
    _fake_forward,
    _Attention.apply,
)
backward = backend.define(
    "attention_backward(Tensor grad, Tensor q, Tensor k, Tensor v, Tensor out, Tensor lse, "
    f"{WHAT}, bool learned) -> (Tensor, Tensor, Tensor, Tensor)",
    _run_backward,
    _fake_backward,
)
