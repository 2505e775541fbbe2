# mypy: disable-error-code=no-untyped-def
"""The Triton side of `kernels.attention`: outputs, the gradients of queries and bias, those of keys and values.

Scores are kept in powers of two, `exp2` being what the hardware has. Who reads whom is an interval of keys for every
query (FIRST, STOP), a label of every key that must be that of the query or, where queries have none, not zero (QL,
KL), or both; None is no limit. The bias of a pair is the entry `key's code - query's code + origin` of its head's row
of D. The code of a site is its index, or on a lattice of WIDE columns `row * (2 * WIDE - 1) + column`, so that equal
offsets have equal differences. LEAD tokens before a lattice have the last three entries instead.

The gradient of keys and values computes transposed scores as they are needed, as products of tiles that were loaded:
a transposed accumulator in a product is miscompiled for sm_90 by several versions of Triton (flash-linear-attention
issues 640 and 984).
"""

from __future__ import annotations

import triton
import triton.language as tl

from encdec_train.kernels.backend import table
from encdec_train.kernels.crosscompile import Job
from encdec_train.kernels.masking_triton import GAMMA, chance, mix

LOG2E = tl.constexpr(1.4426950408889634)
# Integers that change with the lengths of a batch: whether 16 divides them is no reason to compile again.
VARYING = ["queries", "keys", "origin", "entries", "width", "before", "ib", "im", "jb", "lb", "mb"]


@triton.jit
def _tile(X, rows, stop, dims, stride, SIZE: tl.constexpr):
    """(ROWS,DIM): zero where there is no row below `stop` and no feature below SIZE."""
    there = (rows < stop)[:, None] & (dims < SIZE)[None, :]
    return tl.load(X + rows[:, None] * stride + dims[None, :], mask=there, other=0.0)


@triton.jit
def _put(X, tile, rows, stop, dims, stride, SIZE: tl.constexpr):
    there = (rows < stop)[:, None] & (dims < SIZE)[None, :]
    tl.store(X + rows[:, None] * stride + dims[None, :], tile.to(X.dtype.element_ty), mask=there)


@triton.jit
def _line(X, offset, at, stop, stride, other):
    """(N,) one number for each site, or None where there are none."""
    if X is None:
        return None
    else:
        return tl.load(X + offset + at * stride, mask=at < stop, other=other)


@triton.jit
def _down(x):
    """(N,1), along the first axis of a tile."""
    if x is None:
        return None
    else:
        return x[:, None]


@triton.jit
def _along(x):
    """(1,N), along the second axis of a tile."""
    if x is None:
        return None
    else:
        return x[None, :]


@triton.jit
def _code(site, WIDE: tl.constexpr, LEAD: tl.constexpr):
    """What the difference of two sites is read from."""
    if WIDE == 0:
        return site
    else:
        on = tl.maximum(site - LEAD, 0)
        return on + on // WIDE * (WIDE - 1)


@triton.jit
def _score(product, D, rows, cols, origin, entries, scale, WIDE: tl.constexpr, LEAD: tl.constexpr):
    """Scores in powers of two. Beyond the table, which padding alone reaches, there is no bias."""
    score = product * (scale * LOG2E)
    if D is not None:
        index = _code(cols, WIDE, LEAD) - _code(rows, WIDE, LEAD) + origin
        if LEAD > 0:
            among = tl.where(cols < LEAD, entries - 1, entries - 3)
            index = tl.where(rows < LEAD, among, tl.where(cols < LEAD, entries - 2, index))
        score += tl.load(D + index, mask=(index >= 0) & (index < entries), other=0.0) * LOG2E
    return score


@triton.jit
def _reads(cols, first, stop, query_label, key_label):
    """Whether a query reads a key, both shaped to broadcast."""
    allowed = cols >= 0
    if first is not None:
        allowed = allowed & (cols >= first) & (cols < stop)
    if key_label is not None:
        if query_label is not None:
            allowed = allowed & (query_label == key_label)
        else:
            allowed = allowed & (key_label != 0)
    return allowed


@triton.jit
def _drop(weight, SEED, pair, rows, cols, queries, keys, rate):
    """Weights, or their gradient, without those that dropout takes: `attention_pattern.Dropout.kept`."""
    if SEED is None:
        return weight
    else:
        counter = (pair * queries + rows) * keys + cols
        bits = chance(mix(tl.load(SEED) + counter * GAMMA))
        return tl.where(bits.to(tl.float32) >= rate * 16777216.0, weight / (1.0 - rate), 0.0)


