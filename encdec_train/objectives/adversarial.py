"""Adversarial: one side of a game between a prediction and a part that tells it from the real thing.

Goodfellow et al. 2014 (arXiv:1406.2661). A discriminator is an encoder that reads the view itself, and then the view as
another objective predicts it. The two sides are two objectives: the generator's belongs to the phase `main`, where the
discriminator only passes gradients on; the discriminator's has a phase, and so an optimiser, of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum
from typing import ClassVar

import torch
from torch import Tensor, nn

from encdec_train.nn.gather import sum_ranks, world
from encdec_train.objectives.predict import Predict, PredictConfig
from encdec_train.registry import objectives
from encdec_train.step import Step
from encdec_train.types import Goal, Path, Plan, Spec, Term, Tokens, Units
from encdec_train.wiring import Wiring


class Side(Enum):
    """Whose loss it is."""

    generator = "generator"
    discriminator = "discriminator"


@dataclass(kw_only=True)
class AdversarialConfig:
    of: str = "main"  # objective whose predictions are the fakes
    path: str = "real"  # the view through the discriminator
    heads: list[str] = field(default_factory=lambda: ["real"])  # from its rows to one score each
    loss: str = "real"  # of scores against 1 (real) and 0 (fake)
    side: Side = Side.generator
    matching: float = 0.0  # generator: weight of the discriminator's features, real against fake
    weight: float = 1.0

    refers: ClassVar[dict[str, str]] = {"of": "objective"}

    def check(self, wiring: Wiring, where: str) -> None:
        """The fakes are of the view that the discriminator reads, and its rows come to one score."""
        if not wiring.has_paths(where, [self.path]):
            return
        of = wiring.config.objective.get(self.of)
        if not isinstance(of, PredictConfig):
            have = ", ".join(n for n, o in wiring.config.objective.items() if isinstance(o, PredictConfig)) or "none"
            wiring.problem(where, f"of: '{self.of}' is no objective that predicts; there is: {have}")
            return
        view, predicted = wiring.paths[self.path].view, wiring.paths.get(of.inputs or of.memory or "")
        if predicted is not None and predicted.view != view:
            wiring.problem(where, f"the discriminator reads the view '{view}', '{self.of}' predicts '{predicted.view}'")
        goal = Spec(kind="values", width=1)
        out = wiring.heads(where, self.path, self.heads, wiring.outputs[f"path.{self.path}"], goal)
        loss = wiring.find(where, "loss", self.loss)
        if out is None or loss is None:
            return
        loss.check(out, goal)
        wiring.accept(f"loss.{self.loss}", (goal,), out)
        if self.matching and self.side is Side.generator:
            encoder = wiring.paths[self.path].encoder
            wiring.emit(self.path, range(len(wiring.outputs[f"encoder.{encoder}"].layers)))


@objectives.register("adversarial", AdversarialConfig)
class Adversarial(nn.Module):
    """Scores of the discriminator against real or fake."""

    def __init__(self, config: AdversarialConfig, name: str, paths: dict[str, Path]) -> None:
        super().__init__()
        self.config, self.name, self.path = config, name, paths[config.path]
        self.phase = "main" if config.side is Side.generator else "discriminator"
        self.batchwise = config.side is Side.generator and config.matching > 0

    def fake(self, step: Step) -> Units:
        """The view with the predictions in their places; the rest stays real."""
        prediction, plan = self.predicted(step)
        units = step.units(self.path.view)
        if plan.where is None:
            return replace(units, values=prediction.view_as(units.values))
        rows = units.values.flatten(0, 1).to(prediction.dtype)
        return replace(units, values=rows.index_copy(0, plan.where, prediction).view_as(units.values))

    def predicted(self, step: Step) -> tuple[Tensor, Plan]:
        """(M,C) predictions and their plan. Their parts' own losses are no matter of the discriminator's phase."""
        of: Predict = step.part("objective", self.config.of)
        if self.config.side is Side.generator:
            return of.predict(step)[:2]
        aux = dict(step.aux)
        prediction, plan, _ = of.predict(step)
        step.aux = aux
        return prediction.detach(), plan

    def read(self, step: Step, units: Units) -> tuple[Tensor, Tokens]:
        """(M,1) scores and what they were read from; with a memo of its own, because phases differ in what trains."""
        tokens = step.fork({self.path.view: units}).tokens(self.path)
        return step.project(tokens.body.flatten(0, 1), self.config.heads), tokens

    def held_against(self, step: Step, scores: Tensor, label: float) -> Term:
        goal = Goal(values=torch.full_like(scores, label))
        rows = step.part("loss", self.config.loss)(scores, goal)
        return Term(rows.sum(), torch.full((), rows.numel(), dtype=rows.dtype, device=rows.device), self.config.weight)

    def forward(self, step: Step) -> dict[str, Term]:
        scores, fake = self.read(step, self.fake(step))
        if self.config.side is Side.discriminator:
            real, _ = self.read(step, step.units(self.path.view))
            return {
                f"{self.name}.fake": self.held_against(step, scores, 0.0),
                f"{self.name}.real": self.held_against(step, real, 1.0),
            }
        terms = {self.name: self.held_against(step, scores, 1.0)}
        if self.config.matching:
            with torch.no_grad():
                _, real_tokens = self.read(step, step.units(self.path.view))
            terms[f"{self.name}.matching"] = self.match(fake, real_tokens)
        return terms

    def match(self, fake: Tokens, real: Tokens) -> Term:
        """Mean absolute difference of features, relative to their mean size (Défossez et al. 2022, equation 2).

        The size is that of all ranks' rows.
        """
        assert fake.layers is not None and real.layers is not None
        order = sorted(real.layers)
        sizes = sum_ranks(torch.stack([real.layers[i].abs().mean() for i in order])) / world()[1]
        differences = torch.stack([(fake.layers[i] - real.layers[i]).abs().mean() for i in order])
        total = (differences / sizes.clamp_min(1e-8)).mean() * len(fake.x)
        count = torch.full((), len(fake.x), dtype=total.dtype, device=total.device)
        return Term(total, count, self.config.weight * self.config.matching)
