"""BERT's corruption: some tokens are predicted; most of them are hidden, a few replaced, a few left alone.

Devlin et al. 2019 (arXiv:1810.04805), section 3.1, task 1, and appendix A.1. The paper's data code picks a fixed number
of tokens per sequence; here, as in RoBERTa's code, every token is picked by itself, so that a document gets the same
masks alone, packed or padded.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from encdec_train.registry import corruptions
from encdec_train.rng import Rng
from encdec_train.step import Step
from encdec_train.types import Mismatch, Path, Plan, Sites, Spec, Units, Vocabulary


@dataclass(kw_only=True)
class TokenShares:
    """How much is predicted, and what becomes of it."""

    ratio: float = 0.15  # of the open tokens that are predicted
    hide: float = 0.8  # share of the predicted that become the mask token
    random: float = 0.1  # share that become any ordinary token; the rest stays

    def check(self, noun: str, sites: Spec) -> None:
        if not 0 < self.ratio < 1:
            raise Mismatch(f"{noun}.ratio: {self.ratio} is not between 0 and 1")
        if min(self.hide, self.random) < 0 or self.hide + self.random > 1:
            raise Mismatch(f"{noun}: hide={self.hide} and random={self.random} are not shares of one whole")
        raw = sites.raw
        if raw is None or raw.kind != "ids":
            raise Mismatch(f"{noun} needs ids, the view gives {raw.kind if raw else sites.kind}")
        known = raw.vocabulary
        if self.hide and (known is None or known.mask < 0):
            raise Mismatch(f"{noun} needs a mask token, the view's vocabulary has none")


@dataclass(kw_only=True)
class TokenMaskConfig(TokenShares):
    margin: float = 5.0  # room for more predicted tokens than expected, in standard deviations

    def capacity(self, sites: int) -> int:
        """Rows that are predicted in a batch of so many sites; what is unused has weight zero.

        The count is binomial. At 5 standard deviations one batch in three million has more; its last tokens are then
        neither hidden nor predicted.
        """
        spread = math.sqrt(sites * self.ratio * (1 - self.ratio))
        return min(sites, math.ceil(sites * self.ratio + self.margin * spread))

    def spec(self, sites: Spec) -> Spec:
        self.check("corruption 'token_mask'", sites)
        return sites


@corruptions.register("token_mask", TokenMaskConfig)
class TokenMask(nn.Module):
    """Rewrites the ids; `where` has a fixed capacity, so nothing depends on how many were picked."""

    def __init__(self, config: TokenMaskConfig, sites: Spec) -> None:
        super().__init__()
        self.config = config
        assert sites.raw is not None and sites.raw.vocabulary is not None, "spec() comes first"
        self.vocabulary = sites.raw.vocabulary

    def forward(self, units: Units, sites: Sites, step: Step, path: Path) -> Plan:
        tag = f"token_mask.{path.draw}"
        picked = step.rng.uniform(tag, sites.sample, sites.place) < self.config.ratio  # (B,N)
        mask, where, weight = fill(picked & sites.open(), self.config.capacity(picked.numel()))
        hidden = rewritten(units.values, sites, step.rng, tag, self.config, self.vocabulary)
        ids = torch.where(mask, hidden, units.values)
        return Plan(inputs=replace(units, values=ids), sites=sites, mask=mask, where=where, weight=weight)


def rewritten(ids: Tensor, sites: Sites, rng: Rng, tag: str, shares: TokenShares, words: Vocabulary) -> Tensor:
    """(B,N): what each token becomes if it is predicted."""
    kind = rng.uniform(f"{tag}.kind", sites.sample, sites.place)
    other = words.specials + rng.integers(f"{tag}.other", words.size - words.specials, sites.sample, sites.place)
    hidden, replaced = kind < shares.hide, kind < shares.hide + shares.random
    return torch.where(hidden, words.mask, torch.where(replaced, other, ids))


def fill(picked: Tensor, capacity: int) -> tuple[Tensor, Tensor, Tensor]:
    """The first `capacity` picked sites, without an operation whose size depends on their number.

    Args:
        picked: (B,N) bool.
        capacity: M.

    Returns:
        mask (B,N) bool, the picked sites that found room; where (M,) int64 into the flat B*N, zero where unused;
        weight (M,) float, zero where unused.
    """
    flat = picked.flatten()
    rank = flat.cumsum(0) - 1
    kept = flat & (rank < capacity)
    slot = torch.where(kept, rank, capacity)  # one slot too many takes what is not kept
    index = torch.arange(flat.numel(), device=flat.device)
    where = torch.zeros(capacity + 1, dtype=torch.int64, device=flat.device).scatter(0, slot, index)[:-1]
    used = torch.arange(capacity, device=flat.device) < kept.sum()
    return kept.view_as(picked), torch.where(used, where, 0), used.float()
