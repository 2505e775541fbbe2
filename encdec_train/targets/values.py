"""The view's own raw values: pixels, frames, ids, whatever was taken away."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from encdec_train.registry import targets
from encdec_train.step import Step
from encdec_train.types import Goal, Mismatch, Path, Plan, Spec


@dataclass(kw_only=True)
class ValuesConfig:
    normalize: bool = False  # each row to zero mean and unit variance (MAE, "w/ norm", table 1d)

    def spec(self, sites: Spec) -> Spec:
        raw = sites.raw
        assert raw is not None
        if self.normalize and (raw.kind != "values" or raw.width < 2):
            raise Mismatch(f"target 'values': normalize needs rows of several values, the view gives {raw.kind}")
        return raw


@targets.register("values", ValuesConfig)
class Values(nn.Module):
    """(M,C) or (M,) values of the plan's targets, or of the clean view, at `where`."""

    def __init__(self, config: ValuesConfig, sites: Spec) -> None:
        super().__init__()
        self.config = config

    def forward(self, step: Step, path: Path, plan: Plan) -> Goal:
        units = plan.targets or step.units(path.view)
        values = units.values.flatten(0, 1)
        if plan.where is not None:
            values = values[plan.where]
        if self.config.normalize:
            mean, var = values.mean(-1, keepdim=True), values.var(-1, keepdim=True)
            values = (values - mean) / (var + 1e-6).sqrt()
        return Goal(values=values, weight=plan.weight)
