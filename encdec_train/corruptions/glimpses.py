"""Every token is predicted, each from its own random sample of the others.

Xiao et al. 2022, "RetroMAE" (arXiv:2205.12035), section 3.3, "Enhanced decoding": no token reads itself, and as many
predictions as tokens come of one pass. Special tokens are read by all.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from encdec_train.registry import corruptions
from encdec_train.step import Step
from encdec_train.types import Attend, Mismatch, Path, Plan, Sites, Spec, Units


@dataclass(kw_only=True)
class GlimpsesConfig:
    hide: float = 0.5  # chance of each token to be hidden from each other

    def spec(self, sites: Spec) -> Spec:
        if not 0 < self.hide < 1:
            raise Mismatch(f"corruption 'glimpses'.hide: {self.hide} is not between 0 and 1")
        return sites


@corruptions.register("glimpses", GlimpsesConfig)
class Glimpses(nn.Module):
    """The view as it is; `attend.seen` (B,N,N) is False where a site (row) may not read another (column)."""

    def __init__(self, config: GlimpsesConfig, sites: Spec) -> None:
        super().__init__()
        self.config = config

    def forward(self, units: Units, sites: Sites, step: Step, path: Path) -> Plan:
        here, there = (sites.sample[:, :, None], sites.place[:, :, None]), sites.place[:, None, :]
        seen = step.rng.uniform(f"glimpses.{path.draw}", *here, there) >= self.config.hide
        if sites.fixed is not None:
            seen = seen | sites.fixed[:, None, :]
        seen = seen & ~torch.eye(sites.n, dtype=torch.bool, device=seen.device)
        mask = sites.open()
        return Plan(inputs=units, sites=sites, mask=mask, weight=mask.flatten().float(), attend=Attend(seen=seen))
