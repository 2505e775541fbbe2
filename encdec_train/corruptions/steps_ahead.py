"""Steps ahead: nothing is hidden, every site is asked for the next K, and nobody reads what follows.

van den Oord et al. 2018, "Contrastive predictive coding" (arXiv:1807.03748), section 2.2 and figure 1. A site whose
successors do not all stand in its row is asked for none, so that each number of steps is asked for equally often. The
embedder must not look ahead either: one that normalises over time or convolves its positions, as `waveform` does, gives
away what is asked for.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import nn

from encdec_train.corruptions.drop import flat
from encdec_train.registry import corruptions
from encdec_train.step import Step
from encdec_train.types import Attend, Mismatch, Path, Plan, Sites, Spec, Units


@dataclass(kw_only=True)
class StepsAheadConfig:
    steps: int = 12  # K

    def spec(self, sites: Spec) -> Spec:
        if self.steps < 1:
            raise Mismatch(f"corruption 'steps_ahead'.steps: {self.steps} is below 1")
        if sites.docs:
            raise Mismatch("corruption 'steps_ahead' needs one document in a row, the rows are packed")
        if not sites.length:
            raise Mismatch("corruption 'steps_ahead' needs rows of one length, the view's vary")
        if sites.length <= self.steps:
            raise Mismatch(f"corruption 'steps_ahead'.steps: no site of {sites.length} has {self.steps} after it")
        return replace(sites, ahead=self.steps)


@corruptions.register("steps_ahead", StepsAheadConfig)
class StepsAhead(nn.Module):
    """`where` holds site t + k of every row, origin t = 0, 1, ... N-K-1 and k = 1, ... K: B*(N-K)*K of them."""

    def __init__(self, config: StepsAheadConfig, sites: Spec) -> None:
        super().__init__()
        self.steps = config.steps

    def forward(self, units: Units, sites: Sites, step: Step, path: Path) -> Plan:
        device = sites.sample.device
        origin = torch.arange(sites.n - self.steps, device=device)[:, None]
        goal = (origin + torch.arange(1, self.steps + 1, device=device)).flatten().expand(sites.rows, -1)
        weight = None if sites.valid is None else sites.valid.gather(1, goal).flatten().float()
        return Plan(inputs=units, sites=sites, where=flat(goal, sites.n), weight=weight, attend=Attend(causal=True))
