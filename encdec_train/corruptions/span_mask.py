"""Span masking: spans of a fixed length are replaced by the mask vector; they may overlap.

Baevski et al. 2020, "wav2vec 2.0" (arXiv:2006.11477), section 3.1 and section 4.2: a share p = 0.065 of the
time steps is drawn without replacement as starts, and the M = 10 steps from each start are masked. That
hides about half.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import nn

from encdec_train.kernels import masking, spans
from encdec_train.registry import corruptions
from encdec_train.step import Step
from encdec_train.types import Mismatch, Path, Plan, Sites, Spec, Units


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
        tag, key = f"span_mask.{path.draw}", (sites.sample, sites.place)
        real, free = sites.real(), sites.open()
        hidden = spans.hide(*key, real, free, step.rng, tag, self.config.start, self.config.length)
        capacity, scarce = self.config.predicted(sites.n), self.config.capacity is not None
        where, mask, weight = masking.choose_sites(hidden, *key, step.rng, f"{tag}.choose", capacity, at_random=scarce)
        return Plan(inputs=units, sites=sites, replace=hidden, mask=mask, where=where, weight=weight)
