"""Documents of many lengths into rows of one length, without an attention mask's worth of waste.

Krell et al. 2021 (arXiv:2107.02027) compare heuristics for this; best fit over a shuffled order
fills the rows nearly whole and keeps their composition random.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from encdec_train.rng import Rng


def shuffled(count: int, seed: int) -> np.ndarray:
    """(count,) int64: a permutation that depends on nothing but `seed` and `count`."""
    return Rng(seed).order("pack", torch.arange(count)).numpy()


def pack(lengths: Sequence[int] | np.ndarray, size: int, order: Sequence[int] | np.ndarray) -> list[list[int]]:
    """Best fit: each document, in `order`, goes into the fullest row that still holds it.

    The open rows are kept by their free space, and the spaces that occur as the bits of one integer, so that the
    smallest space that is large enough is found without a search.

    Args:
        lengths: of the documents, each between 1 and `size`.
        size: of a row.
        order: in which the documents are taken.

    Returns:
        The documents of each row, in the order in which they were put there.

    Raises:
        ValueError: a document is empty or longer than a row.
    """
    rows: list[list[int]] = []
    free: list[list[int]] = [[] for _ in range(size + 1)]  # free space -> rows
    spaces = 0
    known = [int(length) for length in lengths]
    for document in (int(i) for i in order):
        length = known[document]
        if not 0 < length <= size:
            raise ValueError(f"document {document} has {length} tokens, a row holds 1 to {size}")
        fitting = spaces >> length
        if fitting:
            space = length + (fitting & -fitting).bit_length() - 1
            row = free[space].pop()
            if not free[space]:
                spaces ^= 1 << space
        else:
            space, row = size, len(rows)
            rows.append([])
        rows[row].append(document)
        if space > length:
            free[space - length].append(row)
            spaces |= 1 << (space - length)
    return rows
