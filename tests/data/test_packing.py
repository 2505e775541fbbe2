"""Packing: every document once, no row too long, nearly full, and always the same."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from encdec_train.data.packing import pack, shuffled


@given(st.lists(st.integers(1, 64), min_size=1, max_size=200), st.integers(0, 5))
def test_every_document_once_and_no_row_too_long(lengths: list[int], seed: int) -> None:
    rows = pack(lengths, 64, shuffled(len(lengths), seed))
    assert sorted(document for row in rows for document in row) == list(range(len(lengths)))
    assert all(sum(lengths[document] for document in row) <= 64 for row in rows)
    free = [64 - sum(lengths[document] for document in row) for row in rows]
    for later, row in enumerate(rows):  # a row is opened only if its first document fits nowhere else
        assert all(free[earlier] < lengths[row[0]] + _later(rows[earlier], lengths) for earlier in range(later))


def _later(row: list[int], lengths: list[int]) -> int:
    """What may have come into a row after another was opened: all but its first document."""
    return sum(lengths[document] for document in row[1:])


def test_fits_best() -> None:
    # 40 opens a row, 50 another; 12 goes into the fuller of the two
    assert pack([40, 50, 12, 24], 64, [0, 1, 2, 3]) == [[0, 3], [1, 2]]


def test_rows_are_nearly_full() -> None:
    lengths = np.exp(np.random.default_rng(0).uniform(np.log(8), np.log(128), 5000)).astype(int)
    rows = pack(lengths, 128, shuffled(len(lengths), 0))
    assert lengths.sum() / (128 * len(rows)) > 0.97


def test_is_a_function_of_seed_and_lengths() -> None:
    lengths = [5, 9, 3, 7] * 20
    first = pack(lengths, 16, shuffled(80, 1))
    assert first == pack(lengths, 16, shuffled(80, 1))
    assert first != pack(lengths, 16, shuffled(80, 2))


@pytest.mark.parametrize("length", [0, 17])
def test_refuses_what_fits_no_row(length: int) -> None:
    with pytest.raises(ValueError, match=f"document 1 has {length} tokens, a row holds 1 to 16"):
        pack([3, length], 16, [0, 1])
