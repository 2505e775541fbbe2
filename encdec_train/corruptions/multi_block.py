"""Multi-block: some blocks of a lattice are predicted, each by itself, from what another block holds besides them.

Assran et al. 2023, "Self-Supervised Learning from Images with a Joint-Embedding Predictive Architecture" (I-JEPA,
arXiv:2301.08243), section 3 and figure 4; sizes are drawn as in facebookresearch/ijepa (src/masks/multiblock.py), but
for every block anew. There the context is cut to the smallest of the batch; here it has as many sites as are always
left.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from torch import nn

from encdec_train.kernels import masking
from encdec_train.kernels.blocks import Targets, targets
from encdec_train.registry import corruptions
from encdec_train.step import Step
from encdec_train.types import Mismatch, Path, Plan, Sites, Spec, Units


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

    def drawn(self, length: int) -> Targets:
        """What is drawn for rows of so many sites."""
        return Targets(
            blocks=self.blocks,
            most=self.capacity(length),
            scale=self.scale,
            ratio=self.ratio,
            context=self.context,
        )

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
        assert sites.grid is not None, "spec() comes first"
        config, (height, width) = self.config, sites.grid
        tag, how = f"multi_block.{path.draw}", config.drawn(sites.n)
        where, weight, score = targets(sites.sample[:, 0], (height, width), step.rng, tag, how)
        key = (sites.sample, sites.place, step.rng, f"{tag}.context")
        kept, _, _ = masking.choose_sites(score, *key, config.kept(sites.n), at_random=True)
        keep = kept.unflatten(0, (-1, config.kept(sites.n))) % sites.n
        return Plan(inputs=units, sites=sites, keep=keep, mask=score == 0, where=where, weight=weight)
