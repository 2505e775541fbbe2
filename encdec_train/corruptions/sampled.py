"""Tokens that another objective predicts take the place of the true ones: plausible mistakes.

Clark et al. 2020, "ELECTRA" (arXiv:2003.10555), section 2: a masked language model is asked for some tokens, each is
drawn from what it says, and nothing is passed back to it. The draw is argmax(log p + Gumbel noise) (Gumbel 1954; their
code, google-research/electra, pretrain_helpers.py, `sample_from_softmax`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encdec_train.registry import corruptions
from encdec_train.rng import Rng
from encdec_train.step import Step
from encdec_train.types import Mismatch, Path, Plan, Sites, Spec, Units


@dataclass(kw_only=True)
class SampledConfig:
    of: str = "main"  # objective whose predictions are drawn from; it predicts ids of the same view
    temperature: float = 1.0

    refers: ClassVar[dict[str, str]] = {"of": "objective"}

    def spec(self, sites: Spec) -> Spec:
        if self.temperature <= 0:
            raise Mismatch(f"corruption 'sampled'.temperature: {self.temperature} is not above 0")
        if sites.raw is None or sites.raw.kind != "ids":
            raise Mismatch(f"corruption 'sampled' writes ids, the view gives {sites.raw.kind if sites.raw else 'none'}")
        return sites


@corruptions.register("sampled", SampledConfig)
class Sampled(nn.Module):
    """The view with drawn ids where the other objective predicts. Every site is predicted, changed or not."""

    def __init__(self, config: SampledConfig, sites: Spec) -> None:
        super().__init__()
        self.config = config

    def forward(self, units: Units, sites: Sites, step: Step, path: Path) -> Plan:
        prediction, plan, _ = step.part("objective", self.config.of).predict(step)
        ids, size = units.values.flatten(), units.values.numel()
        where = torch.arange(size, device=ids.device) if plan.where is None else plan.where
        key = sites.sample.flatten()[where], sites.place.flatten()[where]
        drawn = self.draw(prediction.detach(), step.rng, f"sampled.{path.draw}", *key)
        slot = where if plan.weight is None else torch.where(plan.weight > 0, where, size)  # one more takes the filler
        written = F.pad(ids, (0, 1)).scatter(0, slot, drawn)[:-1].view_as(units.values)
        weight = None if sites.valid is None else sites.valid.flatten().float()
        return Plan(inputs=replace(units, values=written), sites=sites, weight=weight)

    def draw(self, scores: Tensor, rng: Rng, tag: str, sample: Tensor, place: Tensor) -> Tensor:
        """(M,) int64 from scores (M,V)."""
        entry = torch.arange(scores.shape[1], device=scores.device)
        noise = rng.gumbel(tag, sample[:, None], place[:, None], entry)
        return (scores.float() / self.config.temperature + noise).argmax(-1)
