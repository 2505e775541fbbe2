"""Blanks in a text: spans of random lengths, anywhere, never side by side. No size depends on data.

Lengths are drawn one after the other until the noise is used up, the last one cut to fit, as in BART (Lewis et al.
2020, arXiv:1910.13461, section 2.2) and GLM (Du et al. 2022, arXiv:2103.10360, section 2.1). A text with K tokens left
has K + 1 gaps, before, between and after them, and each gap holds one span or none: every choice of gaps is as likely.
"""

from __future__ import annotations

import math
from functools import cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from encdec_train.kernels import masking
from encdec_train.rng import Rng

LONGEST = 64  # of a span; far beyond any mean that is in use


class Blanks(NamedTuple):
    """The spans of rows of one text each. Gap g stands before the g-th token that is left."""

    span: Tensor  # (B,N+1) int64 number of the gap's span, in random order; -1 = the gap is empty
    start: Tensor  # (B,N+1) int64 place in the text where the gap's span begins, or would
    length: Tensor  # (B,C) int64 of each span by its number; 0 where there is none
    covered: Tensor  # (B,N) bool, the site is in a span

    @property
    def gap(self) -> Tensor:
        """(B,N) int64: the gap that a covered site belongs to; of a site that is left, the gap before it."""
        left = (~self.covered).long()
        return left.cumsum(1) - left

    @property
    def begins(self) -> Tensor:
        """(B,N+1) bool: a span begins before this place of the text, be it empty."""
        flags = torch.zeros_like(self.span).scatter_add_(1, self.start, (self.span >= 0).long())
        return flags > 0


def noise_of(length: Tensor, share: float) -> Tensor:
    """int64: a share of each length, rounded half to even."""
    return (length.double() * share).round().long()


def capacity(n: int, share: float, mean: float) -> int:
    """Most spans of a text of `n` tokens: twice as many as are expected, and one more."""
    return math.ceil(2 * round(n * share) / mean) + 1


def draw_blanks(
    length: Tensor, n: int, rng: Rng, tag: str, key: Tensor, *, share: float, mean: float, least: int
) -> Blanks:
    """Spans that take a share of each text.

    Args:
        length: (B,1) int64, tokens of the text, which stands at the sites 0 to `length` - 1.
        n: N, sites of a row.
        rng: of the step.
        tag: names the draw.
        key: (B,1) int64 random key of the text.
        share: of the tokens that are in spans; met exactly, unless the spans run out (`capacity`) or zeros do it.
        mean: of the Poisson distribution that lengths have.
        least: shortest span. 0: a span may hold nothing, yet no more spans than covered tokens; 1: lengths that come
            out as 0 are drawn again.
    """
    noise = noise_of(length, share)
    room = capacity(n, share, mean)
    number = torch.arange(room, device=length.device)
    drawn = poisson(rng.uniform(f"{tag}.length", key, number), mean, least)  # (B,C)
    before = drawn.cumsum(1) - drawn
    used = (before < noise) & (number <= (2 * noise.double() / mean).ceil())  # as `capacity`, of the text's own length
    lengths = torch.where(used, torch.minimum(drawn, noise - before), 0)
    filled = used & (lengths > 0)
    spare = lengths.sum(1, keepdim=True) - filled.sum(1, keepdim=True)  # empty spans that are allowed
    empty = used & (lengths == 0)
    used = filled | (empty & (empty.long().cumsum(1) <= spare))
    order = ((~used).long() + (~filled).long()).argsort(dim=1, stable=True)  # numbers without holes, empty spans last
    lengths = lengths.gather(1, order)
    left = length - lengths.sum(1, keepdim=True)
    count = torch.minimum(used.sum(1, keepdim=True), left + 1)
    lengths = torch.where(number < count, lengths, 0)
    left = length - lengths.sum(1, keepdim=True)
    return _place(lengths, count, left, n, rng.bits(f"{tag}.gap", key, torch.arange(n + 1, device=length.device)))


def _place(lengths: Tensor, count: Tensor, left: Tensor, n: int, bits: Tensor) -> Blanks:
    """Span i goes to the gap whose lot is the i-th lowest."""
    gap = torch.arange(n + 1, device=left.device)
    lot = torch.where(gap <= left, (bits >> 2) & (2**61 - 1), 2**62)
    rank = masking.rank(lot)
    span = torch.where((rank < count) & (gap <= left), rank, -1)
    length = torch.where(span >= 0, lengths.gather(1, span.clamp(0, lengths.shape[1] - 1)), 0)
    start = (gap + length.cumsum(1) - length).clamp_max(n)
    edge = torch.zeros_like(span).scatter_add_(1, start, (length > 0).long())
    edge = edge.scatter_add_(1, (start + length).clamp_max(n), -(length > 0).long())
    return Blanks(span, start, lengths, edge.cumsum(1)[:, :n] > 0)


def poisson(u: Tensor, mean: float, least: int) -> Tensor:
    """int64 Poisson numbers that are at least `least`, by inverting the distribution at uniform numbers."""
    return least + torch.searchsorted(_bounds(mean, least, u.device), u.double().contiguous(), right=True)


@cache
def _bounds(mean: float, least: int, device: torch.device) -> Tensor:
    """(L,) float64: the distribution of `poisson`. Made once: a copy to a GPU waits for it."""
    logs = [k * math.log(mean) - mean - math.lgamma(k + 1) for k in range(least, LONGEST)]
    chance = torch.tensor([math.exp(log) for log in logs], dtype=torch.float64)
    return (chance.cumsum(0) / chance.sum())[:-1].to(device)


def offsets(lengths: Tensor) -> Tensor:
    """(B,C): where each of some pieces begins that stand one after the other."""
    return F.pad(lengths.cumsum(1)[:, :-1], (1, 0))
