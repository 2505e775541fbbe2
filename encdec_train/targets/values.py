"""The view's own raw values: pixels, frames, ids, whatever was taken away."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from encdec_train.registry import targets
from encdec_train.step import Step
from encdec_train.types import Goal, Mismatch, Path, Plan, Spec


@dataclass(kw_only=True)
class ValuesConfig:
    normalize: bool = False  # each row to zero mean and unit variance (MAE, "w/ norm", table 1d)
    channels: int = 1  # that a row interleaves and that are normalised each by itself (VideoMAE); 1: all as one

    def spec(self, sites: Spec) -> Spec:
        raw = sites.raw
        assert raw is not None
        if self.normalize and (raw.kind != "values" or raw.width < 2):
            raise Mismatch(f"target 'values': normalize needs rows of several values, the view gives {raw.kind}")
        if self.channels < 1 or (self.channels > 1 and (raw.width % self.channels or raw.width == self.channels)):
            raise Mismatch(f"target 'values'.channels: {self.channels} do not divide the {raw.width} values of a row")
        return raw


@targets.register("values", ValuesConfig)
class Values(nn.Module):
    """(M,C) or (M,) values of the plan's targets, or of the clean view, at `where`."""

    def __init__(self, config: ValuesConfig, sites: Spec) -> None:
        super().__init__()
        self.config = config

    def raw(self, step: Step, path: Path, plan: Plan) -> Tensor:
        """(M,C) or (M,): the values as they are."""
        units = plan.targets or step.units(path.view)
        values = units.values.flatten(0, 1)
        return values if plan.where is None else values[plan.where]

    def forward(self, step: Step, path: Path, plan: Plan) -> Goal:
        values = self.raw(step, path, plan)
        if self.config.normalize:
            mean, deviation = self.moments(values)
            values = (values - mean) / deviation
        return Goal(values=values, weight=plan.weight)

    def restore(self, prediction: Tensor, step: Step, path: Path, plan: Plan) -> Tensor:
        """A prediction in the units of the view; the mean and deviation of a normalised row are the true ones."""
        if not self.config.normalize:
            return prediction
        mean, deviation = self.moments(self.raw(step, path, plan))
        return prediction * deviation + mean

    def moments(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation (M,1) of each row, or (M,C) by channel; the variance is unbiased, as in MAE's code."""
        channels = self.config.channels
        if channels == 1:
            return values.mean(-1, keepdim=True), (values.var(-1, keepdim=True) + 1e-6).sqrt()
        apart = values.unflatten(-1, (-1, channels))
        mean, variance = apart.mean(-2, keepdim=True), apart.var(-2, keepdim=True)
        return tuple(t.expand_as(apart).flatten(-2) for t in (mean, (variance + 1e-6).sqrt()))  # type: ignore[return-value]
