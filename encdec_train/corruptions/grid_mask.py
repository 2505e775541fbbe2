"""Grid mask: equal blocks of a lattice get the mask vector and are predicted; the encoder sees all sites.

Xie et al. 2022, "SimMIM: A Simple Framework for Masked Image Modeling" (arXiv:2111.09886), section 3.2, "patch-aligned
random masking": blocks may be larger than the encoder's patches.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import nn

from encdec_train.corruptions.drop import flat
from encdec_train.nn.lattice import block_count, check_blocks, split_blocks
from encdec_train.registry import corruptions
from encdec_train.step import Step
from encdec_train.types import Mismatch, Path, Plan, Sites, Spec, Units


@dataclass(kw_only=True)
class GridMaskConfig:
    replaces: ClassVar[bool] = True
    ratio: float = 0.6  # share of the blocks that is hidden and predicted
    block: list[int] = field(default_factory=list)  # sides of a block; 0: the whole axis; empty: single sites

    def hidden(self, count: int) -> int:
        """Of so many blocks, rounded up as in SimMIM's code."""
        return count - int(count * (1 - self.ratio))

    def spec(self, sites: Spec) -> Spec:
        if not 0 < self.ratio < 1:
            raise Mismatch(f"corruption 'grid_mask'.ratio: {self.ratio} is not between 0 and 1")
        if not sites.length:
            raise Mismatch("corruption 'grid_mask' needs rows of one length, the view's vary")
        check_blocks("corruption 'grid_mask'", sites.grid, self.block)
        count = block_count(sites.length, sites.grid, self.block)
        if self.hidden(count) == count:
            raise Mismatch(f"corruption 'grid_mask'.ratio: {self.ratio} of {count} blocks leaves none")
        return sites


@corruptions.register("grid_mask", GridMaskConfig)
class GridMask(nn.Module):
    """The same number of blocks of every row; padded sites have no weight."""

    def __init__(self, config: GridMaskConfig, sites: Spec) -> None:
        super().__init__()
        self.config = config

    def forward(self, units: Units, sites: Sites, step: Step, path: Path) -> Plan:
        hidden = self.config.hidden(block_count(sites.n, sites.grid, self.config.block))
        lost, _ = split_blocks(sites, self.config.block, step.rng, f"grid_mask.{path.draw}", hidden, 0)  # (B,M/B)
        mask = torch.zeros_like(sites.sample, dtype=torch.bool).scatter(1, lost, True)
        weight = None if sites.valid is None else sites.valid.gather(1, lost).flatten().float()
        return Plan(inputs=units, sites=sites, replace=mask, mask=mask, where=flat(lost, sites.n), weight=weight)
