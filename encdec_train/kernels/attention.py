"""Attention with a learned bias by relative place whose backward never holds the bias of all pairs.

What is read is an interval of keys for every query, labels that must be equal, or both (`Reads`): this covers causal,
prefix, windowed and packed attention and their products (`interval`). The bias is a table of one value per head and
offset (`Bias`): T5's buckets, ALiBi's slopes and two-dimensional tables become such tables by operations of torch,
which hand the gradient on. Its gradient is summed along the diagonals of each tile in a fixed order: two runs give
the same bits. `reference` is the definition.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from encdec_train import rng
from encdec_train.kernels import backend
from encdec_train.types import Mismatch

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
SIZES = (16, 128)  # widths of heads
SHORT = 128  # sites up to which torch's own attention is at least as fast, bias of all pairs and all
PARTIAL = 16 * 2**20  # bytes that partial sums of the bias's gradient may take


@dataclass(frozen=True, eq=False, kw_only=True)
class Bias:
    """What is added to the scores of a head, by where the key stands relative to the query."""

    diagonals: Tensor  # (H,T) float32; entry `origin` is that of a site and itself, the next that of the key behind it
    origin: int
    wide: int = 0  # columns of a lattice whose rows are 2 * wide - 1 entries apart; 0 = sites on a line

    def reaches(self, queries: int, keys: int) -> bool:
        """Whether there is an entry for every pair."""
        wide = self.wide or max(queries, keys, 1)
        first, last = (n - 1 + (n - 1) // wide * (wide - 1) for n in (queries, keys))
        return first <= self.origin and last < self.diagonals.shape[1] - self.origin

    def dense(self, queries: int, keys: int) -> Tensor:
        """(H,queries,keys)."""
        if not self.wide and not torch.compiler.is_exporting():  # a window has one length in an exported graph
            first = self.origin - queries + 1
            windows = self.diagonals[:, first : first + queries + keys - 1].unfold(1, keys, 1)
            return windows.flip(1)
        longest = max(queries, keys)
        code = _codes(longest, self.wide or longest, self.diagonals.device)
        index = code[None, :keys] - code[:queries, None] + self.origin
        return self.diagonals.index_select(1, index.flatten()).unflatten(1, index.shape)


def _codes(n: int, wide: int, device: torch.device) -> Tensor:
    """(n,) int64: equal offsets on a lattice are equal differences of these."""
    site = torch.arange(n, device=device)
    return site + site // wide * (wide - 1)


@dataclass(frozen=True, eq=False, kw_only=True)
class Reads:
    """Who reads whom. None is no limit; a query that reads nothing gets zeros."""

    first: Tensor | None = None  # (1 or B, 1 or Nq) int32: the first key that a query reads
    stop: Tensor | None = None  # of the same shape: the key behind the last one
    query_label: Tensor | None = None  # (B,Nq) int32, read with `key_label`
    key_label: Tensor | None = None  # (B,Nk) int32: that of the query, or where queries have none, not 0


def interval(
    queries: int,
    keys: int,
    device: torch.device,
    *,
    causal: bool = False,
    window: int = 0,
    prefix: Tensor | None = None,
    lengths: Tensor | None = None,
    query_bounds: Tensor | None = None,
    key_bounds: Tensor | None = None,
    rows: int = 1,
) -> tuple[Tensor, Tensor]:
    """The keys that queries read, as `Reads.first` and `Reads.stop`, of shape (1 or B, Nq).

    Args:
        queries: Nq.
        keys: Nk.
        device: of the result.
        causal: a query reads up to its own place.
        window: it reads this many places to either side at most; 0 = no limit.
        prefix: (B,) with causal: the first n places are read by all.
        lengths: (B,) how many keys there are.
        query_bounds: (S+1,) bounds of packed documents over the flat B*Nq queries.
        key_bounds: (S+1,) those over the flat B*Nk keys.
        rows: B, where documents are packed.
    """
    place = torch.arange(queries, device=device)[None]
    first, stop = torch.zeros_like(place), torch.full_like(place, keys)
    if query_bounds is not None and key_bounds is not None:
        flat = torch.arange(rows * queries, device=device, dtype=query_bounds.dtype)
        doc = torch.searchsorted(query_bounds, flat, right=True) - 1
        base = flat // queries * keys
        place = (flat - query_bounds[doc]).view(rows, queries)
        first, stop = ((key_bounds[doc + end] - base).view(rows, queries) for end in (0, 1))
    begin = first
    if causal:
        past = place + 1 if prefix is None else torch.maximum(place + 1, prefix[:, None])
        stop = torch.minimum(stop, begin + past)
    if window:
        first = torch.maximum(first, begin + place - window)
        stop = torch.minimum(stop, begin + place + window + 1)
    if lengths is not None:
        stop = torch.minimum(stop, begin + lengths[:, None])
    first, stop = torch.broadcast_tensors(first, stop)
    return first.int(), stop.int()


@dataclass(frozen=True, eq=False, kw_only=True)
class Dropout:
    """Weights that are left out, and the others made larger; the same ones whenever the seed is the same."""

    rate: float
    seed: Tensor  # (1,) int64

    def kept(self, shape: torch.Size) -> Tensor:
        """(B,H,Nq,Nk) bool: a weight's 24 bits are those of splitmix64 for its place among all."""
        counter = torch.arange(shape.numel(), device=self.seed.device).view(shape)
        bits = (rng.mix(self.seed + counter * rng.GAMMA) >> 40) & 0xFFFFFF
        return bits.float() >= torch.tensor(self.rate, dtype=torch.float32) * 2**24


