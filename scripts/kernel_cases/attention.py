"""Attention: packed, causal, windowed, shared heads, tables on a line and on a lattice; against what torch offers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from encdec_train.kernels.attention import Bias, Dropout, Reads, attention, interval, reference
from kernel_cases.common import Bench, Check, Goal, Inputs, Tuning


def _inputs(
    dtype: torch.dtype,
    device: torch.device,
    *,
    rows: int,
    heads: int,
    own: int,
    queries: int,
    keys: int,
    size: int,
    entries: int,
) -> Inputs:
    """q, k, v as views of the memory that models make, and a table in float32."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(device)

    q, k, v = (
        draw(rows, n, h, size).to(dtype).transpose(1, 2) for n, h in ((queries, heads), (keys, own), (keys, own))
    )
    table = draw(heads, entries)
    return tuple(x.requires_grad_() for x in (q, k, v, table))


def _read(rows: int, n: int, device: torch.device, *, causal: bool, window: int, packed: bool) -> Reads | None:
    if not (causal or window or packed):
        return None
    bounds = None
    if packed:  # documents of 1, 2, 4, ... sites, then what is left of the row
        lengths, left = [], rows * n
        while left:
            lengths.append(min(left, n - sum(lengths) % n, 2 ** (len(lengths) % 9)))
            left -= lengths[-1]
        bounds = torch.tensor([0, *lengths]).cumsum(0).int().to(device)
    first, stop = interval(
        n, n, device, causal=causal, window=window, query_bounds=bounds, key_bounds=bounds, rows=rows
    )
    return Reads(first=first, stop=stop)


def _call(
    function: Callable[..., Tensor],
    q: Tensor,
    k: Tensor,
    v: Tensor,
    table: Tensor,
    *,
    causal: bool,
    window: int,
    packed: bool,
    wide: int,
    lead: int,
    rate: float,
) -> Inputs:
    n, m = q.shape[2], k.shape[2]
    origin = (table.shape[1] - (3 if lead else 0)) // 2 if wide else n - 1
    bias = Bias(diagonals=table, origin=origin, wide=wide, lead=lead)
    dropout = Dropout(rate=rate, seed=torch.tensor([7], device=q.device)) if rate else None
    reads = _read(len(q), n, q.device, causal=causal, window=window, packed=packed) if n == m else None
    return (function(q, k, v, bias=bias, reads=reads, dropout=dropout),)


