"""Language modelling: every token says which one comes next, and nothing is hidden.

Radford et al. 2019 (GPT-2), section 2, equation 1. The plan says that nobody reads what follows; an encoder that is to
be causal without a corruption says so itself. As the input of a decoder the rows are its target shifted by one (Vaswani
et al. 2017, section 3.1): they begin with a token of their own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch.nn.functional as F
from torch import Tensor, nn

from encdec_train.registry import corruptions
from encdec_train.step import Step
from encdec_train.types import Attend, Mismatch, Path, Plan, Sites, Spec, Units


@dataclass(kw_only=True)
class NextTokenConfig:
    prefix: bool = False  # a beginning of each row, of 1 to all but 1 of its sites, is read by all and not predicted

    def spec(self, sites: Spec) -> Spec:
        raw = sites.raw or sites
        if raw.kind != "ids" and not (raw.length and raw.length == sites.length):
            raise Mismatch("corruption 'next_token' predicts ids, or values that every site of rows of one length has")
        if self.prefix and (sites.docs or 0 < sites.max_len < sites.length):
            raise Mismatch("corruption 'next_token'.prefix is one of a row, the view puts several documents into one")
        return sites


@corruptions.register("next_token", NextTokenConfig)
class NextToken(nn.Module):
    """The rows as they are; the targets are their successors. The last token of a document has none."""

    def __init__(self, config: NextTokenConfig, sites: Spec) -> None:
        super().__init__()
        self.config = config

    def forward(self, units: Units, sites: Sites, step: Step, path: Path) -> Plan:
        following = F.pad(units.values[:, 1:], (0, 0) * (units.values.dim() - 2) + (0, 1))
        real = sites.real()
        counted = F.pad(real[:, 1:] & real[:, :-1], (0, 1))
        if sites.doc is not None:
            counted = counted & F.pad(sites.doc[:, 1:] == sites.doc[:, :-1], (0, 1))
        prefix = self.prefix(sites, step, path) if self.config.prefix else None
        if prefix is not None:  # its last site predicts the first one beyond it
            counted = counted & (sites.place >= prefix[:, None] - 1)
        return Plan(
            inputs=units,
            sites=sites,
            weight=counted.flatten().float(),
            targets=replace(units, values=following),
            attend=Attend(causal=True, prefix=prefix),
        )

    def prefix(self, sites: Sites, step: Step, path: Path) -> Tensor:
        """(B,) int64: how many sites begin each row, uniform from 1 to all but 1."""
        choices = (sites.real().sum(1) - 1).clamp_min(1)
        return 1 + step.rng.integers(f"next_token.{path.draw}", choices, sites.sample[:, 0])
