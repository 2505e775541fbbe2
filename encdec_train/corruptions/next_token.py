"""Language modelling: every token says which one comes next, and nothing is hidden.

Radford et al. 2019 (GPT-2), section 2, equation 1. The plan says that nobody reads what follows; an encoder that is to
be causal without a corruption says so itself. As the input of a decoder the rows are its target shifted by one (Vaswani
et al. 2017, section 3.1): they begin with a token of their own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch.nn.functional as F
from torch import nn

from encdec_train.registry import corruptions
from encdec_train.step import Step
from encdec_train.types import Attend, Mismatch, Path, Plan, Sites, Spec, Units


@dataclass(kw_only=True)
class NextTokenConfig:
    def spec(self, sites: Spec) -> Spec:
        raw = sites.raw or sites
        if raw.kind != "ids":
            raise Mismatch(f"corruption 'next_token' predicts ids, the view gives {raw.kind}")
        return sites


@corruptions.register("next_token", NextTokenConfig)
class NextToken(nn.Module):
    """The rows as they are; the targets are their successors. The last token of a document has none."""

    def __init__(self, config: NextTokenConfig, sites: Spec) -> None:
        super().__init__()
        config.spec(sites)

    def forward(self, units: Units, sites: Sites, step: Step, path: Path) -> Plan:
        following = F.pad(units.values[:, 1:], (0, 1))
        real = sites.real()
        counted = F.pad(real[:, 1:] & real[:, :-1], (0, 1))
        if sites.doc is not None:
            counted = counted & F.pad(sites.doc[:, 1:] == sites.doc[:, :-1], (0, 1))
        weight = counted.flatten().float()
        return Plan(
            inputs=units,
            sites=sites,
            weight=weight,
            targets=replace(units, values=following),
            attend=Attend(causal=True),
        )
