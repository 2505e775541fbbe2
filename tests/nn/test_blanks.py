"""Blanks: the distribution of lengths, and the arithmetic of places."""

from __future__ import annotations

import math

import pytest
import torch

from encdec_train.nn.blanks import capacity, draw_blanks, noise_of, offsets, poisson
from encdec_train.rng import Rng


@pytest.mark.parametrize("least", [0, 1])
def test_poisson_inverts_its_distribution(least: int) -> None:
    mean, steps = 3.0, 200_000
    u = (torch.arange(steps, dtype=torch.float64) + 0.5) / steps
    times = torch.bincount(poisson(u, mean, least), minlength=12) / steps
    whole = 1 - sum(math.exp(-mean) * mean**k / math.factorial(k) for k in range(least))
    for k in range(12):
        chance = math.exp(-mean) * mean**k / math.factorial(k) / whole if k >= least else 0.0
        assert float(times[k]) == pytest.approx(chance, abs=2 / steps)


@pytest.mark.parametrize("least,share", [(0, 0.3), (1, 0.15), (1, 0.5), (0, 0.9), (0, 1.0)])
def test_spans_are_apart_and_within_the_text(least: int, share: float) -> None:
    n, rows = 24, 400
    length = (torch.arange(rows) % (n + 1))[:, None]
    drawn = draw_blanks(length, n, Rng(1), "t", torch.arange(rows)[:, None], share=share, mean=3.0, least=least)
    assert drawn.length.shape == (rows, capacity(n, share, 3.0))
    for row in range(rows):
        gaps = [g for g in range(n + 1) if drawn.span[row, g] >= 0]
        assert sorted(drawn.span[row, gaps].tolist()) == list(range(len(gaps)))  # numbered without holes
        covered: set[int] = set()
        for g in gaps:
            start, size = int(drawn.start[row, g]), int(drawn.length[row, drawn.span[row, g]])
            assert size >= least and start + size <= int(length[row])
            assert drawn.begins[row, start]
            assert start - 1 not in covered  # a token stands between
            covered |= set(range(start, start + size))
        assert covered == set(torch.nonzero(drawn.covered[row]).flatten().tolist())
        assert len(covered) <= int(noise_of(length[row], share)) and int(drawn.begins[row].sum()) == len(gaps)
        if least == 0:
            assert len(gaps) <= len(covered)


def test_nothing_is_drawn_from_an_empty_text() -> None:
    drawn = draw_blanks(
        torch.zeros(3, 1).long(), 8, Rng(0), "t", torch.arange(3)[:, None], share=0.5, mean=3.0, least=0
    )
    assert not drawn.covered.any() and (drawn.span < 0).all()


def test_offsets() -> None:
    assert offsets(torch.tensor([[2, 0, 3]])).tolist() == [[0, 2, 2]]
