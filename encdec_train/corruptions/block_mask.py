"""Block-wise masking: rectangles of a picture's patches are replaced by the mask vector and predicted.

Bao et al. 2021, "BEiT" (arXiv:2106.08254), algorithm 1, with the bounds of the authors' code (masking_generator.py): a
rectangle that would hide more than what is left to hide, or nothing new, is not taken. In iBOT (Zhou et al. 2022,
arXiv:2111.07832, section 3.1) and DINOv2 some rows stay whole, and of the others more or less is hidden.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from encdec_train.kernels import blocks, masking
from encdec_train.registry import corruptions
from encdec_train.step import Step
from encdec_train.types import Mismatch, Path, Plan, Sites, Spec, Units


@dataclass(kw_only=True)
class BlockMaskConfig:
    ratio: float = 0.4  # share of the sites that is hidden at most
    ratio_min: float | None = None  # rows have shares of their own, uniform from here to `ratio`; none: `ratio`
    chance: float = 1.0  # that anything of a row is hidden
    even: bool = False  # the hidden sites of each row weigh one together; else each weighs one
    smallest: int = 16  # sites of the smallest rectangle
    aspect: float = 0.3  # least ratio of a rectangle's sides
    tries: int = 40  # rectangles that are proposed

    replaces = True

    def count(self, length: int) -> int:
        """Sites of a row that are hidden at most."""
        return round(self.ratio * length)

    def rectangles(self, length: int) -> blocks.Rectangles:
        """What is drawn for rows of so many sites."""
        return blocks.Rectangles(
            count=self.count(length),
            low=self.ratio_min,
            high=self.ratio,
            chance=self.chance,
            smallest=self.smallest,
            tries=self.tries,
        )

    def spec(self, sites: Spec) -> Spec:
        name = "corruption 'block_mask'"
        if not 0 < self.ratio < 1:
            raise Mismatch(f"{name}.ratio: {self.ratio} is not between 0 and 1")
        if self.ratio_min is not None and not 0 <= self.ratio_min <= self.ratio:
            raise Mismatch(f"{name}.ratio_min: {self.ratio_min} is not within 0 to the ratio {self.ratio}")
        if not 0 < self.chance <= 1:
            raise Mismatch(f"{name}.chance: {self.chance} is not in (0, 1]")
        if sites.grid is None or len(sites.grid) != 2:
            raise Mismatch(
                f"{name} hides rectangles of a lattice of two dimensions, the view has {sites.grid or 'none'}"
            )
        if not 1 <= self.smallest <= self.count(math.prod(sites.grid)):
            raise Mismatch(f"{name}.smallest: {self.smallest} is not within 1 to {self.count(math.prod(sites.grid))}")
        if not 0 < self.aspect <= 1:
            raise Mismatch(f"{name}.aspect: {self.aspect} is not in (0, 1]")
        if self.tries < 1:
            raise Mismatch(f"{name}.tries: {self.tries} is below 1")
        return sites


@corruptions.register("block_mask", BlockMaskConfig)
class BlockMask(nn.Module):
    """Rectangles until `ratio` of a row is hidden; where less is, the places in `where` that are left weigh nothing."""

    ratios: Tensor  # of the sides of rectangles

    def __init__(self, config: BlockMaskConfig, sites: Spec) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("ratios", torch.tensor(blocks.ratios(config.aspect)), persistent=False)

    def forward(self, units: Units, sites: Sites, step: Step, path: Path) -> Plan:
        assert sites.grid is not None, "spec() comes first"
        config, (height, width) = self.config, sites.grid
        tag, how = f"block_mask.{path.draw}", config.rectangles(sites.n)
        hidden = blocks.rectangles(sites.sample[:, 0], (height, width), self.ratios, step.rng, tag, how)
        hidden = hidden if sites.fixed is None and sites.valid is None else hidden & sites.open()  # (B,N)
        key = (sites.sample, sites.place, step.rng, tag)
        where, _, weight = masking.choose_sites(hidden, *key, how.count, at_random=False)
        if config.even:
            shares = weight.unflatten(0, (-1, how.count))
            weight = (shares / shares.sum(1, keepdim=True).clamp_min(1)).flatten()
        return Plan(inputs=units, sites=sites, replace=hidden, mask=hidden, where=where, weight=weight)
