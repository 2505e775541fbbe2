"""What another path, usually a teacher's, makes of the same sites: the target of self-distillation.

data2vec (Baevski et al. 2022, arXiv:2202.03555, section 3.3): the mean of the teacher's last K blocks, each normalised.
I-JEPA (Assran et al. 2023, arXiv:2301.08243, section 3): the teacher's output, layer-normalised.
CPC (van den Oord et al. 2018, arXiv:1807.03748, section 2.2): the embedder's content, which learns with the rest; each
row is to be told from that of other sites, of the same sound or of all that are at hand (table 2 there).
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from enum import Enum

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encdec_train.kernels import masking
from encdec_train.nn.documents import documents
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
    path: str = "teacher"  # that is read; its sites are those of the plan
    gradient: bool = False  # what is read learns, too
    heads: list[str] = field(default_factory=list)  # that its rows go through
    top: int = 0  # the mean of the last so many layers; 0: the output itself
    normal: Normal = Normal.none  # of each layer
    final_normal: Normal = Normal.none  # of their mean
    negatives: int = 0  # sites that each row is to be told from, drawn from those that are predicted
    across: bool = False  # they stand in any row of the batch; else in the same document

    def emits(self, spec: Spec) -> list[int]:
        return list(range(-self.top, 0))

    def spec(self, sites: Spec, reading: Reading) -> Spec:
        name, read = "target 'features'", reading.spec
        if read.rows != "all":
            raise Mismatch(f"{name}: path '{self.path}' gives {read.rows} sites, all are needed")
        if self.gradient and reading.path.teacher:
            raise Mismatch(f"{name}.gradient: path '{self.path}' is a teacher's, which learns nothing")
        if self.negatives < 0:
            raise Mismatch(f"{name}.negatives: {self.negatives} is below 0")
        if self.top < 0:
            raise Mismatch(f"{name}.top: {self.top} is below 0")
        if self.top and self.heads:
            raise Mismatch(f"{name}: heads read the output, not the mean of {self.top} layers")
        return replace(read, kind="values", raw=None, negatives=self.negatives)


@targets.register("features", FeaturesConfig)
class Features(nn.Module):
    """(M,D) rows of the other path at the plan's `where`."""

    def __init__(self, config: FeaturesConfig, sites: Spec, reading: Reading) -> None:
        super().__init__()
        self.config, self.reading = config, reading

    def forward(self, step: Step, path: Path, plan: Plan) -> Goal:
        with nullcontext() if self.config.gradient else torch.no_grad():
            values = self.values(step, plan)
        negatives = self.negatives(step, path, plan) if self.config.negatives else None
        return Goal(values=values, weight=plan.weight, negatives=negatives)

    def values(self, step: Step, plan: Plan) -> Tensor:
        """(M,D)."""
        config = self.config
        tokens = step.tokens(self.reading.path) if config.gradient else step.read(self.reading)
        if config.top:
            assert tokens.layers is not None
            last = sorted(tokens.layers)[-config.top :]
            layers = [tokens.layers[i][:, tokens.prefix :] for i in last]
        else:
            layers = [tokens.body]
        mean = torch.stack([normalize(layer, config.normal) for layer in layers]).mean(0)
        rows = normalize(mean, config.final_normal).flatten(0, 1)
        rows = rows if plan.where is None else rows.index_select(0, plan.where)
        return step.project(rows, config.heads, self.reading.path.teacher)

    def negatives(self, step: Step, path: Path, plan: Plan) -> Tensor:
        """(M,Q) int64 rows at other sites, the same for all rows of a site; its own index: there are none."""
        sites, total = plan.sites, plan.sites.sample.numel()
        every = torch.arange(total, device=sites.sample.device)
        where = every if plan.where is None else plan.where
        own = torch.arange(len(where), device=where.device)
        found = own if plan.weight is None else torch.where(plan.weight > 0, own, len(own))
        row = torch.full_like(every, len(own)).scatter_reduce(0, where, found, "amin")  # a row of each site; M: none
        group = torch.zeros_like(every) if self.config.across else documents(sites, every)
        keys = sites.sample.flatten(), sites.place.flatten()
        tag = f"features.{path.draw}"
        drawn = masking.negatives(group, row < len(own), self.config.negatives, step.rng, tag, *keys)
        chosen = drawn.index_select(0, where)  # (M,Q) sites
        return torch.where(chosen == where[:, None], own[:, None], row[chosen])


def normalize(x: Tensor, how: Normal) -> Tensor:
    """(B,N,D) in float32 to zero mean and unit variance."""
    if how is Normal.none:
        return x
    if how is Normal.layer:
        return F.layer_norm(x.float(), x.shape[-1:])
    return F.instance_norm(x.float().transpose(1, 2)).transpose(1, 2)
