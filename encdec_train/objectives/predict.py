"""Predict: read a memory, predict rows, compare with a target.

Masked modelling, span corruption, causal language modelling, autoencoding, distillation of features, diffusion and
supervised learning are this one wiring with other words.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from encdec_train.registry import objectives
from encdec_train.step import Step
from encdec_train.types import Path, Plan, Term, Tokens


@dataclass(kw_only=True)
class PredictConfig:
    memory: str | None = "main"  # path whose tokens are read
    inputs: str | None = None  # path whose tokens the decoder itself is given
    decoder: str | None = "main"  # none, or no part of this name: the head reads the memory
    head: str = "main"
    target: str = "main"
    loss: str = "main"
    weight: float = 1.0


@objectives.register("predict", PredictConfig)
class Predict(nn.Module):
    """memory -> decoder(memory, inputs) -> rows `where` -> head -> loss against the target."""

    phase = "main"

    def __init__(self, config: PredictConfig, name: str, paths: dict[str, Path]) -> None:
        super().__init__()
        self.config, self.name = config, name
        self.memory = paths[config.memory] if config.memory else None
        self.inputs = paths[config.inputs] if config.inputs else None

    @property
    def path(self) -> Path:
        """The path whose plan says what is predicted: the decoder's own, if it has one."""
        path = self.inputs or self.memory
        assert path is not None, "the build refuses an objective without a path"
        return path

    def predict(self, step: Step) -> tuple[Tensor, Plan, Tokens]:
        """(M,C) predictions, their plan, and the tokens they were read from; once per step."""

        def make() -> tuple[Tensor, Plan, Tokens]:
            plan = step.plan(self.path)
            tokens: Any = step.tokens(self.memory) if self.memory else None
            if self.config.decoder:
                given = step.encode(self.inputs) if self.inputs else None
                tokens = step.part("decoder", self.config.decoder)(tokens, given, plan)
            rows = tokens.at(plan.where)
            return step.part("head", self.config.head)(rows), plan, tokens

        return step.once("predict", self.name, make)

    def forward(self, step: Step) -> dict[str, Term]:
        prediction, plan, _ = self.predict(step)
        goal = step.part("target", self.config.target)(step, self.path, plan)
        rows = step.part("loss", self.config.loss)(prediction, goal)  # (M,)
        if goal.weight is None:
            total, count = rows.sum(), torch.full((), rows.numel(), dtype=rows.dtype, device=rows.device)
        else:
            total, count = (rows * goal.weight).sum(), goal.weight.sum()
        return {self.name: Term(total, count, self.config.weight)}
