"""Random drop: a fixed share of the sites is taken away, the rest is all that the encoder ever sees.

He et al. 2022, "Masked Autoencoders Are Scalable Vision Learners" (arXiv:2111.06377), section 3, "Masking". Blocks that
span all of time are the tubes of VideoMAE (Tong et al. 2022, arXiv:2203.12602); that only a part of what
was dropped is predicted is CrossMAE's (Fu et al. 2024, arXiv:2401.14391). For convolutions, which need the lattice,
what is dropped leaves a hole in it (SparK, Tian et al. 2023, arXiv:2301.03580, section 3).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from encdec_train.kernels import masking
from encdec_train.nn.lattice import block_count, check_blocks, split_blocks
from encdec_train.registry import corruptions
from encdec_train.step import Step
from encdec_train.types import Mismatch, Path, Plan, Sites, Spec, Units


@dataclass(kw_only=True)
class DropConfig:
    ratio: float = 0.75  # share of the sites that is dropped
    block: list[int] = field(default_factory=list)  # sides of blocks of the lattice that are dropped or kept whole;
    # 0: the whole axis; empty: every site by itself
    predict: float = 1.0  # share of the dropped sites that is predicted, drawn anew for each row
    hollow: bool = False  # dropped sites stay where they are, but empty and not valid, so that the lattice stands

    def kept(self, length: int) -> int:
        """K of N, rounded down as in MAE's code."""
        return int(length * (1 - self.ratio))

    def predicted(self, lost: int) -> int:
        """Of so many dropped ones."""
        return round(lost * self.predict)

    def spec(self, sites: Spec) -> Spec:
        if not 0 < self.ratio < 1:
            raise Mismatch(f"corruption 'drop'.ratio: {self.ratio} is not between 0 and 1")
        if not sites.length:
            raise Mismatch("corruption 'drop' needs rows of one length, the view's vary")
        check_blocks("corruption 'drop'", sites.grid, self.block)
        count = block_count(sites.length, sites.grid, self.block)
        kept = self.kept(count)
        if not kept:
            what = "blocks" if self.block else "sites"
            raise Mismatch(f"corruption 'drop'.ratio: {self.ratio} of {count} {what} keeps none")
        if not 0 < self.predict <= 1 or not self.predicted(count - kept):
            raise Mismatch(f"corruption 'drop'.predict: {self.predict} of {count - kept} is not some or all of them")
        if self.hollow:
            return self._hollow(sites)
        return replace(sites, rows="kept", length=kept * sites.length // count, grid=None)

    def _hollow(self, sites: Spec) -> Spec:
        raw = sites.raw
        packed = sites.docs or 0 < sites.max_len < sites.length
        if raw is None or raw.kind != "values" or raw.length != sites.length or packed:
            raise Mismatch("corruption 'drop'.hollow empties values: it needs one row of them for every site, unpacked")
        return sites


@corruptions.register("drop", DropConfig)
class Drop(nn.Module):
    """Keeps K sites of each row, in their order; those of the other N - K that are predicted come in theirs."""

    def __init__(self, config: DropConfig, sites: Spec) -> None:
        super().__init__()
        self.config = config

    def forward(self, units: Units, sites: Sites, step: Step, path: Path) -> Plan:
        config = self.config
        count = block_count(sites.n, sites.grid, config.block)
        kept = config.kept(count)
        tag, predicted = f"drop.{path.draw}", config.predicted(count - kept)
        if self.takes(units, sites):
            key = (sites.sample, sites.place, step.rng, tag)
            keep, lost, mask, values = masking.keep_values(units.values, *key, kept, predicted)
            units = replace(units, kept=values)
        else:
            keep, lost = split_blocks(sites, config.block, step.rng, tag, kept, predicted)
            mask = torch.zeros_like(sites.sample, dtype=torch.bool).scatter(1, lost, True)
        weight = None if sites.valid is None else sites.valid.gather(1, lost).flatten().float()
        whole = Plan(inputs=units, sites=sites, keep=keep, mask=mask, where=flat(lost, sites.n), weight=weight)
        return hollow(whole) if self.config.hollow else whole

    def takes(self, units: Units, sites: Sites) -> bool:
        """Whether values are taken along with the draw: rows of them, one for every site, that are drawn one by one."""
        given = units.values
        return not self.config.block and not self.config.hollow and given.dim() == 3 and given.shape[1] == sites.n


def hollow(plan: Plan) -> Plan:
    """All sites in place of the kept ones; the others are not valid, and what the encoder may see of them is zero."""
    assert plan.keep is not None
    kept = torch.zeros_like(plan.sites.sample, dtype=torch.bool).scatter(1, plan.keep, True)
    valid = kept & plan.sites.real()
    units = plan.inputs
    inputs = replace(units, values=units.values * valid[..., None], sites=replace(units.sites, valid=valid))
    return replace(plan, inputs=inputs, sites=replace(plan.sites, valid=valid), keep=None)


def flat(index: Tensor, n: int) -> Tensor:
    """(B,M) site indices within rows -> (B*M,) indices into the flat B*N."""
    rows = torch.arange(index.shape[0], device=index.device)[:, None]
    return (rows * n + index).flatten()
