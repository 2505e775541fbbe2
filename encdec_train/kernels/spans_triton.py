"""The Triton side of `kernels.spans`: integer work only, so that it equals its twin bit for bit."""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

from encdec_train.kernels.crosscompile import Job
from encdec_train.kernels.masking_triton import LAST, begin, chance, fold, lower

LOT = tl.constexpr((1 << 40) - 1)


@triton.jit
def larger(a, b):
    return tl.maximum(a, b)


@triton.jit
def smaller(a, b):
    return tl.minimum(a, b)


@triton.jit
def span_starts(sample, place, free, start, sites, length, at, n):
    """Keys of the sites where a span fits, LAST elsewhere; and where it does."""
    there = at < n
    where = tl.load(place + at, mask=there, other=0)
    fits = there & (tl.load(free + at, mask=there, other=0) != 0) & ((where <= sites - length) | (where == 0))
    key = fold(fold(start, tl.load(sample + at, mask=there, other=0)), where)
    return tl.where(fits, key, LAST), fits


@triton.jit(do_not_specialize=["count_tag", "start_tag", "part", "length"])
def hide_kernel(
    sample,
    place,
    real,
    free,
    step,
    out,
    count_tag,
    start_tag,
    n,
    part,
    length,
    BLOCK: tl.constexpr,
    OTHERS: tl.constexpr,
):
    """The spans of a row: how many, where they start, what they cover. One program for a row."""
    row = tl.program_id(0).to(tl.int64)
    sample, place, real, free = sample + row * n, place + row * n, real + row * n, free + row * n
    here = tl.arange(0, BLOCK)
    sites = tl.sum((tl.load(real + here, mask=here < n, other=0) != 0).to(tl.int64), 0)
    start = begin(step, start_tag)
    mine, fits = span_starts(sample, place, free, start, sites, length, here, n)
    count = (part.to(tl.int64) * sites + chance(fold(begin(step, count_tag), tl.load(sample)))) >> 24
    count = tl.minimum(tl.maximum(count, 1), tl.sum(fits.to(tl.int64), 0))
    rank = tl.zeros([BLOCK], tl.int32)
    for first in range(0, n, OTHERS):
        at = first + tl.arange(0, OTHERS)
        key, _ = span_starts(sample, place, free, start, sites, length, at, n)
        rank += lower(key, at, mine, here)
    latest = tl.associative_scan(tl.where(fits & (rank < count), here, -length), 0, larger)
    covered = (here - latest < length) & (tl.load(free + here, mask=here < n, other=0) != 0)
    tl.store(out + row * n + here, covered, mask=here < n)


@triton.jit
def documents_kernel(doc, number, item, length, n, shortest, BLOCK: tl.constexpr):
    """Number, place within and length of the document of every site. One program for a row."""
    row = tl.program_id(0).to(tl.int64)
    here = tl.arange(0, BLOCK)
    real = here < n
    mine = tl.load(doc + row * n + here, mask=real, other=0)
    before = tl.load(doc + row * n + here - 1, mask=real & (here > 0), other=0)
    after = tl.load(doc + row * n + here + 1, mask=here + 1 < n, other=0)
    begins = (here == 0) | (mine != before)
    ends = (here + 1 >= n) | (mine != after)
    start = tl.associative_scan(tl.where(begins, here, 0), 0, larger)
    end = tl.associative_scan(tl.where(ends, here + 1, BLOCK), 0, smaller, reverse=True)
    size = tl.where(mine >= 0, end - start, 0)
    tl.store(number + row * n + here, (tl.cumsum(begins.to(tl.int32), 0) - 1).to(tl.int64), mask=real)
    tl.store(item + row * n + here, (here - start).to(tl.int64), mask=real)
    tl.store(length + row * n + here, tl.where(size < shortest, 0, size).to(tl.int64), mask=real)


@triton.jit
def segment_keys(sample, number, item, noise, start, at, n):
    """Keys that draw which items begin segments; the place of an item among those of its kind, and the kind."""
    there = at < n
    within = tl.load(item + at, mask=there, other=0)
    count = tl.load(noise + at, mask=there, other=0)
    is_noise = within < count
    index = tl.where(is_noise, within, within - count)
    bits = fold(fold(start, tl.load(sample + at, mask=there, other=0)), within)
    group = 2 * tl.load(number + at, mask=there, other=0) + (is_noise == 0).to(tl.int64)
    lot = tl.where(index == 0, LOT, (bits >> 24) & LOT)
    return tl.where(there, (group << 40) | lot, LAST), index, is_noise


