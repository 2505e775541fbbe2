"""The Triton side of `kernels.masking`: integer work only, so that it equals its twin bit for bit."""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

from encdec_train import rng
from encdec_train.kernels.crosscompile import Job

GAMMA = tl.constexpr(rng.GAMMA)
MIX_1 = tl.constexpr(rng.MIX_1)
MIX_2 = tl.constexpr(rng.MIX_2)
LAST = tl.constexpr((1 << 63) - 1)


@triton.jit
def mix(h):
    """`rng.mix`: shifts of int64 are arithmetic, so the sign is masked away."""
    h = (h ^ ((h >> 30) & 0x3FFFFFFFF)) * MIX_1
    h = (h ^ ((h >> 27) & 0x1FFFFFFFFF)) * MIX_2
    return h ^ ((h >> 31) & 0x1FFFFFFFF)


@triton.jit
def begin(step, tag):
    """What all numbers of a step and a tag begin with."""
    return mix(tl.load(step) * GAMMA + tag)


@triton.jit
def fold(h, key):
    """One more key."""
    return mix(h * 31 + GAMMA + key)


@triton.jit
def chance(bits):
    """The 24 bits of `Rng.uniform`, as an integer."""
    return (bits >> 40) & 0xFFFFFF


@triton.jit
def below(bits, high):
    """`Rng.integers`."""
    return (((bits >> 33) & 0x7FFFFFFF) * high) >> 31


STRIDES = ["n1", "n2", "n3", "s0", "s1", "s2", "s3", "k0", "k1", "k2", "k3"]


