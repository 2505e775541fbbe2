"""Multi-block: some blocks of a lattice are predicted, each by itself, from what another block holds besides them.

Assran et al. 2023, "Self-Supervised Learning from Images with a Joint-Embedding Predictive Architecture" (I-JEPA,
arXiv:2301.08243), section 3 and figure 4; sizes are drawn as in facebookresearch/ijepa (src/masks/multiblock.py), but
for every block anew. There the context is cut to the smallest of the batch; here it has as many sites as are always
left.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from encdec_train.corruptions.drop import flat
from encdec_train.kernels import masking
from encdec_train.registry import corruptions
from encdec_train.rng import Rng
from encdec_train.step import Step
from encdec_train.types import Mismatch, Path, Plan, Sites, Spec, Units

_LAST = torch.iinfo(torch.int64).max


@dataclass(kw_only=True)
class MultiBlockConfig:
    blocks: int = 4  # G that are predicted; they may overlap
    scale: list[float] = field(default_factory=lambda: [0.15, 0.2])  # their area, as a share of the lattice: from, to
    ratio: list[float] = field(default_factory=lambda: [0.75, 1.5])  # their height over their width: from, to
    context: list[float] = field(default_factory=lambda: [0.85, 1.0])  # area of the square that context is taken from

    def capacity(self, length: int) -> int:
        """Sites of the largest block: rows of `where` that each block has."""
        return max(1, int(length * self.scale[1]))

    def kept(self, length: int) -> int:
        """K: sites that are left even where no two blocks overlap."""
        return length - self.blocks * self.capacity(length)

    def spec(self, sites: Spec) -> Spec:
        name = "corruption 'multi_block'"
        if sites.grid is None or len(sites.grid) != 2:
            raise Mismatch(f"{name} needs a lattice of two dimensions, the view's is {sites.grid}")
        if self.blocks < 1:
            raise Mismatch(f"{name}.blocks: {self.blocks} is below 1")
        for key, top in (("scale", 1.0), ("context", 1.0), ("ratio", float("inf"))):
            span = getattr(self, key)
            if len(span) != 2 or not 0 < span[0] <= span[1] <= top:
                raise Mismatch(f"{name}.{key}: {span} is not a range [from, to] above 0 and up to {top:g}")
        kept = self.kept(sites.length)
        if kept < 1:
            raise Mismatch(f"{name}: {self.blocks} blocks of {self.scale[1]} may leave nothing of {sites.length} sites")
        return replace(sites, rows="kept", length=kept, grid=None)


@corruptions.register("multi_block", MultiBlockConfig)
class MultiBlock(nn.Module):
    """`where` is (B,G,capacity), block by block: a block's sites in their order, then its first one with weight 0.

    Of the context's square, and of the rest where that is too small, K sites outside of all blocks are kept at random.
    """

    def __init__(self, config: MultiBlockConfig, sites: Spec) -> None:
        super().__init__()
        self.config = config

    def forward(self, units: Units, sites: Sites, step: Step, path: Path) -> Plan:
        assert sites.grid is not None
        tag, key = f"multi_block.{path.draw}", sites.sample[:, :1]
        index, real = self.members(sites.grid, step.rng, tag, key)  # (B,G,m)
        where = index.flatten(1)
        mask = torch.zeros_like(sites.sample, dtype=torch.bool).scatter(1, where, True)
        order = (step.rng.bits(tag + ".context", sites.sample, sites.place) >> 2) & (_LAST >> 2)
        worse = (~self.square(sites, step.rng, tag, key)).long() << 61
        kept = self.config.kept(sites.n)
        keep = masking.places(masking.lowest(torch.where(mask, _LAST, order + worse), kept), kept)
        return Plan(
            inputs=units, sites=sites, keep=keep, mask=mask, where=flat(where, sites.n), weight=real.flatten().float()
        )

    def members(self, grid: tuple[int, ...], rng: Rng, tag: str, key: Tensor) -> tuple[Tensor, Tensor]:
        """(B,G,m) sites of each block and whether they are more than fillers."""
        config, rows, columns = self.config, grid[0], grid[1]
        block = torch.arange(config.blocks, device=key.device)

        def draw(what: str, low: float, high: float) -> Tensor:
            return low + (high - low) * rng.uniform(f"{tag}.{what}", key, block)  # (B,G)

        most = config.capacity(rows * columns)
        area, ratio = rows * columns * draw("scale", *config.scale), draw("ratio", *config.ratio)
        height = (area * ratio).sqrt().round().clamp(1, min(rows, most)).long()
        width = (area / ratio).sqrt().round().clamp(1, columns).long().minimum(most // height)
        top = rng.integers(f"{tag}.top", rows - height + 1, key, block)
        left = rng.integers(f"{tag}.left", columns - width + 1, key, block)
        count = torch.arange(most, device=key.device)
        real = count < (height * width)[..., None]
        count = torch.where(real, count, 0)
        down, right = count // width[..., None], count % width[..., None]
        return (top[..., None] + down) * columns + left[..., None] + right, real

    def square(self, sites: Sites, rng: Rng, tag: str, key: Tensor) -> Tensor:
        """(B,N) bool: within the block that context is taken from, as high as wide where the lattice allows it."""
        assert sites.grid is not None
        rows, columns = sites.grid
        low, high = self.config.context
        side = (rows * columns * (low + (high - low) * rng.uniform(f"{tag}.square", key))).sqrt().round().long()
        height, width = side.clamp(1, rows), side.clamp(1, columns)
        top = rng.integers(f"{tag}.square.top", rows - height + 1, key)
        left = rng.integers(f"{tag}.square.left", columns - width + 1, key)
        down, right = sites.place // columns, sites.place % columns
        return (down >= top) & (down < top + height) & (right >= left) & (right < left + width)