@triton.jit(do_not_specialize=["tag"])
def alternate_kernel(
    sample,
    number,
    item,
    noise,
    spans,
    step,
    out,
    first_out,
    tag,
    n,
    BLOCK: tl.constexpr,
    OTHERS: tl.constexpr,
):
    """Noise and text of a row's documents in segments that alternate. One program for a row."""
    row = tl.program_id(0).to(tl.int64)
    sample, number, item, noise = sample + row * n, number + row * n, item + row * n, noise + row * n
    here = tl.arange(0, BLOCK)
    real = here < n
    start = begin(step, tag)
    mine, index, is_noise = segment_keys(sample, number, item, noise, start, here, n)
    rank = tl.zeros([BLOCK], tl.int32)
    for first in range(0, n, OTHERS):
        at = first + tl.arange(0, OTHERS)
        key, _, _ = segment_keys(sample, number, item, noise, start, at, n)
        rank += lower(key, at, mine, here)
    among = rank - here + index  # ranks of a kind begin where its items do
    begins = (index == 0) | (among < tl.load(spans + row * n + here, mask=real, other=0) - 1)
    count = tl.cumsum((begins & real).to(tl.int32), 0)
    segment = count - tl.associative_scan(tl.where(index == 0, count, 0), 0, larger)
    # documents in their order, segments in theirs, text before noise, items in theirs; the last bits tell its kind
    document = tl.load(number + here, mask=real, other=0)
    key = ((document * BLOCK + segment) * 2 + is_noise.to(tl.int64)) * BLOCK + here
    key = tl.where(real, key * 4 + is_noise.to(tl.int64) * 2 + begins.to(tl.int64), LAST)
    key = tl.sort(key)
    is_noise = (key & 2) != 0
    tl.store(out + row * n + here, is_noise, mask=real)
    tl.store(first_out + row * n + here, is_noise & ((key & 1) != 0), mask=real)


@triton.jit
def write_kernel(
    flags,
    ids,
    sample,
    number,
    item,
    new,
    keys,
    place,
    numbers,
    used,
    size,
    writes,
    room,
    longest,
    pad,
    PACKED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The new row, and what fills it up; `size` flags in order of writing. One program for a row."""
    row = tl.program_id(0).to(tl.int64)
    lane = tl.arange(0, BLOCK)
    flags, ids = flags + row * size, ids + row * size
    sites, out = row * (size // writes), row * room
    count, opened = 0, 0  # ids written so far; where the document of the last begins in the new row
    for start in range(0, size, BLOCK):
        at = start + lane
        real = at < size
        site = sites + at // writes
        flag = (tl.load(flags + at, mask=real, other=0) != 0).to(tl.int32)
        slot = count + tl.cumsum(flag, 0) - flag
        opening = real & (at % writes == 0) & (tl.load(item + site, mask=real, other=1) == 0)
        opens = tl.maximum(tl.associative_scan(tl.where(opening, slot, 0), 0, larger), opened)
        put = (flag != 0) & (slot < room)
        tl.store(new + out + slot, tl.load(ids + at, mask=real, other=0), mask=put)
        tl.store(keys + out + slot, tl.load(sample + site, mask=real, other=0), mask=put)
        tl.store(numbers + out + slot, tl.load(number + site, mask=real, other=0), mask=put)
        if PACKED:
            tl.store(place + out + slot, ((slot - opens) % longest).to(tl.int64), mask=put)
        else:
            tl.store(place + out + slot, slot.to(tl.int64), mask=put)
        count += tl.sum(flag, 0)
        opened = tl.max(opens, 0)
    tl.store(used + row, count)
    for start in range(0, room, BLOCK):
        at = start + lane
        rest = (at < room) & (at >= count)
        tl.store(new + out + at, tl.full([BLOCK], pad, tl.int64), mask=rest)
        tl.store(keys + out + at, tl.full([BLOCK], 0, tl.int64), mask=rest)
        tl.store(numbers + out + at, tl.full([BLOCK], -1, tl.int64), mask=rest)
        if PACKED:
            tl.store(place + out + at, ((at - count) % longest).to(tl.int64), mask=rest)
        else:
            tl.store(place + out + at, at.to(tl.int64), mask=rest)


WRITE = 256  # tile


def options(n: int) -> tuple[int, int]:
    """Tile and warps of a program that holds a row of `n` sites: 64 sites a warp."""
    block = max(16, triton.next_power_of_2(n))
    return block, min(max(block // 64, 1), 16)


def others(block: int) -> int:
    """Sites that a whole row is compared with at a time, so that no register spills."""
    return 8 if block <= 1024 else 4


def jobs(arch: int) -> list[Job]:
    """Every kernel as `spans` launches it, the same for all architectures."""
    found = []

    def job(name: str, kernel: Any, signature: dict[str, str], constants: dict[str, Any], warps: int = 4) -> None:
        options = {"num_warps": warps}
        found.append(Job(name=name, kernel=kernel, signature=signature, constants=constants, options=options))

    def words(*names: str) -> dict[str, str]:
        return dict.fromkeys(names, "*i64")

    def numbers(*names: str) -> dict[str, str]:
        return dict.fromkeys(names, "i32")

    hide = words("sample", "place", "step") | dict.fromkeys(("real", "free", "out"), "*i1")
    hide |= {"count_tag": "i64", "start_tag": "i64"} | numbers("n", "part", "length")
    documents = words("doc", "number", "item", "length") | numbers("n", "shortest")
    alternate = words("sample", "number", "item", "noise", "spans", "step") | {"tag": "i64", "n": "i32"}
    alternate |= {"out": "*i1", "first_out": "*i1"}
    for n in (256, 512, 1024, 2048):
        block, warps = options(n)
        ranked = {"BLOCK": block, "OTHERS": others(block)}
        job(f"hide {n}", hide_kernel, hide, ranked, warps)
        job(f"documents {n}", documents_kernel, documents, {"BLOCK": block}, warps)
        job(f"alternate {n}", alternate_kernel, alternate, ranked, warps)
    write = words("ids", "sample", "number", "item", "new", "keys", "place", "numbers", "used") | {"flags": "*i1"}
    write |= numbers("size", "writes", "room", "longest", "pad")
    for packed in (False, True):
        job(f"write packed={packed}", write_kernel, write, {"PACKED": packed, "BLOCK": WRITE})
    return found
