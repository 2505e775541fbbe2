"""Attention over sites: one function reads `Attend`, `valid` and `doc`, and chooses the cheapest exact path.

The dense mask of `allow` is the definition; the other paths are tested against it. A kernel takes what it can read as
intervals of keys and labels; a query with nothing to read, which is padding, gets zeros there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from encdec_train.kernels import attention as kernel
from encdec_train.kernels.attention import Bias, Dropout, Reads
from encdec_train.kernels.backend import choose
from encdec_train.types import Attend, Sites


def allow(attend: Attend | None, query: Sites, key: Sites, *, own: bool) -> Tensor | None:
    """(B,Nq,Nk) bool, True = reads; None = everyone reads everyone.

    With `own`, queries and keys are the same sites (self-attention); across, only `valid`, `doc` and `seen` count.
    """
    packed = query.doc is not None and key.doc is not None
    allowed: Tensor | None = None
    if key.valid is not None and not packed:  # the padding of a packed row is a document of its own
        allowed = key.valid[:, None, :].expand(-1, query.n, -1)

    def restrict(rule: Tensor) -> None:
        nonlocal allowed
        allowed = rule if allowed is None else allowed & rule

    if packed:
        restrict(query.doc[:, :, None] == key.doc[:, None, :])  # type: ignore[index]
    if attend is not None and attend.seen is not None:
        restrict(attend.seen)
    if not own or attend is None:
        return allowed
    distance = query.place[:, :, None] - key.place[:, None, :]
    if attend.causal:
        past = distance >= 0
        if attend.prefix is not None:
            past = past | (key.place < attend.prefix[:, None])[:, None, :]
        restrict(past)
    if attend.window:
        restrict(distance.abs() <= attend.window)
    if attend.rank is not None and attend.query is not None:
        restrict(_two_streams(attend.rank, attend.query, attend.hole))
    return allowed


def _two_streams(rank: Tensor, query: Tensor, hole: Tensor | None) -> Tensor:
    """(B,N,N): content reads content up to its own rank; a query reads content of lower rank.

    Of content that a site does not read it reads the hole, if there is one; a hole itself reads what is given to all.
    A query of the lowest rank that has nothing to read reads itself, so that no row is empty.
    """
    level = rank - query.long()  # up to which rank a site reads
    if hole is not None:
        level = level.masked_fill(hole, 0)
    rule = rank[:, None, :] <= level[:, :, None]
    if hole is not None:
        rule = rule ^ hole[:, None, :]
    rule = rule & ~query[:, None, :]
    itself = torch.eye(rank.shape[1], dtype=torch.bool, device=rank.device)
    return rule | (itself & query[:, :, None] & ~rule.any(-1, keepdim=True))


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    query: Sites,
    key: Sites,
    attend: Attend | None = None,
    own: bool = True,
    prefix: tuple[int, int] = (0, 0),
    bias: Bias | None = None,
    dropout: float = 0.0,
    scale: float | None = None,
) -> Tensor:
    """softmax(q k^T scale + bias) v under the pattern of the sites.

    Args:
        q: (B,H,prefix+Nq,d).
        k: (B,H,prefix+Nk,d).
        v: the same.
        query: the sites of the Nq (not of the prefix).
        key: the sites of the Nk.
        attend: who reads whom; across sequences only its `seen`.
        own: queries and keys are the same sites.
        dropout: of the weights.
        prefix: leading tokens of the queries and of the keys; they read all that is real and are read by all.
        bias: by relative place, for places below L in both. With a prefix it covers the prefix too, by index.
        scale: None = 1 / sqrt(d).

    Returns:
        (B,H,prefix+Nq,d).
    """
    if _in_kernel(q, k, query, key, attend, own, prefix, bias):
        table = None if bias is None else replace(bias, diagonals=bias.diagonals.float())
        reads = _reads(query, key, attend if own else None)
        seed = torch.randint(2**62, (1,), device=q.device) if dropout else None
        left_out = None if seed is None else Dropout(rate=dropout, seed=seed)
        return kernel.attention(q, k, v, bias=table, reads=reads, scale=scale, dropout=left_out)
    if _by_segments(query, key, attend, prefix, q):
        return _segments(q, k, v, query, key, attend if own else None, bias, dropout, scale)
    mask = allow(attend, query, key, own=own)
    if mask is None and bias is None:
        return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, scale=scale)
    if mask is not None:
        everything = key.real()[:, None].expand(-1, prefix[0], -1)  # (B,prefix,Nk): padding is nothing
        mask = F.pad(torch.cat([everything, mask], 1), (prefix[1], 0), value=True)[:, None]  # (B,1,Nq,Nk)
        mask = mask | ~mask.any(-1, keepdim=True)  # a row with nothing to read would be NaN
    if bias is not None:
        dense = _bias_at(bias, query, key, prefix)
        mask = dense if mask is None else dense.masked_fill(~mask, torch.finfo(dense.dtype).min)
        mask = mask.to(q.dtype)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout, scale=scale)


def attention_behind(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    query: Sites,
    key: Sites,
    attend: Attend | None = None,
    bias: Bias | None = None,
    scale: float | None = None,
) -> Tensor:
    """`attention` of the last sites of rows whose other keys were kept: places say how far apart two of them are.

    Args:
        q: (B,H,n,d) of the last sites.
        k: (B,H,N,d) of all sites; padding may stand between.
        v: the same.
        query: the last sites.
        key: all of them.
        attend: who reads whom.
        bias: by relative place.
        scale: None = 1 / sqrt(d).

    Returns:
        (B,H,n,d).
    """
    mask = allow(attend, query, key, own=True)
    mask = None if mask is None else mask[:, None]
    if bias is not None:
        offset = key.place[:, None, :] - query.place[:, :, None] + bias.origin  # (B,n,N)
        dense = bias.diagonals.index_select(1, offset.flatten()).unflatten(1, offset.shape).transpose(0, 1)
        mask = dense if mask is None else dense.masked_fill(~mask, torch.finfo(dense.dtype).min)
        mask = mask.to(q.dtype)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)


def _in_kernel(
    q: Tensor,
    k: Tensor,
    query: Sites,
    key: Sites,
    attend: Attend | None,
    own: bool,
    prefix: tuple[int, int],
    bias: Bias | None,
) -> bool:
    plain = bias is None and query.doc is None and key.valid is None and not _ordered(attend, own)
    return (
        choose(
            "attention",
            q.device,
            dtype=q.dtype,
            size=q.shape[-1],
            queries=q.shape[2],
            keys=k.shape[2],
            pattern=_unfit(query, key, attend, own, prefix, bias),
            plain=plain,
        )
        == "triton"
    )


def _ordered(attend: Attend | None, own: bool) -> bool:
    """Whether places say who reads whom."""
    return own and attend is not None and (attend.causal or attend.window > 0)


def _unfit(
    query: Sites, key: Sites, attend: Attend | None, own: bool, prefix: tuple[int, int], bias: Bias | None
) -> str | None:
    """Why intervals and labels do not say who reads whom, or places do not say where."""
    if attend is not None and attend.seen is not None:
        return "single pairs are hidden"
    if own and attend is not None and attend.rank is not None:
        return "sites are generated in an order of their own"
    packed, ordered = query.doc is not None and key.doc is not None, _ordered(attend, own)
    if prefix != (0, 0) and (packed or ordered or key.valid is not None):
        return "a prefix, read by all, stands before sites that are not"
    if not (ordered or bias is not None):
        return None
    if not (query.whole and key.whole):
        return "places are read and sites were taken out"
    if packed and (query.cu_seqlens is None or key.cu_seqlens is None):
        return "places are read and documents have no bounds"
    if packed and not own:
        return "places of two sequences of packed documents are compared"
    return None


def _reads(query: Sites, key: Sites, attend: Attend | None) -> Reads:
    """The pattern of `allow`, where `_unfit` has nothing against it."""
    query_label = key_label = first = stop = lengths = None
    bounds: tuple[Tensor | None, Tensor | None] = (None, None)
    if query.doc is not None and key.doc is not None:
        if query.cu_seqlens is not None and key.cu_seqlens is not None:
            bounds = query.cu_seqlens, key.cu_seqlens
        else:
            query_label, key_label = query.doc.int(), key.doc.int()
    elif key.valid is not None:
        key_label = key.valid.int()
        lengths = (key_label * torch.arange(1, key.n + 1, device=key_label.device)).amax(1)  # padding is mostly behind
    attend = attend or Attend()
    if lengths is not None or bounds[0] is not None or attend.causal or attend.window:
        first, stop = kernel.interval(
            query.n,
            key.n,
            query.place.device,
            causal=attend.causal,
            window=attend.window,
            prefix=attend.prefix if attend.causal else None,
            lengths=lengths,
            query_bounds=bounds[0],
            key_bounds=bounds[1],
            rows=query.rows,
        )
    return Reads(first=first, stop=stop, query_label=query_label, key_label=key_label)


def _bias_at(bias: Bias, query: Sites, key: Sites, prefix: tuple[int, int]) -> Tensor:
    """(1 or B,H,prefix+Nq,prefix+Nk): the bias at the places of the sites."""
    if query.doc is None and key.doc is None and query.whole and key.whole:  # places are 0..N-1 in every row
        return bias.dense(query.n + prefix[0], key.n + prefix[1])[None]
    every, at, of = _by_place(bias), _places(query, prefix[0]), _places(key, prefix[1])
    rows = every.index_select(1, at.flatten()).unflatten(1, at.shape)  # (H,B,Nq,L)
    index = of[None, :, None, :].expand(rows.shape[0], -1, rows.shape[2], -1)
    return rows.gather(3, index).transpose(0, 1)


def _places(sites: Sites, prefix: int) -> Tensor:
    """(B,prefix+N): the prefix stands before all places."""
    before = torch.arange(prefix, device=sites.place.device).expand(sites.rows, -1)
    return torch.cat([before, sites.place + prefix], 1)


def _by_place(bias: Bias) -> Tensor:
    """(H,L,L) for every place below L, tokens before a lattice counted."""
    places = bias.sites
    return bias.dense(places, places)


def _by_segments(query: Sites, key: Sites, attend: Attend | None, prefix: tuple[int, int], q: Tensor) -> bool:
    """On a CPU a loop over packed documents beats a dense mask; its bounds cost no synchronisation there."""
    simple = attend is None or (attend.rank is None and attend.prefix is None and attend.seen is None)
    packed = query.cu_seqlens is not None and key.cu_seqlens is not None
    return packed and simple and prefix == (0, 0) and q.device.type == "cpu"


def _segments(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    query: Sites,
    key: Sites,
    attend: Attend | None,
    bias: Bias | None,
    dropout: float,
    scale: float | None,
) -> Tensor:
    """Packed documents one after the other, each with plain attention; what stands at padding becomes zero."""
    rows, heads, n, size = q.shape
    assert query.cu_seqlens is not None and key.cu_seqlens is not None

    def pieces(t: Tensor, sites: Sites) -> tuple[Tensor, ...]:
        flat = t.transpose(1, 2).reshape(-1, heads, size)  # (B*N,H,d)
        return flat.split(sites.cu_seqlens.diff().tolist())  # type: ignore[union-attr]

    causal = attend is not None and attend.causal
    mask = _biases(None if bias is None else _by_place(bias), attend)
    padding = _padding(query.cu_seqlens[1:].tolist(), n)
    out = []
    for a, b, c, empty in zip(pieces(q, query), pieces(k, key), pieces(v, key), padding, strict=True):
        if empty or not len(a) or not len(b):
            out.append(torch.zeros_like(a))
            continue
        extra = mask(len(a), len(b), a)
        y = F.scaled_dot_product_attention(
            a.transpose(0, 1)[None],
            b.transpose(0, 1)[None],
            c.transpose(0, 1)[None],
            attn_mask=extra,
            dropout_p=dropout,
            is_causal=causal and extra is None,
            scale=scale,
        )
        out.append(y[0].transpose(0, 1))
    return torch.cat(out).view(rows, -1, heads, size).transpose(1, 2)


def _padding(ends: list[int], n: int) -> list[bool]:
    """Which segments are the padding that closes a row of `n` sites: the last ones that end there."""
    return [end % n == 0 and end != following for end, following in zip(ends, [*ends[1:], -1], strict=True)]


def _biases(bias: Tensor | None, attend: Attend | None) -> Callable[[int, int, Tensor], Tensor | None]:
    """The additive mask of one document by its lengths. Documents of one length share it, and so its gradient."""
    window = attend is not None and attend.window > 0
    if bias is not None and attend is not None and attend.causal and not window:
        bias = bias.masked_fill(_future(bias.shape[1], bias.shape[2], bias), torch.finfo(bias.dtype).min)
    made: dict[tuple[int, int], Tensor | None] = {}

    def mask(queries: int, keys: int, like: Tensor) -> Tensor | None:
        lengths = (queries, keys)
        if lengths not in made:
            extra = None if bias is None else bias[None, :, :queries, :keys]
            if window:
                assert attend is not None
                extra = _window(extra, queries, keys, attend, like)
            made[lengths] = None if extra is None else extra.to(like.dtype)
        return made[lengths]

    return mask


def _future(n: int, m: int, like: Tensor) -> Tensor:
    return torch.ones(n, m, dtype=torch.bool, device=like.device).triu(1)


def _window(bias: Tensor | None, n: int, m: int, attend: Attend, like: Tensor) -> Tensor:
    """A (1,1 or H,n,m) additive mask for a window of places, causal if asked."""
    distance = torch.arange(n, device=like.device)[:, None] - torch.arange(m, device=like.device)[None, :]
    hidden = distance.abs() > attend.window
    if attend.causal:
        hidden = hidden | (distance < 0)
    base = torch.zeros(1, 1, n, m, dtype=like.dtype, device=like.device) if bias is None else bias
    return base.masked_fill(hidden, torch.finfo(base.dtype).min)
