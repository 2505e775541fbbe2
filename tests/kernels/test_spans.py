"""Kernels of spans against their twins, bit for bit, and both against what was stored."""

import hashlib

import pytest
import torch

from encdec_train.kernels import spans
from encdec_train.kernels.backend import Backend, using
from encdec_train.rng import Rng
from tests.twins import rng, twice

SIZES = [(1, 1), (3, 17), (2, 63), (4, 65), (2, 130)]


def keys(rows, n):
    return torch.arange(rows)[:, None].expand(rows, n) * 7919, torch.arange(n).expand(rows, n)


@pytest.mark.parametrize(("rows", "n"), SIZES)
@pytest.mark.parametrize(("share", "length"), [(0.065, 10), (0.2, 3), (0.5, 1)])
def test_hide(rows, n, share, length):
    sample, place = keys(rows, n)
    real = place < torch.tensor([n, 0, max(1, n // 2), 1])[:rows, None]  # the second row is empty
    free = real & (place % 7 != 3)
    found = twice(lambda: spans.hide(sample, place, real, free, rng(), "a", share, length))
    assert not (found & ~free).any()
    assert torch.equal(found.any(1), free.any(1))
    for row in range(rows):
        alone = spans.hide(
            sample[row : row + 1], place[:1], real[row : row + 1], free[row : row + 1], rng(), "a", share, length
        )
        assert torch.equal(alone[0], found[row])


def rows_of(rows, n, *, packed):
    """(B,N) documents of 1 to 20 sites, with padding behind; the last of several rows is padding alone."""
    docs = torch.full((rows, n), -1)
    for row in range(rows - (rows > 1)):
        at, number = 0, 0
        while at < n and (packed or not number):
            size = (row * 5 + number * 7 + 3) % 20 + 1 if packed else max(1, n - 4 * row)
            docs[row, at : at + size] = number
            at, number = at + size, number + 1
            if packed and n - at < 9:
                break
    return docs


@pytest.mark.parametrize(("rows", "n"), SIZES)
@pytest.mark.parametrize("packed", [False, True])
def test_documents(rows, n, packed):
    docs = rows_of(rows, n, packed=packed)
    number, item, length = twice(lambda: spans.documents(docs, 4))
    for row in range(rows):
        for value in docs[row].unique():
            these = docs[row] == value
            count = int(these.sum())
            assert item[row, these].tolist() == list(range(count))
            assert set(length[row, these].tolist()) == {count if value >= 0 and count >= 4 else 0}
            assert len(number[row, these].unique()) == 1
    twice(lambda: spans.documents(docs.T.contiguous().T, 1))


def drawn(docs):
    """Documents, and how much of each is noise in how many spans."""
    number, item, length = spans.documents(docs, 2)
    noise = torch.where(length > 0, (length * 3 // 10).clamp_min(1), 0)
    return number, item, length, noise, torch.minimum((noise + 1) // 2, length - noise)


@pytest.mark.parametrize(("rows", "n"), SIZES)
@pytest.mark.parametrize("packed", [False, True])
def test_alternate(rows, n, packed):
    number, item, length, noise, count = drawn(rows_of(rows, n, packed=packed))
    sample = torch.arange(rows)[:, None] * 31 + number
    hidden, first = twice(lambda: spans.alternate(sample, number, item, noise, count, rng(), "a"))
    assert not (first & ~hidden).any() and not hidden[length == 0].any() and not hidden[item == 0].any()
    for row in range(rows):
        for document in number[row].unique():
            these = number[row] == document
            assert hidden[row, these].sum() == noise[row, these][0]
            assert first[row, these].sum() == count[row, these][0]


@pytest.mark.parametrize(("rows", "n"), SIZES)
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("share", [0.3, 1.4])
def test_write(rows, n, packed, share):
    number, item, length, _, _ = drawn(rows_of(rows, n, packed=packed))
    sample, ids = keys(rows, n)[0] + number, torch.arange(rows * n).view(rows, n) + 100
    real, room = length > 0, max(1, int(n * share))
    writes = [(real & (item == 0), ids + 1000), (real & (item % 3 > 0), ids), (real & (item == length - 1), -ids)]
    found = twice(lambda: spans.write(writes, sample, number, item, packed=packed, room=room, longest=7, pad=5))
    new, old, place, numbers, used = found
    for row in range(rows):
        at = [(flag[row, i], values[row, i], i) for i in range(n) for flag, values in writes]
        written = [(int(value), i) for flag, value, i in at if flag]
        assert used[row] == len(written)
        kept = written[:room]
        filled = room - len(kept)
        assert new[row].tolist() == [value for value, _ in kept] + [5] * filled
        assert old[row].tolist() == [int(sample[row, i]) for _, i in kept] + [0] * filled
        assert numbers[row].tolist() == [int(number[row, i]) for _, i in kept] + [-1] * filled
        if not packed:
            assert place[row].tolist() == list(range(room))


def test_rows_longer_than_a_tile():
    number, item, _, _, _ = drawn(torch.zeros(1, 1100, dtype=torch.int64))
    writes = [(item % 2 == 0, item + 5), (item % 2 > 0, item + 5)]
    twice(lambda: spans.write(writes, number, number, item, packed=True, room=1200, longest=9, pad=0))
    twice(lambda: spans.documents(number, 1))


def digest(*tensors):
    return hashlib.sha256(b"".join(x.numpy().tobytes() for x in tensors)).hexdigest()[:16]


GOLDEN = {"hide": "f96dc88bbb747ade", "alternate": "cf96fa03d441c049", "write": "649660412f55ca11"}


@pytest.mark.parametrize("backend", [Backend.reference, Backend.triton])
def test_spans_are_those_that_were_stored(backend):
    sample, place = keys(3, 196)
    docs = rows_of(3, 130, packed=True)
    with using(backend=backend, strict=True):
        number, item, _, noise, count = drawn(docs)
        hidden, first = spans.alternate(number + 3, number, item, noise, count, rng(), "golden")
        written = spans.write(
            [(~hidden, item), (first, number)], number, number, item, packed=True, room=100, longest=20, pad=1
        )
        found = {
            "hide": digest(spans.hide(sample, place, place < 190, place > 0, rng(), "golden", 0.065, 10)),
            "alternate": digest(hidden, first),
            "write": digest(*written),
        }
    assert found == GOLDEN


def test_operations_of_torch():
    sample, place = (x.contiguous() for x in keys(2, 9))
    step, flags, zero = torch.tensor(4), place > 2, torch.zeros(2, 9, dtype=torch.int64)
    ops = torch.ops.encdec_train
    calls = [
        (ops.mask_hide.default, (sample, place, flags, flags, step, [1, 2], 2**20, 3)),
        (ops.mask_documents.default, (zero, 2)),
        (ops.mask_alternate.default, (sample, zero, place, zero + 3, zero + 2, step, 5)),
        (ops.mask_write.default, (flags[..., None], place[..., None], sample, zero, place, True, 6, 9, 0)),
    ]
    for op, arguments in calls:
        torch.library.opcheck(op, arguments)


def test_as_one_graph(kernels):
    number, item, _, noise, count = drawn(rows_of(3, 17, packed=True))

    def run(number, item, noise, count, step):
        hidden, first = spans.alternate(number, number, item, noise, count, Rng(1, step), "a")
        return spans.write(
            [(~hidden, item), (first, number)], number, number, item, packed=True, room=9, longest=20, pad=1
        )

    inputs = number, item, noise, count, torch.tensor(2)
    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    for one, other in zip(compiled(*inputs), run(*inputs), strict=True):
        assert torch.equal(one, other)