def maps(
    q: Tensor, k: Tensor, *, bias: Bias | None = None, reads: Reads | None = None, scale: float | None = None
) -> Tensor:
    """(B,H,Nq,Nk) weights, for whoever distils or draws them; no kernel holds them, so they are made here."""
    group = q.shape[1] // k.shape[1]
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    wide = torch.promote_types(q.dtype, torch.float32)
    scores = (q @ k.repeat_interleave(group, 1).mT).to(wide) * scale
    queries, keys = scores.shape[-2:]
    if bias is not None:
        scores = scores + bias.dense(queries, keys)
    allowed = torch.ones(1, 1, queries, keys, dtype=torch.bool, device=q.device)
    if reads is not None and reads.first is not None and reads.stop is not None:
        key = torch.arange(keys, device=q.device)
        allowed = allowed & (key >= reads.first[:, None, :, None]) & (key < reads.stop[:, None, :, None])
    if reads is not None and reads.key_label is not None:
        label = reads.key_label[:, None, None, :]
        allowed = allowed & (label != 0 if reads.query_label is None else label == reads.query_label[:, None, :, None])
    weights = scores.masked_fill(~allowed, torch.finfo(scores.dtype).min).softmax(-1)
    return weights.masked_fill(~allowed, 0.0).to(q.dtype)  # a query that reads nothing has no weights


def reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    bias: Bias | None = None,
    reads: Reads | None = None,
    scale: float | None = None,
    dropout: Dropout | None = None,
) -> Tensor:
    """`attention` in torch."""
    weights = maps(q, k, bias=bias, reads=reads, scale=scale)
    if dropout is not None:
        weights = weights * dropout.kept(weights.shape) / (1 - dropout.rate)
    return weights @ v.repeat_interleave(q.shape[1] // v.shape[1], 1)


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    bias: Bias | None = None,
    reads: Reads | None = None,
    scale: float | None = None,
    dropout: Dropout | None = None,
) -> Tensor:
    """softmax(q k^T scale + bias) v over the keys that are read, in one kernel each way.

    Args:
        q: (B,H,Nq,d).
        k: (B,Hk,Nk,d), H a multiple of Hk: neighbouring heads of queries share one of keys.
        v: the same.
        bias: by relative place; float32 whatever the queries are.
        reads: who reads whom; None = everyone reads everyone.
        scale: None = 1 / sqrt(d).
        dropout: of the weights.

    Returns:
        (B,H,Nq,d), whose memory is that of (B,Nq,H,d).

    Raises:
        Mismatch: types or shapes that do not fit, or a bias that is not float32 or too short.
    """
    if torch.is_autocast_enabled(q.device.type):
        q, k, v = (x.to(torch.get_autocast_dtype(q.device.type)) for x in (q, k, v))
    reads = reads or Reads()
    _check(q, k, v, bias, reads)
    out, _ = _forward(
        q,
        k,
        v,
        None if bias is None else bias.diagonals,
        reads.first,
        reads.stop,
        reads.query_label,
        reads.key_label,
        None if dropout is None else dropout.seed,
        0 if bias is None else bias.origin,
        0 if bias is None else bias.wide,
        q.shape[-1] ** -0.5 if scale is None else scale,
        0.0 if dropout is None else dropout.rate,
    )
    return out


