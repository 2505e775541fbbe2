"""How well an objective predicts on rows that it was not trained on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from encdec_train.registry import probes
from encdec_train.types import Goal, Mismatch, join_goals, shares


class Score(Enum):
    """What is measured on the predicted rows."""

    accuracy = "accuracy"  # share of ids that are scored highest
    r2 = "r2"  # share of the variance about the mean target that is explained; 0 for the mean itself
    perplexity = "perplexity"  # exp of the mean cross entropy of ids: hidden ones, or each after those before it
    bits_per_byte = "bits_per_byte"  # cross entropy of ids in bits, over the bytes of the text that they spell
    psnr = "psnr"  # 10 log10(peak^2 / mean squared error), in decibels


OF_LIKELIHOOD = (Score.perplexity, Score.bits_per_byte)
OF_IDS = (Score.accuracy, *OF_LIKELIHOOD)


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
        self.lower = config.score in OF_LIKELIHOOD  # less is better

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
            if ids != (self.config.score in OF_IDS):
                raise Mismatch(f"probe 'held_out': {self.metric} does not fit the targets of objective '{name}'")
            predictions.append(self.reduce(prediction, goal.values) if ids else prediction)
            goals.append(goal)
        every = join_goals(goals)
        if self.config.score is Score.bits_per_byte:
            return bits_per_byte(torch.cat(predictions), every, self.bytes(frozen, objective).to(every.values.device))
        return self.score(torch.cat(predictions), every)

    def reduce(self, scores: Tensor, ids: Tensor) -> Tensor:
        """(M,) of scores (M,V): the likeliest ids, or nats that the true ones cost."""
        if self.config.score in OF_LIKELIHOOD:
            return F.cross_entropy(scores, ids, reduction="none")
        return scores.argmax(-1)

    def bytes(self, frozen: Any, objective: Any) -> Tensor:
        """(V,) int64 of each id of the view that is predicted.

        Raises:
            Mismatch: it is no text.
        """
        words = frozen.transform.of(objective.path.view)
        if not hasattr(words, "byte_counts"):
            raise Mismatch(f"probe 'held_out': bits_per_byte is of text, view '{objective.path.view}' is none")
        found: Tensor = words.byte_counts()
        return found

    def score(self, prediction: Tensor, goal: Goal) -> float:
        share = shares(goal)
        if self.config.score is Score.perplexity:
            return math.exp(float((prediction.double() * share).sum()))
        if self.config.score is Score.accuracy:
            return float(((prediction == goal.values) * share).sum())
        values = goal.values.double()
        error = ((prediction.double() - values).square() * share[:, None]).sum(0).mean()
        if self.config.score is Score.psnr:
            return float(20 * math.log10(self.config.peak) - 10 * error.log10())
        mean = (values * share[:, None]).sum(0)
        return float(1 - error / ((values - mean).square() * share[:, None]).sum(0).mean())


def bits_per_byte(nats: Tensor, goal: Goal, sizes: Tensor) -> float:
    """What all counted ids cost, over the bytes that they add to a text; special ids cost and add nothing to it.

    Args:
        nats: (M,) of each id.
        goal: the ids, with their weights.
        sizes: (V,) bytes of each id.
    """
    share = shares(goal)
    spelled = (sizes.index_select(0, goal.values).double() * share).sum()
    return float((nats.double() * share).sum() / math.log(2) / spelled)
