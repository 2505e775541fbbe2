"""Searches over a table of chances, against all sequences there are."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import Tensor

from encdec_train.decoding.search import SearchConfig, narrowed, search
from encdec_train.rng import Rng
from encdec_train.types import Mismatch

END = 3
SIZE = 4


class Table:
    """The chances of the next id depend on the two before it, and on the row."""

    def __init__(self, count: int, seed: int = 0) -> None:
        self.table = torch.randn(count, SIZE, SIZE, SIZE, generator=torch.Generator().manual_seed(seed)) * 1.5
        self.row, self.last, self.before = (
            torch.arange(count),
            torch.zeros(count, dtype=int),
            torch.zeros(count, dtype=int),
        )

    def scores(self) -> Tensor:
        return self.table[self.row, self.before, self.last]

    def append(self, ids: Tensor) -> None:
        self.before, self.last = self.last, ids

    def reorder(self, rows: Tensor) -> None:
        self.row, self.last, self.before = self.row[rows], self.last[rows], self.before[rows]

    def logarithm(self, row: int, ids: list[int]) -> float:
        before = last = 0
        total = 0.0
        for one in ids:
            total += float(self.table[row, before, last].log_softmax(-1)[one])
            before, last = last, one
        return total


def run(table: Table, config: SearchConfig, length: int, *, seed: int = 0) -> list[list[int]]:
    key = torch.arange(len(table.row)) + 100
    return search(table, config, end=END, length=length, rng=Rng(seed, 0), key=key)


def whole(ids: list[int], length: int) -> list[int]:
    """With its end, if it has one."""
    return ids if len(ids) == length else [*ids, END]


@pytest.mark.parametrize("penalty", [0.0, 0.6, 1.0, 2.0])
def test_a_wide_beam_finds_the_best_of_all(penalty: float) -> None:
    length, table = 5, Table(6)
    every = [
        list(ids)
        for n in range(1, length + 1)
        for ids in product(range(SIZE), repeat=n)
        if END not in ids[:-1] and (ids[-1] == END or n == length)
    ]
    best = [max(every, key=lambda ids: table.logarithm(row, ids) / len(ids) ** penalty) for row in range(6)]
    config = SearchConfig(beam=SIZE**length, length_penalty=penalty)
    assert [whole(ids, length) for ids in run(Table(6), config, length)] == best
    assert penalty in (0.0, 2.0) or len({len(ids) for ids in best}) > 1  # those like the shortest, and the longest


def test_greedy_takes_the_likeliest() -> None:
    table = Table(5)
    for row, ids in enumerate(run(Table(5), SearchConfig(), 8)):
        before = last = 0
        for one in whole(ids, 8):
            assert one == int(table.table[row, before, last].argmax())
            before, last = last, one


def test_a_row_alone_and_among_others() -> None:
    for config in (SearchConfig(), SearchConfig(beam=3), SearchConfig(beam=3, early=True)):
        together = run(Table(6), config, 7)
        for row in range(6):
            alone = Table(6)
            alone.reorder(torch.tensor([row]))
            assert search(alone, config, end=END, length=7, rng=Rng(0, 0), key=torch.zeros(1, dtype=int)) == [
                together[row]
            ]


def test_samples_are_keyed_and_follow_the_chances() -> None:
    config = SearchConfig(sample=True, temperature=0.7)
    count = 20_000
    table = Table(1)
    table.reorder(torch.zeros(count, dtype=int))
    drawn = search(table, config, end=-1, length=1, rng=Rng(0, 0), key=torch.arange(count))
    share = torch.bincount(torch.tensor(drawn)[:, 0], minlength=SIZE) / count
    expected = (Table(1).table[0, 0, 0] / 0.7).softmax(-1)
    torch.testing.assert_close(share, expected, atol=0.015, rtol=0)
    together = run(Table(6), config, 9, seed=4)
    assert together == run(Table(6), config, 9, seed=4) != run(Table(6), config, 9, seed=5)
    alone = Table(6)
    alone.reorder(torch.tensor([4]))
    assert search(alone, config, end=END, length=9, rng=Rng(4, 0), key=torch.tensor([104])) == [together[4]]


def test_what_is_out_of_reach() -> None:
    """Against transformers' own."""
    warpers = pytest.importorskip("transformers").generation.logits_process
    scores = torch.randn(5, 50, generator=torch.Generator().manual_seed(0))
    assert torch.equal(narrowed(scores, 7, 1.0), warpers.TopKLogitsWarper(7)(None, scores))
    for mass in (0.2, 0.5, 0.9):
        assert torch.equal(narrowed(scores, 0, mass), warpers.TopPLogitsWarper(mass)(None, scores))


@pytest.mark.parametrize(
    "values,words",
    [
        ({"beam": 0}, "beam: 0 is below 1"),
        ({"beam": 2, "sample": True}, "exclude each other"),
        ({"temperature": 0.0}, "temperature: 0.0 is not above 0"),
        ({"top_k": -1}, "top_k: -1 is below 0"),
        ({"top_p": 0.0}, "top_p: 0.0 is not in"),
        ({"length": 0}, "length: 0 is below 1"),
    ],
)
def test_what_is_refused(values: dict, words: str) -> None:
    with pytest.raises(Mismatch, match=words):
        SearchConfig(**values).check("probe 'generate'")
