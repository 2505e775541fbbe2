"""The self-attention relations of one block of another path's encoder.

Wang et al. 2021, "MiniLMv2" (arXiv:2012.15828), section 3.1: what a student is to imitate of its teacher.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import nn

from encdec_train.nn.relations import relation_width, relations
from encdec_train.registry import targets
from encdec_train.step import Step
from encdec_train.types import Goal, Path, Plan, Reading, Spec


@dataclass(kw_only=True)
class RelationTargetConfig:
    path: str = "teacher"  # that is read, without gradient; its sites are those of the plan
    layer: int = -1  # block; negative: from the last
    split: int = 48  # relation heads, whatever the number of attention heads

    def emits_qkv(self, spec: Spec) -> list[int]:
        return [self.layer]

    def spec(self, sites: Spec, reading: Reading) -> Spec:
        width = relation_width("target 'relations'", reading.spec, self.layer, self.split)
        return replace(sites, kind="chances", width=width, raw=None)


@targets.register("relations", RelationTargetConfig)
class RelationTarget(nn.Module):
    """(M,3*heads*length) probabilities at the plan's `where`; padding weighs nothing."""

    def __init__(self, config: RelationTargetConfig, sites: Spec, reading: Reading) -> None:
        super().__init__()
        self.reading, self.heads = reading, config.split
        self.layer, self.length = config.layer % len(reading.spec.layers), reading.spec.length

    @torch.no_grad()
    def forward(self, step: Step, path: Path, plan: Plan) -> Goal:
        tokens = step.read(self.reading)
        assert tokens.qkv is not None, "the build asks the encoder for them"
        rows = relations(tokens.qkv[self.layer], self.heads, tokens.sites, self.length).exp().flatten(0, 1)
        if plan.where is not None:
            return Goal(values=rows[plan.where], weight=plan.weight)
        valid = plan.sites.valid
        return Goal(values=rows, weight=None if valid is None else valid.flatten().float())