def _check(q: Tensor, k: Tensor, v: Tensor, bias: Bias | None, reads: Reads) -> None:
    if not q.dtype == k.dtype == v.dtype:
        raise Mismatch(f"attention: queries, keys and values are {q.dtype}, {k.dtype} and {v.dtype}")
    if k.shape != v.shape or q.shape[0] != k.shape[0] or q.shape[3] != k.shape[3]:
        raise Mismatch("attention: queries, keys and values differ in rows or widths, or keys and values in length")
    if q.shape[1] % k.shape[1]:
        raise Mismatch(f"attention: {q.shape[1]} heads of queries do not share {k.shape[1]} heads of keys")
    if bias is None:
        return
    if bias.diagonals.dtype != torch.float32:
        raise Mismatch(f"attention: the bias is {bias.diagonals.dtype}, it is kept in float32")
    if bias.diagonals.shape[0] != q.shape[1]:
        raise Mismatch(f"attention: the bias has {bias.diagonals.shape[0]} heads, queries have {q.shape[1]}")
    if reads.first is None and not bias.reaches(q.shape[2], k.shape[2]):
        raise Mismatch("attention: the bias does not reach from the first query to the last key and back")


def _refuses(*, dtype: torch.dtype, size: int, pattern: str | None = None, **_: Any) -> str | None:
    if pattern is not None:
        return pattern
    if dtype not in DTYPES:
        return f"queries are {dtype}"
    if not SIZES[0] <= size <= SIZES[1]:
        return f"heads of width {size} are not within {SIZES[0]} to {SIZES[1]}"
    return None


def _prefers(*, dtype: torch.dtype, queries: int, keys: int, plain: bool, **_: Any) -> str | None:
    if dtype == torch.float32:
        return "in float32 the kernels leave the tensor cores idle"
    if plain:
        return "without a bias or a pattern torch has faster kernels"
    if queries <= SHORT and keys <= SHORT:
        return "for short sequences torch is at least as fast"
    return None


backend.register(backend.Operation(name="attention", refuses=_refuses, prefers=_prefers))


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


