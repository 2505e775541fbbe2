"""The codes that the quantiser of another path gives the same sites.

BEiT (Bao et al. 2021, arXiv:2106.08254, section 2.1): visual tokens of a tokenizer that was trained before.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import nn

from encdec_train.registry import targets
from encdec_train.step import Step
from encdec_train.types import Goal, Mismatch, Path, Plan, Reading, Spec


@dataclass(kw_only=True)
class CodesConfig:
    path: str = "tokenizer"  # ends in a bottleneck that quantises every site
    book: int = 0  # which of its code books, where it has several

    def spec(self, sites: Spec, reading: Reading) -> Spec:
        name, read = "target 'codes'", reading.spec
        if not read.codes:
            raise Mismatch(f"{name}: path '{self.path}' ends in no quantiser, so it has no codes")
        if sites.length and read.length and sites.length != read.length:
            raise Mismatch(f"{name}: path '{self.path}' gives {read.length} codes a row, the view has {sites.length}")
        return replace(sites, kind="ids", width=read.codes, raw=None)


@targets.register("codes", CodesConfig)
class Codes(nn.Module):
    """(M,) int64 codes at the plan's `where`."""

    def __init__(self, config: CodesConfig, sites: Spec, reading: Reading) -> None:
        super().__init__()
        self.config, self.reading = config, reading

    @torch.no_grad()
    def forward(self, step: Step, path: Path, plan: Plan) -> Goal:
        codes = step.read(self.reading).codes
        assert codes is not None, "the build refuses a path without a quantiser"
        ids = codes[..., self.config.book].flatten()
        return Goal(values=ids if plan.where is None else ids[plan.where], weight=plan.weight)
