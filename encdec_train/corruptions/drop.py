"""Random drop: a fixed share of the sites is taken away, the rest is all that the encoder ever sees.

He et al. 2022, "Masked Autoencoders Are Scalable Vision Learners" (arXiv:2111.06377), section 3, "Masking".
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from encdec_train.registry import corruptions
from encdec_train.step import Step
from encdec_train.types import Mismatch, Path, Plan, Sites, Spec, Units


@dataclass(kw_only=True)
class DropConfig:
    ratio: float = 0.75  # share of the sites that is dropped and predicted

    def kept(self, length: int) -> int:
        """K of N, rounded down as in MAE's code."""
        return int(length * (1 - self.ratio))

    def spec(self, sites: Spec) -> Spec:
        if not 0 < self.ratio < 1:
            raise Mismatch(f"corruption 'drop'.ratio: {self.ratio} is not between 0 and 1")
        if not sites.length:
            raise Mismatch("corruption 'drop' needs rows of one length, the view's vary")
        if not self.kept(sites.length):
            raise Mismatch(f"corruption 'drop'.ratio: {self.ratio} of {sites.length} sites keeps none")
        return replace(sites, rows="kept", length=self.kept(sites.length), grid=None)


@corruptions.register("drop", DropConfig)
class Drop(nn.Module):
    """Keeps K sites of each row, in their order; the other N - K are predicted, in theirs."""

    def __init__(self, config: DropConfig, sites: Spec) -> None:
        super().__init__()
        self.config = config

    def forward(self, units: Units, sites: Sites, step: Step, path: Path) -> Plan:
        kept = self.config.kept(sites.n)
        order = step.rng.order(f"drop.{path.draw}", sites.sample, sites.place)  # (B,N)
        keep = order[:, :kept].sort(1).values
        lost = order[:, kept:].sort(1).values
        mask = torch.ones_like(sites.sample, dtype=torch.bool).scatter(1, keep, False)
        weight = None if sites.valid is None else sites.valid.gather(1, lost).flatten().float()
        return Plan(inputs=units, sites=sites, keep=keep, mask=mask, where=flat(lost, sites.n), weight=weight)


def flat(index: Tensor, n: int) -> Tensor:
    """(B,M) site indices within rows -> (B*M,) indices into the flat B*N."""
    rows = torch.arange(index.shape[0], device=index.device)[:, None]
    return (rows * n + index).flatten()