def _launch(q: Tensor, k: Tensor) -> tuple[backend.Launch, dict[str, Any]]:
    """Tile sizes of the kernels, and the constants that all of them share."""
    dim = max(16, 1 << (q.shape[-1] - 1).bit_length())
    tiles = backend.launch("attention", q.device, q.dtype, dim, max(q.shape[2], k.shape[2]))
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
    scale: float,
    rate: float,
) -> tuple[Tensor, Tensor]:
    from encdec_train.kernels.attention_triton import forward_kernel

    q, k, v = _rows(q), _rows(k), _rows(v)
    diagonals, first, stop, query_label, key_label = map(_flat, (diagonals, first, stop, query_label, key_label))
    b, h, n, _ = q.shape
    tiles, fixed = _launch(q, k)
    out, lse = _like(q, n), q.new_empty(b, h, n, dtype=torch.float32)
    if out.numel():
        forward_kernel[_tiles(n, tiles["forward"]["BM"]) * b * h,](
            q, k, v, diagonals, first, stop, query_label, key_label, seed, out, lse,
            *_strides(q, k, v), _broadcast(first, 0), _broadcast(first, 1),
            _broadcast(query_label, 0), _broadcast(key_label, 0),
            h, n, k.shape[2], origin, 0 if diagonals is None else diagonals.shape[1], scale, rate,
            WIDE=wide, **fixed, **tiles["forward"],
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
    scale: float,
    rate: float,
    learned: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    from encdec_train.kernels.attention_triton import key_kernel, query_kernel

    grad, q, k, v = _rows(grad), _rows(q), _rows(k), _rows(v)
    diagonals, first, stop, query_label, key_label = map(_flat, (diagonals, first, stop, query_label, key_label))
    out = out.transpose(1, 2).contiguous().transpose(1, 2)
    (b, h, n, _), keys = q.shape, k.shape[2]
    tiles, fixed = _launch(q, k)
    entries = 0 if diagonals is None else diagonals.shape[1]
    delta, dq, dk, dv = torch.empty_like(lse), _like(q, n), _like(k, keys), _like(v, keys)
    sums = _Sums(q, keys, wide, tiles["query"], learned)
    for rows in sums.slices():
        at = [x if x is None or x.shape[0] == 1 else x[rows] for x in (first, stop, query_label, key_label)]
        query_kernel[_tiles(n, tiles["query"]["BM"]) * len(q[rows]) * h,](
            q[rows], k[rows], v[rows], diagonals, *at, seed, grad[rows], out[rows], lse[rows], delta[rows], dq[rows],
            sums.room(len(q[rows])), *_strides(q, k, v, grad), _broadcast(first, 0), _broadcast(first, 1),
            _broadcast(query_label, 0), _broadcast(key_label, 0),
            h, n, keys, origin, entries, sums.width, rows.start * h, scale, rate,
            WIDE=wide, CHUNKS=sums.chunks, **fixed, **tiles["query"],
        )  # fmt: skip
        sums.take()
    readers, until = _readers(first, stop, n, keys)
    if dk.numel():
        key_kernel[_tiles(keys, tiles["key"]["BN"]) * b * k.shape[1],](
            q, k, v, diagonals, first, stop, readers, until, query_label, key_label, seed, grad, lse, delta, dk, dv,
            *_strides(q, k, v, grad), _broadcast(first, 0), _broadcast(first, 1), _broadcast(readers, 0),
            _broadcast(query_label, 0), _broadcast(key_label, 0),
            h, n, keys, origin, entries, scale, rate,
            WIDE=wide, **fixed, **tiles["key"],
        )  # fmt: skip
    return dq, dk, dv, sums.fold(entries, origin)


class _Sums:
    """The gradient of the bias, from sums over the tiles of a row of the batch to its table, in a fixed order.

    Rows of the batch take turns, so that the sums of all tiles need no more than `PARTIAL` bytes.
    """

    def __init__(self, q: Tensor, keys: int, wide: int, tile: dict[str, int], learned: bool) -> None:
        self.rows, self.heads, queries, _ = q.shape
        self.bm, self.bn, self.wide, self.learned = tile["BM"], tile["BN"], wide, learned
        self.tiles, self.key_tiles = _tiles(queries, self.bm), _tiles(keys, self.bn)
        span = _spread(self.bm, wide) + _spread(self.bn, wide) + 1  # differences of codes between two tiles
        self.chunks = _tiles(span, self.bn) if wide else 0
        self.width = self.key_tiles * self.chunks * self.bn if wide else (self.key_tiles + 1) * self.bn
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
        return self._lattice(entries, origin) if self.wide else self._line(entries, origin)

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

    def _lattice(self, entries: int, origin: int) -> Tensor:
        device = self.total.device
        code = _codes(max(self.tiles * self.bm, self.key_tiles * self.bn), self.wide, device)
        least = (
            code[None, : self.key_tiles * self.bn : self.bn] - code[self.bm - 1 : self.tiles * self.bm : self.bm, None]
        )
        index = (least[..., None] + torch.arange(self.chunks * self.bn, device=device) + origin).flatten()
        index = torch.where((index >= 0) & (index < entries), index, entries)
        found = self.total.new_zeros(entries + 1, self.heads)
        return found.index_put_((index,), self.total.flatten(1).T, accumulate=True)[:entries].T


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
            out, lse = _forward(q, k, v, *rest)
        tensors, ctx.numbers = rest[:6], rest[6:]
        ctx.save_for_backward(q, k, v, out, lse, *tensors)
        ctx.mark_non_differentiable(lse)
        return out, lse

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        learned = ctx.needs_input_grad[3]
        dq, dk, dv, table = _backward(grad, *ctx.saved_tensors, *ctx.numbers, learned)
        return dq, dk, dv, table if learned else None, *[None] * 9


WHAT = (
    "Tensor? diagonals, Tensor? first, Tensor? stop, Tensor? query_label, Tensor? key_label, "
    "Tensor? seed, SymInt origin, int wide, float scale, float rate"
)
_forward = backend.define(
    f"attention(Tensor q, Tensor k, Tensor v, {WHAT}) -> (Tensor, Tensor)",
    _run_forward,
    _fake_forward,
    _Attention.apply,
)
_backward = backend.define(
    "attention_backward(Tensor grad, Tensor q, Tensor k, Tensor v, Tensor out, Tensor lse, "
    f"{WHAT}, bool learned) -> (Tensor, Tensor, Tensor, Tensor)",
    _run_backward,
    _fake_backward,
)
