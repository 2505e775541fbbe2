"""What another path, usually a teacher's, makes of the same sites: the target of self-distillation.

data2vec (Baevski et al. 2022, arXiv:2202.03555, section 3.3): the mean of the teacher's last K blocks, each normalised.
I-JEPA (Assran et al. 2023, arXiv:2301.08243, section 3): the teacher's output, layer-normalised.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encdec_train.registry import targets
from encdec_train.step import Step
from encdec_train.types import Goal, Mismatch, Path, Plan, Reading, Spec


class Normal(Enum):
    """Normalisation without parameters."""

    none = "none"
    layer = "layer"  # each site over its features
    instance = "instance"  # each feature over the sites of its row


@dataclass(kw_only=True)
class FeaturesConfig:
    path: str = "teacher"  # that is read, without gradient; its sites are those of the plan
    heads: list[str] = field(default_factory=list)  # that its rows go through
    top: int = 0  # the mean of the last so many layers; 0: the output itself
    normal: Normal = Normal.none  # of each layer
    final_normal: Normal = Normal.none  # of their mean

    def emits(self, spec: Spec) -> list[int]:
        return list(range(-self.top, 0))

    def spec(self, sites: Spec, reading: Reading) -> Spec:
        name, read = "target 'features'", reading.spec
        if read.rows != "all":
            raise Mismatch(f"{name}: path '{self.path}' gives {read.rows} sites, all are needed")
        if self.top < 0:
            raise Mismatch(f"{name}.top: {self.top} is below 0")
        if self.top and self.heads:
            raise Mismatch(f"{name}: heads read the output, not the mean of {self.top} layers")
        return replace(read, kind="values", raw=None)


@targets.register("features", FeaturesConfig)
class Features(nn.Module):
    """(M,D) rows of the other path at the plan's `where`."""

    def __init__(self, config: FeaturesConfig, sites: Spec, reading: Reading) -> None:
        super().__init__()
        self.config, self.reading = config, reading

    @torch.no_grad()
    def forward(self, step: Step, path: Path, plan: Plan) -> Goal:
        config, tokens = self.config, step.read(self.reading)
        if config.top:
            assert tokens.layers is not None
            last = sorted(tokens.layers)[-config.top :]
            layers = [tokens.layers[i][:, tokens.prefix :] for i in last]
        else:
            layers = [tokens.body]
        mean = torch.stack([normalize(layer, config.normal) for layer in layers]).mean(0)
        rows = normalize(mean, config.final_normal).flatten(0, 1)
        rows = rows if plan.where is None else rows[plan.where]
        return Goal(values=step.project(rows, config.heads, self.reading.path.teacher), weight=plan.weight)


def normalize(x: Tensor, how: Normal) -> Tensor:
    """(B,N,D) in float32 to zero mean and unit variance."""
    if how is Normal.none:
        return x
    if how is Normal.layer:
        return F.layer_norm(x.float(), x.shape[-1:])
    return F.instance_norm(x.float().transpose(1, 2)).transpose(1, 2)