def checks() -> Iterator[Check]:
    for size in (32, 64, 80, 128):
        for queries, keys, causal, window, packed, wide, lead, rate in (
            (1, 17, False, 0, False, 0, 0, 0.0),
            (63, 300, False, 0, False, 0, 0, 0.0),
            (192, 192, False, 0, False, 0, 0, 0.0),
            (513, 513, True, 0, False, 0, 0, 0.0),
            (513, 513, False, 65, True, 0, 0, 0.0),
            (512, 512, True, 0, True, 0, 0, 0.0),
            (196, 196, False, 0, False, 14, 0, 0.0),
            (197, 197, False, 0, False, 14, 1, 0.0),
            (512, 512, True, 0, True, 0, 0, 0.1),
        ):
            shape = {"rows": 2, "heads": 4, "own": 2, "queries": queries, "keys": keys, "size": size}
            entries = (2 * (queries // wide) - 1) * (2 * wide - 1) if wide else queries + keys - 1
            entries += 3 if lead else 0
            pattern = {"causal": causal, "window": window, "packed": packed, "wide": wide, "lead": lead, "rate": rate}
            yield Check(
                name=" ".join(f"{name}={value}" for name, value in (shape | pattern).items()),
                inputs=partial(_inputs, **shape, entries=entries),
                table="attention_narrow" if rate or wide else "attention",
                size=128 if size == 80 else size,  # heads are filled up to a power of two
                kernel=partial(_call, attention, **pattern),
                twin=partial(_call, reference, **pattern),
            )


def _timed(call: Callable[[], Tensor], leaves: list[Tensor], what: str) -> Callable[[], object]:
    """What is timed of a call: `forward`, `backward` or `both`."""
    if what == "forward":
        return call
    out = call()
    grad = torch.ones_like(out)
    if what == "backward":
        return lambda: torch.autograd.grad(out, leaves, grad, retain_graph=True)
    return lambda: torch.autograd.grad(call(), leaves, grad)


def _plain(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The fastest that torch has, which knows no learned bias."""
    with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
        return F.scaled_dot_product_attention(q, k, v, scale=1.0)


def _biased(what: str, rows: int, n: int, size: int, device: torch.device) -> dict[str, Callable[[], object]]:
    """A learned bias by relative place, as T5 has it: scores are not divided."""
    from torch.nn.attention.flex_attention import flex_attention

    shape = {"rows": rows, "heads": 12, "own": 12, "queries": n, "keys": n, "size": size}
    q, k, v, table = _inputs(torch.bfloat16, device, **shape, entries=2 * n - 1)
    dense = Bias(diagonals=table.detach(), origin=n - 1).dense(n, n)[None].to(q.dtype).requires_grad_()

    def add(score: Tensor, _: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return score + table[head, key - query + n - 1]

    flex = torch.compile(flex_attention)
    calls: dict[str, tuple[Callable[[], Tensor], list[Tensor]]] = {
        "ours": (lambda: attention(q, k, v, bias=Bias(diagonals=table, origin=n - 1), scale=1.0), [q, k, v, table]),
        "SDPA, bias of all pairs": (
            lambda: F.scaled_dot_product_attention(q, k, v, attn_mask=dense, scale=1.0),
            [q, k, v, dense],
        ),
        "FlexAttention, learned table": (lambda: flex(q, k, v, score_mod=add, scale=1.0), [q, k, v, table]),
        "cuDNN without a bias": (lambda: _plain(q, k, v), [q, k, v]),
    }
    return {side: _timed(*call, what) for side, call in calls.items()}


def _packed(rows: int, n: int, size: int, device: torch.device) -> dict[str, Callable[[], object]]:
    """Documents of half a row: packed without a bias, and as rows of which half is padding."""
    from torch.nn.attention.varlen import varlen_attn

    shape = {"heads": 12, "own": 12, "size": size, "entries": 1}
    q, k, v, _ = _inputs(torch.bfloat16, device, rows=1, queries=rows * n, keys=rows * n, **shape)
    bounds = torch.arange(0, rows * n + 1, n // 2, device=device, dtype=torch.int32)
    first, stop = interval(rows * n, rows * n, device, query_bounds=bounds, key_bounds=bounds, rows=1)
    reads = Reads(first=first, stop=stop)
    padded = _inputs(torch.bfloat16, device, rows=2 * rows, queries=n, keys=n, **shape)[:3]
    real = (torch.arange(n, device=device) < n // 2)[None, None, None]
    calls: dict[str, tuple[Callable[[], Tensor], list[Tensor]]] = {
        "ours": (lambda: attention(q, k, v, reads=reads), [q, k, v]),
        "varlen_attn": (
            lambda: varlen_attn(*(x[0].transpose(0, 1) for x in (q, k, v)), bounds, bounds, n // 2, n // 2),
            [q, k, v],
        ),
        "SDPA, half padding": (lambda: F.scaled_dot_product_attention(*padded, attn_mask=real), list(padded)),
    }
    return {side: _timed(*call, "both") for side, call in calls.items()}


def benches() -> Iterator[Bench]:
    for n, rows in ((256, 64), (512, 32), (1024, 16), (2048, 8)):
        pairs = Goal(against="SDPA, bias of all pairs", times={256: 1.0, 512: 1.4}.get(n, 2.0))
        for what, work, flex, plain in (
            ("forward", 1.0, 1.0, 0.7),
            ("backward", 2.5, 1.5, 0.55),
            ("both", 3.5, None, None),
        ):
            goals = [pairs, Goal(against="cuDNN without a bias", memory=1.1)]
            if flex is not None:
                goals = [
                    Goal(against="FlexAttention, learned table", times=flex),
                    Goal(against="cuDNN without a bias", times=plain),
                ]
            yield Bench(
                name=f"bias, {what}, {rows} rows of {n}, 12 heads of 64",
                prepare=partial(_biased, what, rows, n, 64),
                flops=work * 4 * rows * 12 * n * n * 64,
                goals=tuple(goals),
            )
    for n, rows in ((1024, 16), (4096, 4)):
        yield Bench(
            name=f"packed, both, {rows} rows of {n} in halves, 12 heads of 64",
            prepare=partial(_packed, rows, n, 64),
            flops=3.5 * 4 * rows * 12 * n * (n // 2) * 64,
            goals=(Goal(against="varlen_attn", times=0.9), Goal(against="SDPA, half padding", times=1.8)),
        )


def _tiles(*choices: tuple[int, int, int, int]) -> list[dict[str, int]]:
    return [dict(zip(("BM", "BN", "num_warps", "num_stages"), choice, strict=True)) for choice in choices]


def _tuned(dtype: torch.dtype, size: int, n: int, rate: float, device: torch.device) -> Callable[[], object]:
    shape = {"rows": max(1, 16384 // n), "heads": 12, "own": 12, "queries": n, "keys": n, "size": size}
    q, k, v, table = _inputs(dtype, device, **shape, entries=2 * n - 1)
    bias = Bias(diagonals=table, origin=n - 1)
    dropout = Dropout(rate=rate, seed=torch.tensor([7], device=device)) if rate else None
    return _timed(lambda: attention(q, k, v, bias=bias, dropout=dropout), [q, k, v, table], "both")


def tunings() -> Iterator[Tuning]:
    """The gradient of a table on a line needs BM <= BN in the kernel of the queries."""
    forward = [(m, n, w, s) for m, n, w in ((64, 64, 4), (128, 64, 8), (128, 128, 8)) for s in (2, 3, 4)]
    query = [(m, n, w, s) for m, n, w in ((32, 64, 4), (64, 64, 4), (64, 64, 8), (32, 128, 8)) for s in (1, 2, 3)]
    key = [(m, n, w, s) for m, n, w in ((32, 64, 4), (64, 64, 4), (32, 128, 8), (64, 128, 8)) for s in (1, 2, 3)]
    found = {"forward": _tiles(*forward), "query": _tiles(*query), "key": _tiles(*key)}
    for op, rate in (("attention", 0.0), ("attention_narrow", 0.1)):
        for dtype in (torch.bfloat16, torch.float16):
            for size in (32, 64, 128):
                for n in (512, 2048):
                    yield Tuning(
                        op=op,
                        dtype=dtype,
                        size=size,
                        length=n,
                        candidates=found,
                        prepare=partial(_tuned, dtype, size, n, rate),
                    )
