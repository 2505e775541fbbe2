"""Losses of one prediction, weighed by the size of their gradients and not by their own.

Défossez et al. 2022, "High fidelity neural audio compression" (arXiv:2210.13438), section 3.4, equation 5: each loss
moves the prediction by its share of a fixed length, whatever its scale.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from encdec_train.nn.gather import sum_ranks, world
from encdec_train.objectives.predict import PredictConfig
from encdec_train.registry import objectives
from encdec_train.step import Step
from encdec_train.types import Mismatch, Path, Term
from encdec_train.wiring import Wiring


@dataclass(kw_only=True)
class BalancedConfig:
    of: str = "main"  # objective whose prediction the losses move
    shares: dict[str, float] = field(default_factory=dict)  # of each term that the objectives give
    objectives: list[str] = field(default_factory=lambda: ["main"])  # whose terms are balanced
    length: float = 1.0  # R: of the whole gradient of a row of the prediction
    decay: float = 0.999  # of the moving averages of lengths

    refers: ClassVar[dict[str, str]] = {"of": "objective"}

    def check(self, wiring: Wiring, where: str) -> None:
        """The objectives exist, and one of them predicts."""
        found = {name: wiring.find(where, "objective", name) for name in [*self.objectives, self.of]}
        if found[self.of] is not None and not isinstance(found[self.of], PredictConfig):
            wiring.problem(where, f"of: '{self.of}' is no objective that predicts")
        if not self.shares or min(self.shares.values()) <= 0:
            wiring.problem(where, f"shares: {self.shares} must be above 0 and name at least one term")
        if not 0 <= self.decay < 1 or self.length <= 0:
            wiring.problem(where, f"decay {self.decay} is not in [0, 1) or length {self.length} is not above 0")


@objectives.register("balanced", BalancedConfig)
class Balanced(nn.Module):
    """The terms of other objectives with weights R share / length of the gradient; a stage names this one, not them."""

    batchwise = True

    phase = "main"
    lengths: Tensor
    seen: Tensor

    def __init__(self, config: BalancedConfig, name: str, paths: dict[str, Path]) -> None:
        super().__init__()
        self.config, self.name = config, name
        self.register_buffer("lengths", torch.zeros(len(config.shares)))  # decayed sums
        self.register_buffer("seen", torch.zeros(()))  # the same of ones

    def forward(self, step: Step) -> dict[str, Term]:
        terms: dict[str, Term] = {}
        for name in self.config.objectives:
            terms.update(step.part("objective", name)(step))
        strange = set(self.config.shares) ^ set(terms)
        if strange:
            raise Mismatch(f"objective.{self.name}.shares: {sorted(strange)} is not both a term and given a share")
        of: Any = step.part("objective", self.config.of)
        prediction: Tensor = of.predict(step)[0]
        if not prediction.requires_grad:
            return terms
        self.measure(terms, prediction, step.units(of.path.view).sites.rows)
        total = sum(self.config.shares.values())
        mean = self.lengths / self.seen
        return {
            name: replace(terms[name], weight=self.config.length * share / total / mean[i].clamp_min(1e-12))
            for i, (name, share) in enumerate(self.config.shares.items())
        }

    def measure(self, terms: dict[str, Term], prediction: Tensor, rows: int) -> None:
        """Follow the mean length, over the rows of the batch, of each term's gradient at the (M,C) prediction."""
        found = []
        for name in self.config.shares:
            mean = terms[name].sum / sum_ranks(terms[name].count)
            (gradient,) = torch.autograd.grad(mean, prediction, retain_graph=True)
            found.append(gradient.reshape(rows, -1).float().norm(dim=1).mean())
        lengths = sum_ranks(torch.stack(found)) / world()[1]
        self.lengths.mul_(self.config.decay).add_(lengths, alpha=1 - self.config.decay)
        self.seen.mul_(self.config.decay).add_(1 - self.config.decay)
