"""How well an objective predicts on rows that it was not trained on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch

from encdec_train.registry import probes
from encdec_train.types import Mismatch, join_goals, shares


class Score(Enum):
    """What is measured on the predicted rows."""

    accuracy = "accuracy"  # share of ids that are scored highest
    r2 = "r2"  # share of the variance about the mean target that is explained; 0 for the mean itself
    psnr = "psnr"  # 10 log10(peak^2 / mean squared error), in decibels


@dataclass(kw_only=True)
class HeldOutConfig:
    objective: str = "main"  # one that predicts
    score: Score = Score.accuracy
    peak: float = 1.0  # psnr: range of the values
    split: str = "test"  # train: how well it fits, for what is to be memorised


@probes.register("held_out", HeldOutConfig)
class HeldOut:
    """An objective's own predictions on clean rows, under its own corruption with fixed draws."""

    labelled = False

    def __init__(self, config: HeldOutConfig) -> None:
        self.config = config

    @property
    def metric(self) -> str:
        return self.config.score.value

    @property
    def protocol(self) -> str:
        peak = f", peak {self.config.peak}" if self.config.score is Score.psnr else ""
        return f"{self.metric}{peak} of the objective '{self.config.objective}' on the {self.config.split} split"

    @torch.no_grad()
    def __call__(self, frozen: Any) -> float:
        name = self.config.objective
        if name not in frozen.config.objective:
            raise Mismatch(f"probe 'held_out': there is no objective '{name}'")
        objective = frozen.parts.get("objective", name)
        if not hasattr(objective, "predict"):
            raise Mismatch(f"probe 'held_out': objective '{name}' predicts nothing that could be scored")
        predictions, goals = [], []
        for step, _ in frozen.steps(self.config.split):
            goal, prediction = objective.goal(step), objective.predict(step)[0].float()
            ids = not goal.values.is_floating_point()
            if ids != (self.config.score is Score.accuracy):
                raise Mismatch(f"probe 'held_out': {self.metric} does not fit the targets of objective '{name}'")
            predictions.append(prediction.argmax(-1) if ids else prediction)
            goals.append(goal)
        return self.score(torch.cat(predictions), join_goals(goals))

    def score(self, prediction: torch.Tensor, goal: Any) -> float:
        share = shares(goal)
        if self.config.score is Score.accuracy:
            return float(((prediction == goal.values) * share).sum())
        values = goal.values.double()
        error = ((prediction.double() - values).square() * share[:, None]).sum(0).mean()
        if self.config.score is Score.psnr:
            return float(20 * math.log10(self.config.peak) - 10 * error.log10())
        mean = (values * share[:, None]).sum(0)
        return float(1 - error / ((values - mean).square() * share[:, None]).sum(0).mean())