@triton.jit
def _by_offset(
    PART, dscore, rows, start, BN: tl.constexpr, WIDE: tl.constexpr, LEAD: tl.constexpr, CHUNKS: tl.constexpr
):
    """Sums of a tile on a lattice over equal differences of codes, which grow with the index."""
    codes = _code(rows, WIDE, LEAD)
    least = _code(start, WIDE, LEAD) - tl.max(codes, 0)
    for chunk in tl.static_range(CHUNKS):
        at = chunk * BN + tl.arange(0, BN)
        code = least + at[None, :] + codes[:, None]  # (BM,BN) of the key that meets a row in this column
        col = code // (2 * WIDE - 1) * WIDE + code % (2 * WIDE - 1) + LEAD - start
        here = (code >= 0) & (code % (2 * WIDE - 1) < WIDE) & (col >= 0) & (col < BN) & (rows >= LEAD)[:, None]
        found = tl.gather(dscore, tl.where(here, col, 0), 1)
        tl.store(PART + at, tl.sum(tl.where(here, found, 0.0), 0))


@triton.jit(do_not_specialize=VARYING)
def forward_kernel(
    Q, K, V, D, FIRST, STOP, QL, KL, SEED, OUT, LSE,
    qb, qh, qm, kb, kh, km, vb, vh, vm, ib, im, lb, mb,
    heads, queries, keys, origin, entries, scale, rate,
    GROUP: tl.constexpr, SIZE: tl.constexpr, DIM: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
    WIDE: tl.constexpr, LEAD: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """A tile of queries of a head: OUT (B,queries,heads,SIZE) and LSE (B,heads,queries), in powers of two."""
    tiles = tl.cdiv(queries, BM)
    pair = tl.program_id(0) // tiles
    b, h = (pair // heads).to(tl.int64), pair % heads
    rows, dims = tl.program_id(0) % tiles * BM + tl.arange(0, BM), tl.arange(0, DIM)
    K += b * kb + h // GROUP * kh
    V += b * vb + h // GROUP * vh
    if D is not None:
        D += h * entries
    first, stop = _line(FIRST, b * ib, rows, queries, im, keys), _line(STOP, b * ib, rows, queries, im, 0)
    query_label = _line(QL, b * lb, rows, queries, 1, 0)
    low, high = 0, keys
    if FIRST is not None:
        low, high = tl.min(first, 0) // BN * BN, tl.minimum(tl.max(stop, 0), keys)
    q = _tile(Q + b * qb + h * qh, rows, queries, dims, qm, SIZE)
    top = tl.full([BM], float("-inf"), tl.float32)
    total = tl.zeros([BM], tl.float32)
    out = tl.zeros([BM, DIM], tl.float32)
    for start in range(low, high, BN):
        cols = start + tl.arange(0, BN)
        key_label = _line(KL, b * mb, cols, keys, 1, 0)
        k = _tile(K, cols, keys, dims, km, SIZE)
        score = tl.dot(q, tl.trans(k), input_precision=PRECISION)
        score = _score(score, D, rows[:, None], cols[None, :], origin, entries, scale, WIDE, LEAD)
        allowed = (rows < queries)[:, None] & (cols < keys)[None, :]
        allowed &= _reads(cols[None, :], _down(first), _down(stop), _down(query_label), _along(key_label))
        score = tl.where(allowed, score, float("-inf"))
        higher = tl.maximum(top, tl.max(score, 1))
        base = tl.where(higher == float("-inf"), 0.0, higher)  # of a query that has read nothing so far
        weight = tl.exp2(score - base[:, None])
        fade = tl.exp2(top - base)
        total = total * fade + tl.sum(weight, 1)
        v = _tile(V, cols, keys, dims, vm, SIZE)
        weight = _drop(weight, SEED, pair.to(tl.int64), rows[:, None], cols[None, :], queries, keys, rate)
        out = out * fade[:, None] + tl.dot(weight.to(v.dtype), v, input_precision=PRECISION)
        top = higher
    empty = total == 0.0
    out = out / tl.where(empty, 1.0, total)[:, None]
    _put(OUT + b * queries * heads * SIZE + h * SIZE, out, rows, queries, dims, heads * SIZE, SIZE)
    lse = tl.where(empty, 0.0, top + tl.log2(tl.where(empty, 1.0, total)))
    tl.store(LSE + pair.to(tl.int64) * queries + rows, lse, mask=rows < queries)


@triton.jit
def _slopes(
    q, grad, k, v, D, first, stop, query_label, key_label, SEED, lse, delta, pair, rows, cols,
    queries, keys, origin, entries, scale, rate, WIDE: tl.constexpr, LEAD: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradient of the scores of a tile."""
    score = tl.dot(q, tl.trans(k), input_precision=PRECISION)
    score = _score(score, D, rows[:, None], cols[None, :], origin, entries, scale, WIDE, LEAD)
    allowed = (rows < queries)[:, None] & (cols < keys)[None, :]
    allowed &= _reads(cols[None, :], _down(first), _down(stop), _down(query_label), _along(key_label))
    weight = tl.exp2(tl.where(allowed, score - lse[:, None], float("-inf")))
    dweight = tl.dot(grad, tl.trans(v), input_precision=PRECISION)
    dweight = _drop(dweight, SEED, pair, rows[:, None], cols[None, :], queries, keys, rate)
    return weight * (dweight - delta[:, None])


@triton.jit
def _by_role(
    PART, q, grad, K, V, D, KL, label, first, stop, query_label, SEED, lse, delta, pair, rows, dims, km, vm,
    queries, keys, origin, entries, scale, rate,
    SIZE: tl.constexpr, WIDE: tl.constexpr, LEAD: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Sums over the pairs of a tile of queries and tokens before a lattice; apart, so that they cost no registers."""
    cols = tl.arange(0, 16)
    k, v = _tile(K, cols, keys, dims, km, SIZE), _tile(V, cols, keys, dims, vm, SIZE)
    dscore = _slopes(
        q, grad, k, v, D, first, stop, query_label, _line(KL, label, cols, keys, 1, 0), SEED, lse, delta, pair, rows,
        cols, queries, keys, origin, entries, scale, rate, WIDE, LEAD, PRECISION,
    )  # fmt: skip
    led = tl.sum(tl.where((cols < LEAD)[None, :], dscore, 0.0), 1)
    among = tl.sum(tl.where(rows < LEAD, led, 0.0))
    tl.store(PART, -among)  # the gradients of all scores of a query sum to nothing
    tl.store(PART + 1, tl.sum(tl.where(rows < LEAD, 0.0, led)))
    tl.store(PART + 2, among)


@triton.jit(do_not_specialize=VARYING)
def query_kernel(
    Q, K, V, D, FIRST, STOP, QL, KL, SEED, GRAD, OUT, LSE, DELTA, DQ, PART,
    qb, qh, qm, kb, kh, km, vb, vh, vm, gb, gh, gm, ib, im, lb, mb,
    heads, queries, keys, origin, entries, width, before, scale, rate,
    GROUP: tl.constexpr, SIZE: tl.constexpr, DIM: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
    WIDE: tl.constexpr, LEAD: tl.constexpr, PRECISION: tl.constexpr, CHUNKS: tl.constexpr,
):  # fmt: skip
    """A tile of queries of a head: DQ (B,queries,heads,SIZE), DELTA (B,heads,queries), sums of its bias's gradient.

    PART (B,heads,tiles,width): where codes are indices, entry u of a tile that begins at query i belongs to diagonal
    u - i - (BM - 1) + origin. On a lattice every tile of keys has CHUNKS * BN entries of its own, from the lowest
    difference of codes in the two tiles.
    """
    tiles = tl.cdiv(queries, BM)
    pair = tl.program_id(0) // tiles
    tile = tl.program_id(0) % tiles
    b, h = (pair // heads).to(tl.int64), pair % heads
    rows, dims = tile * BM + tl.arange(0, BM), tl.arange(0, DIM)
    K += b * kb + h // GROUP * kh
    V += b * vb + h // GROUP * vh
    if D is not None:
        D += h * entries
    first, stop = _line(FIRST, b * ib, rows, queries, im, keys), _line(STOP, b * ib, rows, queries, im, 0)
    query_label = _line(QL, b * lb, rows, queries, 1, 0)
    low, high = 0, keys
    if FIRST is not None:
        low, high = tl.min(first, 0) // BN * BN, tl.minimum(tl.max(stop, 0), keys)
    q = _tile(Q + b * qb + h * qh, rows, queries, dims, qm, SIZE)
    grad = _tile(GRAD + b * gb + h * gh, rows, queries, dims, gm, SIZE)
    out = _tile(OUT + b * queries * heads * SIZE + h * SIZE, rows, queries, dims, heads * SIZE, SIZE)
    line = pair.to(tl.int64) * queries + rows
    lse = tl.load(LSE + line, mask=rows < queries, other=0.0)
    delta = tl.sum(grad.to(tl.float32) * out.to(tl.float32), 1)
    tl.store(DELTA + line, delta, mask=rows < queries)
    turn = tl.arange(0, BN)[None, :] + tl.arange(0, BM)[:, None] - (BM - 1)  # (BM,BN)
    if PART is not None:
        PART += (pair.to(tl.int64) * tiles + tile) * width
        if LEAD > 0:
            _by_role(
                PART + width - 3, q, grad, K, V, D, KL, b * mb, first, stop, query_label, SEED,
                lse, delta, before + pair.to(tl.int64), rows, dims, km, vm, queries, keys, origin, entries, scale, rate,
                SIZE, WIDE, LEAD, PRECISION,
            )  # fmt: skip
    over = tl.zeros([BN], tl.float32)  # what the last tile of keys left for the diagonals of the next
    dq = tl.zeros([BM, DIM], tl.float32)
    for start in range(low, high, BN):
        cols = start + tl.arange(0, BN)
        key_label = _line(KL, b * mb, cols, keys, 1, 0)
        k = _tile(K, cols, keys, dims, km, SIZE)
        v = _tile(V, cols, keys, dims, vm, SIZE)
        dscore = _slopes(
            q, grad, k, v, D, first, stop, query_label, key_label, SEED, lse, delta, before + pair.to(tl.int64), rows,
            cols, queries, keys, origin, entries, scale, rate, WIDE, LEAD, PRECISION,
        )  # fmt: skip
        dq += tl.dot(dscore.to(k.dtype), k, input_precision=PRECISION)
        if PART is not None:
            if WIDE == 0:
                # Row r is turned by r, so that a column holds one diagonal, in two parts that are BN apart.
                turned = tl.gather(dscore, turn & (BN - 1), 1)
                tl.store(PART + cols, over + tl.sum(tl.where(turn >= 0, turned, 0.0), 0))
                over = tl.sum(tl.where(turn < 0, turned, 0.0), 0)
            else:
                _by_offset(PART + start * CHUNKS, dscore, rows, start, BN, WIDE, LEAD, CHUNKS)
    if PART is not None:
        if WIDE == 0:
            if high > low:
                tl.store(PART + low + tl.cdiv(high - low, BN) * BN + tl.arange(0, BN), over)
    _put(DQ + b * queries * heads * SIZE + h * SIZE, dq * scale, rows, queries, dims, heads * SIZE, SIZE)


@triton.jit(do_not_specialize=VARYING)
def key_kernel(
    Q, K, V, D, FIRST, STOP, FROM, UNTIL, QL, KL, SEED, GRAD, LSE, DELTA, DK, DV,
    qb, qh, qm, kb, kh, km, vb, vh, vm, gb, gh, gm, ib, im, jb, lb, mb,
    heads, queries, keys, origin, entries, scale, rate,
    GROUP: tl.constexpr, SIZE: tl.constexpr, DIM: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
    WIDE: tl.constexpr, LEAD: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """A tile of keys of a head of keys: DK and DV (B,keys,heads // GROUP,SIZE), over all heads that read it.

    FROM and UNTIL (B,keys) hold an interval of queries outside of which nobody reads a key.
    """
    tiles = tl.cdiv(keys, BN)
    pair = tl.program_id(0) // tiles
    own = heads // GROUP
    b, hk = (pair // own).to(tl.int64), pair % own
    cols, dims = tl.program_id(0) % tiles * BN + tl.arange(0, BN), tl.arange(0, DIM)
    key_label = _line(KL, b * mb, cols, keys, 1, 0)
    low, high = 0, queries
    if FIRST is not None:
        low = tl.min(_line(FROM, b * jb, cols, keys, 1, queries), 0) // BM * BM
        high = tl.max(_line(UNTIL, b * jb, cols, keys, 1, 0), 0)
    k = _tile(K + b * kb + hk * kh, cols, keys, dims, km, SIZE)
    v = _tile(V + b * vb + hk * vh, cols, keys, dims, vm, SIZE)
    dk = tl.zeros([BN, DIM], tl.float32)
    dv = tl.zeros([BN, DIM], tl.float32)
    for h in range(hk * GROUP, hk * GROUP + GROUP):
        line = (b * heads + h) * queries
        for start in range(low, high, BM):
            rows = start + tl.arange(0, BM)
            first, stop = _line(FIRST, b * ib, rows, queries, im, keys), _line(STOP, b * ib, rows, queries, im, 0)
            query_label = _line(QL, b * lb, rows, queries, 1, 0)
            lse, delta = _line(LSE, line, rows, queries, 1, 0.0), _line(DELTA, line, rows, queries, 1, 0.0)
            q = _tile(Q + b * qb + h * qh, rows, queries, dims, qm, SIZE)
            grad = _tile(GRAD + b * gb + h * gh, rows, queries, dims, gm, SIZE)
            score = tl.dot(k, tl.trans(q), input_precision=PRECISION)  # (BN,BM)
            here = D
            if D is not None:
                here = D + h * entries
            score = _score(score, here, rows[None, :], cols[:, None], origin, entries, scale, WIDE, LEAD)
            allowed = (rows < queries)[None, :] & (cols < keys)[:, None]
            allowed &= _reads(cols[:, None], _along(first), _along(stop), _along(query_label), _down(key_label))
            weight = tl.exp2(tl.where(allowed, score - lse[None, :], float("-inf")))
            left = _drop(weight, SEED, b * heads + h, rows[None, :], cols[:, None], queries, keys, rate)
            dv += tl.dot(left.to(grad.dtype), grad, input_precision=PRECISION)
            dweight = tl.dot(v, tl.trans(grad), input_precision=PRECISION)
            dweight = _drop(dweight, SEED, b * heads + h, rows[None, :], cols[:, None], queries, keys, rate)
            dscore = weight * (dweight - delta[None, :])
            dk += tl.dot(dscore.to(q.dtype), q, input_precision=PRECISION)
    _put(DK + b * keys * own * SIZE + hk * SIZE, dk * scale, cols, keys, dims, own * SIZE, SIZE)
    _put(DV + b * keys * own * SIZE + hk * SIZE, dv, cols, keys, dims, own * SIZE, SIZE)


POINTERS = {"bfloat16": "*bf16", "float16": "*fp16", "float32": "*fp32"}
KERNELS = {"forward": forward_kernel, "query": query_kernel, "key": key_kernel}
SUMS = ("D", "LSE", "DELTA", "PART")  # float32 whatever the queries are
NUMBERS = ("FIRST", "STOP", "FROM", "UNTIL", "QL", "KL")


def job(
    kernel: str, dtype: str, size: int, tiles: dict[str, int], *, wide: int = 0, lead: int = 0, dropout: bool = False
) -> Job:
    """One kernel as it is compiled for packed rows with a learned bias; on a lattice there is no packing."""
    function = KERNELS[kernel]
    names = function.arg_names
    unused = {"QL", "KL"} | (set() if dropout else {"SEED"})
    unused |= {"FIRST", "STOP", "FROM", "UNTIL"} if wide else set()
    options = {name: tiles[name] for name in ("num_warps", "num_stages")}
    constants = dict.fromkeys(unused & set(names))
    constants |= {"GROUP": 1, "SIZE": size, "DIM": size, "WIDE": wide, "LEAD": lead, "PRECISION": "ieee"}
    constants |= {"BM": tiles["BM"], "BN": tiles["BN"]} | ({"CHUNKS": 6 if wide else 0} if kernel == "query" else {})
    signature = {name: _kind(name, dtype) for name in names if name not in constants}
    strides = [name for name in names if len(name) == 2 and name.islower() and name not in VARYING]
    shape = " ".join(str(number) for number in tiles.values())
    kinds = f"{' lattice' if wide else ''}{' tokens' if lead else ''}{' dropout' if dropout else ''}"
    title = f"attention.{kernel} {dtype} {size}{kinds}, tiles {shape}"
    return Job(name=title, kernel=function, signature=signature, constants=constants, options=options, aligned=strides)


def _kind(name: str, dtype: str) -> str:
    if name in SUMS:
        return "*fp32"
    if name in NUMBERS:
        return "*i32"
    if name == "SEED":
        return "*i64"
    if name.isupper():
        return POINTERS[dtype]
    return "fp32" if name in ("scale", "rate") else "i32"


def jobs(arch: int) -> list[Job]:
    """Every kernel with every choice of tiles for an architecture and with the safe ones."""
    found = []
    for name, kinds in (
        ("attention", ({},)),
        ("attention_narrow", ({"dropout": True}, {"wide": 14}, {"wide": 14, "lead": 1})),
    ):
        shipped = table(name)
        rows = [row for row in shipped["rows"] if row["arch"] == arch]
        rows += [{"dtype": "bfloat16", "size": size, "kernels": shipped["safe"]} for size in (32, 128)]
        for row in rows:
            for kernel in KERNELS:
                for kind in kinds:
                    found.append(job(kernel, row["dtype"], row["size"], row["kernels"][kernel], **kind))
    return found
