"""Span masking: spans of a fixed length are replaced by the mask vector; they may overlap.

Baevski et al. 2020, "wav2vec 2.0" (arXiv:2006.11477), section 3.1 and section 4.2: a share p = 0.065 of the
time steps is drawn without replacement as starts, and the M = 10 steps from each start are masked. That
hides about half.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from encdec_train.corruptions.drop import flat
from encdec_train.kernels import masking
from encdec_train.registry import corruptions
from encdec_train.step import Step
from encdec_train.types import Mismatch, Path, Plan, Sites, Spec, Units

_LAST = torch.iinfo(torch.int64).max


@dataclass(kw_only=True)
class SpanMaskConfig:
    start: float = 0.065  # p: share of a row's real sites that start a span
    length: int = 10  # M: sites of a span
    capacity: float | None = None  # share of the sites that is predicted at most; none: all that spans can hide

    replaces = True

    def predicted(self, sites: int) -> int:
        """Rows that one example of `sites` sites adds to `where`.

        Without a capacity this is the bound on what spans hide, so that no masked site is ever left out.
        """
        if self.capacity is not None:
            return min(sites, math.ceil(self.capacity * sites))
        return min(sites, self.length * (int(self.start * sites) + 1))

    def spec(self, sites: Spec) -> Spec:
        if not 0 < self.start < 1:
            raise Mismatch(f"corruption 'span_mask'.start: {self.start} is not between 0 and 1")
        if self.length < 1:
            raise Mismatch(f"corruption 'span_mask'.length: {self.length} is below 1")
        if self.capacity is not None and not 0 < self.capacity <= 1:
            raise Mismatch(f"corruption 'span_mask'.capacity: {self.capacity} is not in (0, 1]")
        if sites.length and sites.length <= self.length:
            raise Mismatch(f"corruption 'span_mask'.length: a span of {self.length} hides all of {sites.length} sites")
        return sites


@corruptions.register("span_mask", SpanMaskConfig)
class SpanMask(nn.Module):
    """Every row gets floor(p L + u) spans of its L real sites, u uniform in [0, 1), and never less than one.

    A span starts where all of it is real; a row shorter than a span is hidden whole. Fixed sites stay.
    Where more is hidden than `capacity` allows, a random choice of it is predicted; the rest stays hidden
    and is not.
    """

    def __init__(self, config: SpanMaskConfig, sites: Spec) -> None:
        super().__init__()
        self.config = config

    def forward(self, units: Units, sites: Sites, step: Step, path: Path) -> Plan:
        if sites.doc is not None:
            raise Mismatch("corruption 'span_mask' hides spans of whole rows, these are packed")
        tag = f"span_mask.{path.draw}"
        starts = self.starts(sites, step, tag)
        replace = self.cover(starts) & sites.open()
        where, mask, weight = self.choose(replace, sites, step, tag)
        return Plan(
            inputs=units,
            sites=sites,
            replace=replace,
            mask=mask,
            where=flat(where, sites.n),
            weight=weight.flatten().float(),
        )

    def starts(self, sites: Sites, step: Step, tag: str) -> Tensor:
        """(B,N) bool: drawn without replacement from the sites where a span fits."""
        length = sites.real().sum(1, keepdim=True)  # (B,1)
        fits = sites.open() & ((sites.place <= length - self.config.length) | (sites.place == 0))
        chance = step.rng.uniform(tag + ".count", sites.sample[:, :1])
        count = (self.config.start * length + chance).floor().long()
        count = count.clamp_min(1).minimum(fits.sum(1, keepdim=True))
        lots = step.rng.bits(tag + ".start", sites.sample, sites.place)
        return masking.lowest(lots.masked_fill(~fits, _LAST), count)

    def cover(self, starts: Tensor) -> Tensor:
        """(B,N) bool: within `length` sites of a start."""
        begun = starts.long().cumsum(1)
        ended = nn.functional.pad(begun, (self.config.length, 0))[:, : starts.shape[1]]
        return begun > ended

    def choose(self, hidden: Tensor, sites: Sites, step: Step, tag: str) -> tuple[Tensor, Tensor, Tensor]:
        """Predicted (B,M/B) sites in their order with fillers last, (B,N) mask, (B,M/B) bool real."""
        capacity = self.config.predicted(sites.n)
        lots = step.rng.bits(tag + ".choose", sites.sample, sites.place)
        mask = masking.lowest(lots.masked_fill(~hidden, _LAST), capacity) & hidden
        where = masking.places(mask, capacity)
        return where, mask, mask.gather(1, where)
