"""From scores of the next id to sequences: greedy, by beam, by sampling; each for a batch of rows.

Nothing here knows a model: whatever goes on with rows of ids and scores what may follow is searched.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from encdec_train.rng import Rng
from encdec_train.types import Mismatch


class Rows(Protocol):
    """Rows of ids, of which the search sees only what comes next."""

    def scores(self) -> Tensor:
        """(R,V) logits of the next id of every row."""

    def append(self, ids: Tensor) -> None:
        """Go on with the ids (R,)."""

    def reorder(self, rows: Tensor) -> None:
        """Row i becomes what row `rows[i]` was; there may be more or fewer rows than before."""


@dataclass(kw_only=True)
class SearchConfig:
    beam: int = 1  # sequences that are followed for each row; 1: greedy
    length_penalty: float = 1.0  # with a beam: log-likelihoods are divided by length ** length_penalty
    early: bool = False  # with a beam: end when as many sequences have ended, not when none can become the best
    sample: bool = False  # draw each id
    temperature: float = 1.0  # of the draw
    top_k: int = 0  # draw from the likeliest so many; 0: from all
    top_p: float = 1.0  # draw from the fewest that hold so much of the probability (Holtzman et al. 2020)
    length: int | None = None  # most ids that are written; none: as many as a row of the view has

    def check(self, where: str) -> None:
        if self.beam < 1:
            raise Mismatch(f"{where}.beam: {self.beam} is below 1")
        if self.sample and self.beam > 1:
            raise Mismatch(f"{where}: a beam of {self.beam} and sample exclude each other")
        if self.temperature <= 0:
            raise Mismatch(f"{where}.temperature: {self.temperature} is not above 0")
        if self.top_k < 0:
            raise Mismatch(f"{where}.top_k: {self.top_k} is below 0")
        if not 0 < self.top_p <= 1:
            raise Mismatch(f"{where}.top_p: {self.top_p} is not in (0, 1]")
        if self.length is not None and self.length < 1:
            raise Mismatch(f"{where}.length: {self.length} is below 1")

    @property
    def protocol(self) -> str:
        """In words, with its numbers."""
        if self.sample:
            kept = f", top {self.top_k}" if self.top_k else ""
            mass = f", top-p {self.top_p}" if self.top_p < 1 else ""
            return f"sampled at temperature {self.temperature}{kept}{mass}"
        if self.beam == 1:
            return "greedy"
        return f"beam {self.beam}, length penalty {self.length_penalty}{', early' if self.early else ''}"


def search(rows: Rows, config: SearchConfig, *, end: int, length: int, rng: Rng, key: Tensor) -> list[list[int]]:
    """The ids that follow each row, without the end.

    Args:
        rows: what goes on.
        config: how.
        end: id that ends a sequence; -1 = none does.
        length: most ids that are written, the end among them.
        rng: of samples.
        key: (R,) int64 random key of each row: its samples do not depend on the others.
    """
    if config.beam > 1:
        ids = beam(rows, config, end=end, length=length)
    else:
        ids = follow(rows, _sampler(config, rng, key) if config.sample else _likeliest, end=end, length=length)
    return [_until(row, end) for row in ids.tolist()]


def _until(ids: list[int], end: int) -> list[int]:
    return ids[: ids.index(end)] if end in ids else ids


def follow(rows: Rows, choose: Callable[[Tensor, int], Tensor], *, end: int, length: int) -> Tensor:
    """(R,T) ids, one after the other, until every row has ended; what stands behind an end is no matter."""
    ids = choose(rows.scores().float(), 0)[:, None]
    for place in range(1, length):
        if bool((ids == end).any(1).all()):
            break
        rows.append(ids[:, -1])
        ids = torch.cat([ids, choose(rows.scores().float(), place)[:, None]], 1)
    return ids


def _likeliest(scores: Tensor, place: int) -> Tensor:
    return scores.argmax(-1)


def _sampler(config: SearchConfig, rng: Rng, key: Tensor) -> Callable[[Tensor, int], Tensor]:
    """Draws by the largest of scores with Gumbel noise (Gumbel 1954), keyed by row, place and id."""

    def choose(scores: Tensor, place: int) -> Tensor:
        kept = narrowed(scores / config.temperature, config.top_k, config.top_p)
        ids = torch.arange(scores.shape[-1], device=scores.device)
        return (kept + rng.gumbel("generate", key[:, None], place, ids)).argmax(-1)

    return choose


def narrowed(scores: Tensor, top_k: int, top_p: float) -> Tensor:
    """Logits (R,V), -inf where an id is out of reach: beyond the `top_k` likeliest, or the fewest that hold `top_p`."""
    if 0 < top_k < scores.shape[-1]:
        least = scores.topk(top_k).values[:, -1:]
        scores = scores.masked_fill(scores < least, -torch.inf)
    if top_p < 1:
        ordered, order = scores.sort(descending=True, stable=True)
        share = ordered.softmax(-1)
        beyond = share.cumsum(-1) - share >= top_p  # what is likelier holds that much already
        scores = scores.masked_fill(torch.zeros_like(beyond).scatter(1, order, beyond), -torch.inf)
    return scores


def beam(rows: Rows, config: SearchConfig, *, end: int, length: int) -> Tensor:
    """(R,length) ids of the best sequence of each row, filled with the end.

    The `beam` likeliest unfinished sequences of a row are followed (Graves 2012; Sutskever et al. 2014). A finished
    sequence of n ids, its end among them, is worth log p / n ** length_penalty: as in transformers, and as in Wu et al.
    2016 (arXiv:1609.08144), equation 14, but for its constants. Those that are as long as allowed count as finished.
    """
    scores, k = rows.scores().float().log_softmax(-1), config.beam
    count, size = scores.shape
    first = torch.arange(count, device=scores.device)[:, None]
    rows.reorder(first.expand(-1, k).flatten())
    scores = scores[:, None].expand(-1, k, -1)
    sums = scores.new_full((count, k), -math.inf)  # of the unfinished; at the beginning there is one
    sums[:, 0] = 0
    ids = torch.full((count, k, length), max(end, 0), device=scores.device)
    done, best = ids.clone(), torch.full_like(sums, -math.inf)  # the finished, and what they are worth
    for n in range(1, length + 1):
        wide = min(2 * k, k * size)  # so many that k of them do not end
        found, at = (sums[..., None] + scores).flatten(1).topk(wide)
        parent, chosen = at // size, at % size
        trial = ids.gather(1, parent[..., None].expand(-1, -1, length)).clone()
        trial[..., n - 1] = chosen
        ends = (chosen == end) | (n == length)
        worth = (found / n**config.length_penalty).masked_fill(~ends, -math.inf)
        worth[:, k:] = -math.inf  # an end must be among the k best to count
        if config.early:
            worth = worth.masked_fill((best > -math.inf).all(1, keepdim=True), -math.inf)
        best, order = torch.cat([best, worth], 1).topk(k)
        done = torch.cat([done, trial], 1).gather(1, order[..., None].expand(-1, -1, length))
        sums, order = found.masked_fill(ends, -math.inf).topk(k)
        if n == length or not bool(_open(sums, best, config, n, length).any()):
            break
        ids = trial.gather(1, order[..., None].expand(-1, -1, length))
        rows.reorder((first * k + parent.gather(1, order)).flatten())
        rows.append(ids[..., n - 1].flatten())
        scores = rows.scores().float().log_softmax(-1).unflatten(0, (count, k))
    return done[:, 0]


def _open(sums: Tensor, best: Tensor, config: SearchConfig, n: int, length: int) -> Tensor:
    """(R,) bool: rows of which an unfinished sequence may still become the best.

    Logarithms only fall, so a sequence is worth most at the length that divides it by most, if ever longer ones are
    divided by more, or else the next one.
    """
    if config.early:
        return ~(best > -math.inf).all(1)
    longest = length if config.length_penalty > 0 else n + 1
    return sums[:, 0] / longest**config.length_penalty > best[:, 0]
