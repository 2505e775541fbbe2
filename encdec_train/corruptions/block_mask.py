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

from encdec_train.corruptions.drop import flat
from encdec_train.kernels import masking
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

    def __init__(self, config: BlockMaskConfig, sites: Spec) -> None:
        super().__init__()
        self.config = config

    def forward(self, units: Units, sites: Sites, step: Step, path: Path) -> Plan:
        count = self.config.count(sites.n)
        hidden = self.hidden(sites, step, f"block_mask.{path.draw}") & sites.open()  # (B,N)
        first = masking.places(hidden, count)  # hidden ones in their order, then fillers
        weight = hidden.gather(1, first).float()  # (B,count)
        if self.config.even:
            weight = weight / weight.sum(1, keepdim=True).clamp_min(1)
        return Plan(
            inputs=units,
            sites=sites,
            replace=hidden,
            mask=hidden,
            where=flat(first, sites.n),
            weight=weight.flatten(),
        )

    def hidden(self, sites: Sites, step: Step, tag: str) -> Tensor:
        """(B,N) bool: the union of the rectangles that were taken."""
        assert sites.grid is not None, "spec() comes first"
        height, width = sites.grid
        down = torch.arange(height, device=sites.sample.device)[None, :, None]
        right = torch.arange(width, device=sites.sample.device)[None, None, :]
        hidden = torch.zeros(sites.rows, height, width, dtype=torch.bool, device=sites.sample.device)
        most, chances = self.most(sites, step, tag), self.chances(sites, step, tag)
        for turn in range(self.config.tries):
            left = most - hidden.sum((1, 2))  # (B,)
            top, start, tall, wide = self.propose(sites.grid, left, *(chance[:, turn] for chance in chances))
            block = (down >= top) & (down < top + tall) & (right >= start) & (right < start + wide)  # (B,H,W)
            new = (block & ~hidden).sum((1, 2))
            taken = (new > 0) & (new <= left) & (tall < height).flatten() & (wide < width).flatten()
            hidden = hidden | (block & taken[:, None, None])
        return hidden.flatten(1)

    def most(self, sites: Sites, step: Step, tag: str) -> Tensor:
        """(B,) int64: how many sites of each row are hidden at most."""
        config, key = self.config, sites.sample[:, 0]
        most = torch.full_like(key, config.count(sites.n))
        if config.ratio_min is not None:
            share = config.ratio_min + (config.ratio - config.ratio_min) * step.rng.uniform(f"{tag}.ratio", key)
            most = (share * sites.n).long()
        if config.chance < 1:
            most = most * (step.rng.uniform(f"{tag}.chance", key) < config.chance)
        return most

    def chances(self, sites: Sites, step: Step, tag: str) -> tuple[Tensor, ...]:
        """What `propose` draws with, for all turns: (B,tries) float each."""
        turn = torch.arange(self.config.tries, device=sites.sample.device)
        area, aspect, top, left = (
            step.rng.uniform(f"{tag}.{what}", sites.sample[:, :1], turn) for what in ("area", "aspect", "top", "left")
        )
        return area, ((2 * aspect - 1) * -math.log(self.config.aspect)).exp(), top, left

    def propose(
        self, grid: tuple[int, ...], left: Tensor, area: Tensor, aspect: Tensor, down: Tensor, right: Tensor
    ) -> tuple[Tensor, ...]:
        """First row and column, height and width of a rectangle for each row, (B,1,1) int64 each."""
        area = self.config.smallest + area * (left - self.config.smallest)
        tall = (area * aspect).clamp_min(0).sqrt().round().long().clamp_min(1)
        wide = (area / aspect).clamp_min(0).sqrt().round().long().clamp_min(1)
        top = (down * (grid[0] - tall + 1)).floor().long()
        start = (right * (grid[1] - wide + 1)).floor().long()
        return tuple(x[:, None, None] for x in (top, start, tall, wide))