@triton.jit(do_not_specialize=["tag", *STRIDES])
def fold_kernel(
    state,
    keys,
    out,
    tag,
    size,
    n1,
    n2,
    n3,
    s0,
    s1,
    s2,
    s3,
    k0,
    k1,
    k2,
    k3,
    FIRST: tl.constexpr,
    FLAT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One key of `Rng.bits`, of shape (n0,n1,n2,n3): strides of the state are s, of the keys k; 0 where broadcast.

    FIRST: the state is the step. FLAT: nothing is broadcast, all stands as it is written.
    """
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    real = at < size
    of_key, of_state = at, at
    if not FLAT:
        i3, rest = at % n3, at // n3
        i2, rest = rest % n2, rest // n2
        i1, i0 = rest % n1, rest // n1
        of_key = i0 * k0 + i1 * k1 + i2 * k2 + i3 * k3
        of_state = i0 * s0 + i1 * s1 + i2 * s2 + i3 * s3
    key = tl.load(keys + of_key, mask=real, other=0)
    if FIRST:
        h = begin(state, tag)
    else:
        h = tl.load(state + of_state, mask=real, other=0)
    tl.store(out + at, fold(h, key), mask=real)


@triton.jit
def lower(key, at, mine, here):
    """How many of `key` (J,) rank before each of `mine` (I,): lower, or equal and earlier."""
    before = (key[None, :] < mine[:, None]) | ((key[None, :] == mine[:, None]) & (at[None, :] < here[:, None]))
    return tl.sum(before.to(tl.int32), 1)


@triton.jit
def rank_kernel(keys, out, n, stride, BLOCK: tl.constexpr, OTHERS: tl.constexpr):
    """Rank of every key in its row. One program: BLOCK keys of a row against all of it."""
    row = tl.program_id(0).to(tl.int64)
    here = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mine = tl.load(keys + row * stride + here, mask=here < n, other=0)
    rank = tl.zeros([BLOCK], tl.int32)
    for start in range(0, n, OTHERS):
        at = start + tl.arange(0, OTHERS)
        key = tl.load(keys + row * stride + at, mask=at < n, other=LAST)  # never before a key of the row
        rank += lower(key, at, mine, here)
    tl.store(out + row * n + here, rank.to(tl.int64), mask=here < n)


@triton.jit
def places_kernel(flags, out, n, capacity, stride, BLOCK: tl.constexpr):
    """Where a row's flags are set, in order, then where they are not. One program for each row."""
    row = tl.program_id(0).to(tl.int64)
    lane = tl.arange(0, BLOCK)
    count = tl.zeros([BLOCK], tl.int32)
    for start in range(0, n, BLOCK):
        at = start + lane
        count += tl.load(flags + row * stride + at, mask=at < n, other=0).to(tl.int32)
    set_before, clear_before = 0, tl.sum(count, 0)
    for start in range(0, n, BLOCK):
        at = start + lane
        real = at < n
        flag = tl.load(flags + row * stride + at, mask=real, other=0).to(tl.int32)
        upto = tl.cumsum(flag, 0)
        slot = tl.where(flag != 0, set_before + upto - 1, clear_before + lane - upto)
        tl.store(out + row * capacity + slot, at.to(tl.int64), mask=real & (slot < capacity))
        found = tl.sum(flag, 0)
        set_before += found
        clear_before += BLOCK - found  # only the last block has fewer, and nothing follows it


@triton.jit(do_not_specialize=["tag"])
def keep_kernel(
    sample,
    place,
    step,
    keep,
    lost,
    mask,
    tag,
    n,
    kept,
    predicted,
    sample_row,
    sample_column,
    place_row,
    place_column,
    BLOCK: tl.constexpr,
    OTHERS: tl.constexpr,
):
    """The `kept` sites of lowest rank and the `predicted` ones of highest, in their order. One program for a row."""
    row = tl.program_id(0).to(tl.int64)
    samples, places = sample + row * sample_row, place + row * place_row
    here = tl.arange(0, BLOCK)
    rank = ranks(samples, places, begin(step, tag), n, sample_column, place_column, here, BLOCK, OTHERS)
    split(keep, lost, mask, rank, here, row, n, kept, predicted)


@triton.jit
def ranks(samples, places, start, n, sample_column, place_column, here, BLOCK: tl.constexpr, OTHERS: tl.constexpr):
    """The rank of every site of a row in its random order."""
    real = here < n
    mine = fold(start, tl.load(samples + here * sample_column, mask=real, other=0))
    mine = fold(mine, tl.load(places + here * place_column, mask=real, other=0))
    rank = tl.zeros([BLOCK], tl.int32)
    for first in range(0, n, OTHERS):
        at = first + tl.arange(0, OTHERS)
        there = at < n
        key = fold(start, tl.load(samples + at * sample_column, mask=there, other=0))
        key = fold(key, tl.load(places + at * place_column, mask=there, other=0))
        rank += lower(tl.where(there, key, LAST), at, mine, here)
    return rank


@triton.jit
def split(keep, lost, mask, rank, here, row, n, kept, predicted):
    """Write where the first and the last of an order stand. Returns which are the first, and their number."""
    real = here < n
    is_kept = real & (rank < kept)
    is_lost = real & (rank >= n - predicted)
    slot = tl.cumsum(is_kept.to(tl.int32), 0) - 1
    tl.store(keep + row * kept + slot, here.to(tl.int64), mask=is_kept)
    tl.store(lost + row * predicted + tl.cumsum(is_lost.to(tl.int32), 0) - 1, here.to(tl.int64), mask=is_lost)
    tl.store(mask + row * n + here, is_lost, mask=real)
    return is_kept, slot


@triton.jit(do_not_specialize=["tag"])
def keep_values_kernel(
    values,
    sample,
    place,
    step,
    keep,
    lost,
    mask,
    taken,
    tag,
    n,
    kept,
    predicted,
    width,
    sample_row,
    sample_column,
    place_row,
    place_column,
    BLOCK: tl.constexpr,
    OTHERS: tl.constexpr,
    KEPT: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """`keep_kernel`, and the values of the kept sites, KEPT of them at a time."""
    row = tl.program_id(0).to(tl.int64)
    samples, places = sample + row * sample_row, place + row * place_row
    here = tl.arange(0, BLOCK)
    rank = ranks(samples, places, begin(step, tag), n, sample_column, place_column, here, BLOCK, OTHERS)
    is_kept, slot = split(keep, lost, mask, rank, here, row, n, kept, predicted)
    values, taken = values + row * n * width, taken + row * kept * width
    slot = tl.where(is_kept, slot, -1)
    for start in range(0, kept, KEPT):
        new = start + tl.arange(0, KEPT)
        old = tl.sum(tl.where(slot[None, :] == new[:, None], here[None, :], 0), 1)
        for first in range(0, width, COLUMNS):
            column = (first + tl.arange(0, COLUMNS))[None, :]
            put = (new < kept)[:, None] & (column < width)
            value = tl.load(values + (old[:, None] * width + column), mask=put)
            tl.store(taken + (new[:, None] * width + column), value, mask=put)


@triton.jit(do_not_specialize=["tag"])
def choose_kernel(
    score,
    sample,
    place,
    step,
    where,
    mask,
    weight,
    tag,
    n,
    capacity,
    sample_row,
    sample_column,
    place_row,
    place_column,
    RANDOM: tl.constexpr,
    BLOCK: tl.constexpr,
    OTHERS: tl.constexpr,
):
    """At most `capacity` sites of a row, the higher scores first, none of score 0. One program for a row."""
    row = tl.program_id(0).to(tl.int64)
    here = tl.arange(0, BLOCK)
    real = here < n
    high = tl.load(score + row * n + here, mask=real, other=0).to(tl.int64)
    chosen = real & (high > 0)
    if RANDOM:
        start = begin(step, tag)
        samples, places = sample + row * sample_row, place + row * place_row
        mine = lot(start, high, samples + here * sample_column, places + here * place_column, real)
        rank = tl.zeros([BLOCK], tl.int32)
        for first in range(0, n, OTHERS):
            at = first + tl.arange(0, OTHERS)
            there = at < n
            other = tl.load(score + row * n + at, mask=there, other=0).to(tl.int64)
            key = lot(start, other, samples + at * sample_column, places + at * place_column, there)
            rank += lower(tl.where(there, key, LAST), at, mine, here)
        chosen = chosen & (rank < capacity)
    else:
        chosen = chosen & (tl.cumsum(chosen.to(tl.int32), 0) <= capacity)
    upto = tl.cumsum(chosen.to(tl.int32), 0)
    slot = tl.where(chosen, upto - 1, tl.sum(chosen.to(tl.int32), 0) + here - upto)
    out = row * capacity + slot
    tl.store(where + out, row * n + here, mask=real & (slot < capacity))
    tl.store(weight + out, chosen.to(tl.float32), mask=real & (slot < capacity))
    tl.store(mask + row * n + here, chosen, mask=real)


@triton.jit
def lot(start, score, sample, place, real):
    """What sites are ranked by: higher scores first, then at random."""
    key = fold(fold(start, tl.load(sample, mask=real, other=0)), tl.load(place, mask=real, other=0))
    return ((2 - score) << 61) + ((key >> 2) & (LAST >> 2))


@triton.jit
def picked(sample, unit, may, start, at, real, limit):
    """Which sites are drawn."""
    bits = fold(fold(start, tl.load(sample + at, mask=real, other=0)), tl.load(unit + at, mask=real, other=0))
    return real & (chance(bits) < limit) & (tl.load(may + at, mask=real, other=0) != 0)


@triton.jit(do_not_specialize=["tag"])
def count_kernel(sample, unit, may, step, counts, tag, size, limit, BLOCK: tl.constexpr):
    """How many sites of each block are drawn."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    found = picked(sample, unit, may, begin(step, tag), at, at < size, limit)
    tl.store(counts + tl.program_id(0), tl.sum(found.to(tl.int64), 0))


@triton.jit(do_not_specialize=["tag", "kind_tag", "other_tag"])
def pick_kernel(
    ids,
    sample,
    place,
    unit,
    may,
    step,
    before,
    out,
    mask,
    where,
    weight,
    tag,
    kind_tag,
    other_tag,
    size,
    capacity,
    limit,
    hide_limit,
    other_limit,
    hidden_id,
    first_id,
    ordinary,
    BLOCK: tl.constexpr,
):
    """Drawn sites that find room are rewritten and listed. `before` counts the drawn ones of earlier blocks."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    real = at < size
    found = picked(sample, unit, may, begin(step, tag), at, real, limit)
    slot = tl.load(before + tl.program_id(0)) + tl.cumsum(found.to(tl.int64), 0) - 1
    found = found & (slot < capacity)
    samples, places = tl.load(sample + at, mask=real, other=0), tl.load(place + at, mask=real, other=0)
    kind = chance(fold(fold(begin(step, kind_tag), samples), places))
    other = first_id + below(fold(fold(begin(step, other_tag), samples), places), ordinary)
    old = tl.load(ids + at, mask=real, other=0)
    new = tl.where(kind < hide_limit, hidden_id, tl.where(kind < other_limit, other, old))
    tl.store(out + at, tl.where(found, new, old), mask=real)
    tl.store(mask + at, found, mask=real)
    tl.store(where + slot, at, mask=found)
    tl.store(weight + slot, tl.full([BLOCK], 1.0, tl.float32), mask=found)


@triton.jit(do_not_specialize=["tag"])
def negatives_kernel(
    order,
    first,
    rank,
    others,
    real,
    sample,
    place,
    step,
    out,
    tag,
    m,
    count,
    BLOCK: tl.constexpr,
):
    """The `count` negatives of every row; a flat index over (M,count)."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < m * count
    row, number = at // count, at % count
    there = tl.load(others + row, mask=inside, other=0)
    bits = fold(begin(step, tag), tl.load(sample + row, mask=inside, other=0))
    bits = fold(fold(bits, tl.load(place + row, mask=inside, other=0)), number)
    drawn = below(bits, there)
    drawn += (drawn >= tl.load(rank + row, mask=inside, other=0)).to(tl.int64)
    slot = tl.minimum(tl.load(first + row, mask=inside, other=0) + drawn, m - 1)
    found = tl.load(order + slot, mask=inside, other=0)
    able = (tl.load(real + row, mask=inside, other=0) != 0) & (there > 0)
    tl.store(out + at, tl.where(able, found, row), mask=inside)


@triton.jit
def restore_kernel(
    y,
    token,
    here,
    there,
    out,
    prefix,
    known,
    holes,
    width,
    groups,
    BLOCK: tl.constexpr,
):
    """One site of the new rows, (rows,known+holes,width): a known one with its position, or the token with its own."""
    site = tl.program_id(0).to(tl.int64)
    row, column = site // (known + holes), site % (known + holes)
    for start in range(0, width, BLOCK):
        at = start + tl.arange(0, BLOCK)
        real = at < width
        if column < known:
            old = row // groups
            x = tl.load(y + (old * known + column) * width + at, mask=real, other=0).to(tl.float32)
            if column >= prefix:
                place = here + (old * (known - prefix) + column - prefix) * width
                x += tl.load(place + at, mask=real, other=0).to(tl.float32)
        else:
            place = there + (row * holes + column - known) * width
            x = tl.load(token + at, mask=real, other=0).to(tl.float32)
            x += tl.load(place + at, mask=real, other=0).to(tl.float32)
        tl.store(out + site * width + at, x.to(out.dtype.element_ty), mask=real)


FOLD, RANK, OTHERS, KEPT, PLACES, PICK, NEGATIVES = 1024, 128, 8, 8, 512, 512, 512  # tiles
WHOLE = 1024  # sites of the longest row that one program ranks and splits


def keep_options(n: int) -> tuple[int, int]:
    """Tile and warps of a program that holds a row of `n` sites: 64 sites a warp."""
    block = max(16, triton.next_power_of_2(n))
    return block, min(max(block // 64, 1), 16)


def columns(width: int) -> int:
    """Columns of a tile of kept sites."""
    return min(triton.next_power_of_2(width), 256)


def restore_tile(width: int) -> int:
    return min(triton.next_power_of_2(width), 1024)


def jobs(arch: int) -> list[Job]:
    """Every kernel as `masking` launches it, the same for all architectures."""
    keys = {"sample": "*i64", "place": "*i64", "step": "*i64", "tag": "i64"}
    out = {"keep": "*i64", "lost": "*i64", "mask": "*i1"}
    found = []

    def job(name: str, kernel: Any, signature: dict[str, str], constants: dict[str, Any], warps: int = 4) -> None:
        options = {"num_warps": warps}
        found.append(Job(name=name, kernel=kernel, signature=signature, constants=constants, options=options))

    fold = {
        "state": "*i64",
        "keys": "*i64",
        "out": "*i64",
        "tag": "i64",
        "size": "i64",
        **dict.fromkeys(STRIDES, "i64"),
    }
    for first, flat in ((True, True), (False, False)):
        job(f"fold flat={flat}", fold_kernel, fold, {"FIRST": first, "FLAT": flat, "BLOCK": FOLD})
    rank = {"keys": "*i64", "out": "*i64", "n": "i32", "stride": "i64"}
    job("rank", rank_kernel, rank, {"BLOCK": RANK, "OTHERS": OTHERS})
    places = {"flags": "*i1", "out": "*i64", "n": "i32", "capacity": "i32", "stride": "i64"}
    job("places", places_kernel, places, {"BLOCK": PLACES})
    counts = dict.fromkeys(("n", "kept", "predicted"), "i32")
    strides = dict.fromkeys(("sample_row", "sample_column", "place_row", "place_column"), "i64")
    for n in (16, 256, WHOLE):
        block, warps = keep_options(n)
        tiles: dict[str, Any] = {"BLOCK": block, "OTHERS": OTHERS}
        job(f"keep {n}", keep_kernel, keys | out | counts | strides, tiles, warps)
        for kind, wide in (("bf16", 768), ("fp32", 768), ("fp32", 3)):
            of_values = {"values": f"*{kind}", "taken": f"*{kind}", "width": "i32"} | keys | out | counts | strides
            wider = tiles | {"KEPT": KEPT, "COLUMNS": columns(wide)}
            job(f"keep {n} with {kind} {wide}", keep_values_kernel, of_values, wider, warps)
    names = {"score": "*u8", "where": "*i64", "mask": "*i1", "weight": "*fp32", "n": "i32", "capacity": "i32"}
    for n in (256, WHOLE):
        for random in (False, True):
            block, warps = keep_options(n)
            constants = {"RANDOM": random, "BLOCK": block, "OTHERS": OTHERS}
            job(f"choose {n} random={random}", choose_kernel, keys | names | strides, constants, warps)
    drawn = {"sample": "*i64", "unit": "*i64", "step": "*i64", "tag": "i64"}
    count = drawn | {"may": "*i1", "counts": "*i64", "size": "i32", "limit": "i32"}
    job("count", count_kernel, count, {"BLOCK": PICK})
    numbers = ("size", "capacity", "limit", "hide_limit", "other_limit", "hidden_id", "first_id", "ordinary")
    pick = keys | dict.fromkeys(("unit", "ids", "before", "out", "where"), "*i64") | {"may": "*i1", "mask": "*i1"}
    pick |= {"weight": "*fp32", "kind_tag": "i64", "other_tag": "i64"} | dict.fromkeys(numbers, "i32")
    job("pick", pick_kernel, pick, {"BLOCK": PICK})
    negatives = keys | dict.fromkeys(("order", "first", "rank", "others", "out"), "*i64")
    negatives |= {"real": "*i1", "m": "i32", "count": "i32"}
    job("negatives", negatives_kernel, negatives, {"BLOCK": NEGATIVES})
    sizes = dict.fromkeys(("prefix", "known", "holes", "width", "groups"), "i32")
    restore = {"y": "*bf16", "token": "*fp32", "here": "*bf16", "there": "*fp32", "out": "*bf16", **sizes}
    job("restore", restore_kernel, restore, {"BLOCK": restore_tile(768)})
    return found
