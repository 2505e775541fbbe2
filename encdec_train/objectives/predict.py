"""Predict: read a memory, predict rows, compare with a target.

Masked modelling, span corruption, causal language modelling, autoencoding, distillation of features, diffusion and
supervised learning are this one wiring with other words.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from encdec_train.registry import objectives
from encdec_train.step import Step
from encdec_train.types import Goal, Path, Plan, Spec, Term, Tokens, join_goals
from encdec_train.wiring import Wiring


@dataclass(kw_only=True)
class PredictConfig:
    memory: str | None = "main"  # path whose tokens are read
    inputs: str | None = None  # path whose tokens the decoder itself is given
    decoder: str | None = "main"  # none, or no part of this name: the head reads the memory
    before: list[str] = field(default_factory=list)  # heads that the rows go through first, one after the other
    head: str = "main"
    target: str = "main"
    loss: str = "main"
    weight: float = 1.0

    def check(self, wiring: Wiring, where: str) -> None:
        """From the memory through decoder and head to the loss, as specs."""
        paths = [name for name in (self.memory, self.inputs) if name]
        if not wiring.has_paths(where, paths):
            return
        plan_path = self.inputs or paths[0]
        sites, path = wiring.outputs[f"sites.{plan_path}"], wiring.paths[plan_path]
        spec: Spec | None = wiring.outputs[f"path.{self.memory}"] if self.memory else None
        if self.decoder == "main" and "main" not in wiring.config.decoder:
            self.decoder = None
        if self.decoder is not None:
            given = wiring.outputs[f"path.{self.inputs}"] if self.inputs else None
            fallback = replace(sites, rows="predicted")
            self._emit(wiring, wiring.config.decoder.get(self.decoder), self.memory, spec)
            spec = wiring.through(where, "decoder", self.decoder, (spec, given, sites), fallback)
        elif self.inputs:
            wiring.problem(where, f"path '{self.inputs}' is for a decoder to read, there is none")
            return
        if spec is None:
            return
        assert sites.raw is not None
        target = wiring.config.target.get(self.target)
        readings = wiring.reading(f"target.{self.target}", target)
        if readings:
            name = target.path
            self._emit(wiring, target, name, wiring.outputs[f"path.{name}"])
        elif getattr(target, "path", None) is not None:
            return  # what it reads is a problem that stands already
        goal = wiring.through(where, "target", self.target, (sites, *readings), sites.raw)
        loss = wiring.find(where, "loss", self.loss)
        if goal is None or loss is None:
            return
        if spec.rows not in ("all", "predicted") and (path.corruption or goal.rows != spec.rows):
            wiring.problem(where, f"{spec.rows} sites come back, the target has others: a decoder is needed")
        out = wiring.heads(where, plan_path, [*self.before, self.head], spec, goal)
        if out is not None:
            loss.check(out, goal)
            wiring.accept(f"loss.{self.loss}", (goal,), out)

    def _emit(self, wiring: Wiring, reader: Any, path: str | None, spec: Spec | None) -> None:
        """Ask for the hidden states that a part reads besides the last."""
        if path is None or spec is None:
            return
        if hasattr(reader, "emits"):
            wiring.emit(path, reader.emits(spec))
        if hasattr(reader, "emits_qkv"):
            wiring.emit(path, reader.emits_qkv(spec), "emit_qkv")


@objectives.register("predict", PredictConfig)
class Predict(nn.Module):
    """memory -> decoder(memory, inputs) -> rows `where` -> head -> loss against the target.

    A loss may have `fused(head, rows, goal)`: it gives its weighted sum without the predictions, or None to be asked
    with them.
    """

    phase = "main"
    shared = False  # other parts read the predictions, so that they are made anyway

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

    @property
    def key(self) -> Hashable:
        """What predictions depend on; objectives with other heads decode for themselves."""
        return self.memory, self.inputs, self.config.decoder, *self.config.before, self.config.head

    def predict(self, step: Step) -> tuple[Tensor, Plan, Tokens]:
        """(M,C) predictions, their plan, and the tokens they were read from; once per step for all who predict so."""

        def make() -> tuple[Tensor, Plan, Tokens]:
            rows, plan, tokens = self.rows(step)
            return step.part("head", self.config.head)(rows), plan, tokens

        return step.once("predict", self.key, make)

    def rows(self, step: Step) -> tuple[Tensor, Plan, Tokens]:
        """(M,D) rows that the last head reads, their plan, and the tokens that they stand among."""

        def make() -> tuple[Tensor, Plan, Tokens]:
            plan = step.plan(self.path)
            tokens: Any = step.tokens(self.memory) if self.memory else None
            if self.config.decoder:
                given = step.encode(self.inputs) if self.inputs else None
                tokens = step.part("decoder", self.config.decoder)(tokens, given, plan)
            return step.project(tokens.at(plan.where), self.config.before), plan, tokens

        return step.once("rows", self.key, make)

    def goal(self, step: Step) -> Goal:
        """What the predictions are held against."""
        goal: Goal = step.part("target", self.config.target)(step, self.path, step.plan(self.path))
        return goal

    def trivial(self, steps: Iterable[Step], rows: int) -> tuple[str, float] | None:
        """The name and loss of the best predictor that reads nothing; none where the loss does not know it."""
        goals = []
        for step in steps:
            loss = step.part("loss", self.config.loss)
            if not hasattr(loss, "trivial"):
                return None
            goals.append(self.goal(step))
        name, value = loss.trivial(join_goals(goals))
        return name, float(value)

    def forward(self, step: Step) -> dict[str, Term]:
        loss, given = step.part("loss", self.config.loss), self.rows(step)[0]
        fusing = hasattr(loss, "fused") and not self.shared
        if not fusing:
            self.predict(step)
        goal = self.goal(step)
        total = loss.fused(step.part("head", self.config.head), given, goal) if fusing else None
        if total is None:
            rows = loss(self.predict(step)[0], goal)  # (M,)
            total = rows.sum() if goal.weight is None else (rows * goal.weight).sum()
        if goal.weight is None:
            count = torch.full((), len(goal.values), dtype=total.dtype, device=total.device)
        else:
            count = goal.weight.sum()
        return {self.name: Term(total, count, self.config.weight)}
