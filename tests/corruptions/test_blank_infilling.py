"""Blank infilling: rows are taken apart again, one after the other, and must give the text back."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import pytest
import torch

from encdec_train.corruptions.blank_infilling import BlankInfilling, BlankInfillingConfig
from encdec_train.data.example import Example, collate
from encdec_train.nn.attention import allow
from encdec_train.rng import Rng
from encdec_train.step import Parts, Step
from encdec_train.types import Mismatch, Path, Plan, Spec, Units, Vocabulary

WORDS = Vocabulary(size=2000, pad=0, bos=2, eos=3, mask=4, specials=5)
VIEW = Spec(kind="ids", width=WORDS.size, vocabulary=WORDS)
LENGTHS = [40, 7, 25, 3, 33, 12, 40]


def text(key: int, length: int) -> list[int]:
    return [5 + (key * 131 + i) % 1900 for i in range(length)]


def rows(lengths: list[int], first: int = 0) -> Units:
    found = [
        {"text": Example(values=torch.tensor(text(first + i, n)), sample=first + i)} for i, n in enumerate(lengths)
    ]
    return collate(found)["text"]


def plan(units: Units, step: int = 0, **config) -> Plan:
    part = BlankInfilling(BlankInfillingConfig(**config), VIEW)
    path = Path(view="text", corruption="main")
    return part(units, units.sites, Step({"text": units}, Parts({}), Rng(0, step)), path)


Row = tuple[list[int], list[int], list[int], list[list[int]]]


def parts(made: Plan) -> list[Row]:
    """Part A, part B, the targets of part B, and the coordinates of both, by row."""
    found, most = [], len(made.where) // made.sites.rows
    room = made.sites.n
    for b in range(made.sites.rows):
        here = slice(b * most, (b + 1) * most)
        where = made.where[here][made.weight[here] > 0]
        real = made.sites.valid[b]
        text = int(made.attend.prefix[b])
        total = int(real.sum())
        assert torch.equal(where, b * room + torch.arange(text, total))  # all of B and nothing else
        ids, targets = made.inputs.values[b], made.targets.values[b]
        coords = made.sites.coords[b].long().tolist()
        assert torch.equal(made.sites.place[b], torch.arange(room))
        assert (ids[total:] == WORDS.pad).all()
        found.append((ids[:text].tolist(), ids[text:total].tolist(), targets[text:total].tolist(), coords[:total]))
    return found


def spans_of(row: Row) -> list[tuple[int, list[int]]]:
    """(place of the mask, tokens) of each span, in the order of part B; checked against inputs and coordinates."""
    a, b, targets, coords = row
    assert coords[: len(a)] == [[i, 0] for i in range(len(a))]
    found, at = [], 0
    while at < len(b):
        assert b[at] == WORDS.bos
        end = targets.index(WORDS.eos, at)
        tokens = targets[at:end]
        assert b[at + 1 : end + 1] == tokens and tokens
        mask = coords[len(a) + at][0]
        assert a[mask] == WORDS.mask
        assert coords[len(a) + at : len(a) + end + 1] == [[mask, 1 + i] for i in range(len(tokens) + 1)]
        found.append((mask, tokens))
        at = end + 1
    assert len(found) == a.count(WORDS.mask)
    return found


def whole(row: Row) -> list[int]:
    spans = dict(spans_of(row))
    return [token for i, part in enumerate(row[0]) for token in (spans[i] if part == WORDS.mask else [part])]


@pytest.mark.parametrize("ratio", [0.15, 0.5])
def test_nothing_is_lost(ratio: float) -> None:
    for step in range(10):
        made = parts(plan(rows(LENGTHS), step, ratio=ratio))
        for key, (row, n) in enumerate(zip(made, LENGTHS, strict=True)):
            assert whole(row) == text(key, n)
            assert sum(len(tokens) for _, tokens in spans_of(row)) <= round(n * ratio)
            assert not any(x == y == WORDS.mask for x, y in zip(row[0], row[0][1:], strict=False))


def test_counts_and_lengths() -> None:
    """Exactly a share of the tokens, in spans whose lengths are Poisson above zero."""
    count, n, mean = 400, 200, 3.0
    found = [spans_of(row) for row in parts(plan(rows([n] * count), ratio=0.15))]
    assert all(sum(len(tokens) for _, tokens in row) == 30 for row in found)
    lengths = Counter(len(tokens) for row in found for _, tokens in row)
    total = lengths.total()
    assert total / count == pytest.approx(30 / (mean / (1 - math.exp(-mean))), rel=0.07)  # the last one is cut
    for k in range(1, 9):
        chance = math.exp(-mean) * mean**k / math.factorial(k) / (1 - math.exp(-mean))
        assert lengths[k] / total == pytest.approx(chance, abs=0.03)


def test_spans_are_shuffled() -> None:
    found = [[mask for mask, _ in spans_of(row)] for row in parts(plan(rows([60] * 3000), ratio=0.15))]
    pairs = [row for row in found if len(row) == 2]
    assert len(pairs) > 200
    assert sum(a > b for a, b in pairs) / len(pairs) == pytest.approx(0.5, abs=2.5 / math.sqrt(len(pairs)))


def test_who_reads_whom() -> None:
    made = plan(rows([40]))
    text, total = int(made.attend.prefix[0]), int(made.sites.valid.sum())
    seen = allow(made.attend, made.sites, made.sites, own=True)[0, :total, :total]
    expected = torch.zeros(total, total, dtype=torch.bool)
    expected[:, :text] = True
    expected[text:, text:] = torch.ones(total - text, total - text, dtype=torch.bool).tril()
    assert torch.equal(seen, expected)


def test_a_row_is_the_same_alone_and_in_a_batch() -> None:
    together = parts(plan(rows(LENGTHS)))
    assert together == [parts(plan(rows([n], first=i)))[0] for i, n in enumerate(LENGTHS)]
    assert together != parts(plan(rows(LENGTHS), step=1))


def test_rows_have_room() -> None:
    config = BlankInfillingConfig()
    made = plan(rows([64] * 50))
    room, most = config.room(64)
    assert made.inputs.values.shape == (50, room) and made.where.shape == (50 * most,)
    assert int(made.sites.coords.max()) < 64


@pytest.mark.parametrize(
    "config,view,words",
    [
        ({"ratio": 1.0}, VIEW, "ratio"),
        ({"mean_length": 0.0}, VIEW, "mean_length"),
        ({}, replace(VIEW, vocabulary=Vocabulary(size=9, bos=1, eos=2)), "lacks a mask"),
        ({}, Spec(kind="values", width=3), "values"),
    ],
)
def test_what_does_not_fit_is_refused(config: dict, view: Spec, words: str) -> None:
    with pytest.raises(Mismatch, match=words):
        BlankInfillingConfig(**config).spec(view)
