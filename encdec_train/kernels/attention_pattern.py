"""What attention is told besides queries, keys and values: a bias by relative place, who reads whom, and dropout."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from encdec_train import rng

ROLES = 3  # entries of tokens before a lattice


@dataclass(frozen=True, eq=False, kw_only=True)
class Bias:
    """What is added to the scores of a head, by where the key stands relative to the query."""

    diagonals: Tensor  # (H,T) float32; entry `origin` is that of a site and itself, the next that of the key behind it
    origin: int
    wide: int = 0  # columns of a lattice whose rows are 2 * wide - 1 entries apart; 0 = sites on a line
    lead: int = 0  # tokens before a lattice, which stand nowhere on it: the last three entries are theirs, those of a
    # token that reads a site, of a site that reads a token, and of tokens among themselves

    @property
    def entries(self) -> int:
        """How many are by offset."""
        return self.diagonals.shape[1] - (ROLES if self.lead else 0)

    @property
    def sites(self) -> int:
        """How many sites there are entries for, tokens before a lattice among them."""
        if not self.wide:
            return self.origin + 1
        return (self.origin // (2 * self.wide - 1) + 1) * self.wide + self.lead

    def reaches(self, queries: int, keys: int) -> bool:
        """Whether there is an entry for every pair."""
        wide = self.wide or max(queries, keys, 1)
        first, last = (max(n - self.lead - 1, 0) for n in (queries, keys))
        first, last = (n + n // wide * (wide - 1) for n in (first, last))
        return first <= self.origin and last < self.entries - self.origin

    def dense(self, queries: int, keys: int) -> Tensor:
        """(H,queries,keys)."""
        if not self.wide and not torch.compiler.is_exporting():  # a window has one length in an exported graph
            first = self.origin - queries + 1
            windows = self.diagonals[:, first : first + queries + keys - 1].unfold(1, keys, 1)
            return windows.flip(1)
        longest = max(queries, keys)
        code = codes(longest, self.wide or longest, self.lead, self.diagonals.device)
        index = code[None, :keys] - code[:queries, None] + self.origin
        if self.lead:
            index[: self.lead] = self.entries
            index[:, : self.lead] = self.entries + 1
            index[: self.lead, : self.lead] = self.entries + 2
        return self.diagonals.index_select(1, index.flatten()).unflatten(1, index.shape)


def codes(n: int, wide: int, lead: int, device: torch.device) -> Tensor:
    """(n,) int64: equal offsets on a lattice are equal differences of these; tokens before it share its first."""
    site = (torch.arange(n, device=device) - lead).clamp_min(0)
    return site + site // wide * (wide - 1)


@dataclass(frozen=True, eq=False, kw_only=True)
class Reads:
    """Who reads whom. None is no limit; a query that reads nothing gets zeros."""

    first: Tensor | None = None  # (1 or B, 1 or Nq) int32: the first key that a query reads
    stop: Tensor | None = None  # of the same shape: the key behind the last one
    query_label: Tensor | None = None  # (B,Nq) int32, read with `key_label`
    key_label: Tensor | None = None  # (B,Nk) int32: that of the query, or where queries have none, not 0


def interval(
    queries: int,
    keys: int,
    device: torch.device,
    *,
    causal: bool = False,
    window: int = 0,
    prefix: Tensor | None = None,
    lengths: Tensor | None = None,
    query_bounds: Tensor | None = None,
    key_bounds: Tensor | None = None,
    rows: int = 1,
) -> tuple[Tensor, Tensor]:
    """The keys that queries read, as `Reads.first` and `Reads.stop`, of shape (1 or B, Nq).

    Args:
        queries: Nq.
        keys: Nk.
        device: of the result.
        causal: a query reads up to its own place.
        window: it reads this many places to either side at most; 0 = no limit.
        prefix: (B,) with causal: the first n places are read by all.
        lengths: (B,) how many keys there are.
        query_bounds: (S+1,) bounds of packed documents over the flat B*Nq queries.
        key_bounds: (S+1,) those over the flat B*Nk keys.
        rows: B, where documents are packed.
    """
    place = torch.arange(queries, device=device)[None]
    first, stop = torch.zeros_like(place), torch.full_like(place, keys)
    if query_bounds is not None and key_bounds is not None:
        flat = torch.arange(rows * queries, device=device, dtype=query_bounds.dtype)
        doc = torch.searchsorted(query_bounds, flat, right=True) - 1
        base = flat // queries * keys
        place = (flat - query_bounds[doc]).view(rows, queries)
        first, stop = ((key_bounds[doc + end] - base).view(rows, queries) for end in (0, 1))
    begin = first
    if causal:
        past = place + 1 if prefix is None else torch.maximum(place + 1, prefix[:, None])
        stop = torch.minimum(stop, begin + past)
    if window:
        first = torch.maximum(first, begin + place - window)
        stop = torch.minimum(stop, begin + place + window + 1)
    if lengths is not None:
        stop = torch.minimum(stop, begin + lengths[:, None])
    first, stop = torch.broadcast_tensors(first, stop)
    return first.int(), stop.int()


@dataclass(frozen=True, eq=False, kw_only=True)
class Dropout:
    """Weights that are left out, and the others made larger; the same ones whenever the seed is the same."""

    rate: float
    seed: Tensor  # (1,) int64

    def kept(self, shape: torch.Size) -> Tensor:
        """(B,H,Nq,Nk) bool: a weight's 24 bits are those of splitmix64 for its place among all."""
        counter = torch.arange(shape.numel(), device=self.seed.device).view(shape)
        bits = (rng.mix(self.seed + counter * rng.GAMMA) >> 40) & 0xFFFFFF
        return bits.float() >= torch.tensor(self.rate, dtype=torch.float32) * 2**24
