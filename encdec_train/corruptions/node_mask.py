"""Masked nodes: a fixed share of each graph's nodes loses its features and is predicted.

GraphMAE (Hou et al. 2022, arXiv:2205.10803), section 3: most of the chosen nodes get the mask vector, a
small share gets the features of another node of the graph instead, so that the encoder cannot rely on the
mask vector.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from encdec_train.registry import corruptions
from encdec_train.rng import Rng
from encdec_train.step import Step
from encdec_train.types import Mismatch, Path, Plan, Sites, Spec, Units, gather_rows


@dataclass(kw_only=True)
class NodeMaskConfig:
    replaces: ClassVar[bool] = True
    ratio: float = 0.5  # share of each graph's nodes that is masked and predicted
    swap: float = 0.0  # share of these that gets another node's features, not the mask vector

    def spec(self, sites: Spec) -> Spec:
        if not 0 < self.ratio < 1:
            raise Mismatch(f"corruption 'node_mask'.ratio: {self.ratio} is not between 0 and 1")
        if not 0 <= self.swap < 1:
            raise Mismatch(f"corruption 'node_mask'.swap: {self.swap} is not in [0, 1)")
        if self.swap and (sites.raw is None or sites.raw.kind != "values"):
            raise Mismatch("corruption 'node_mask': swap needs a view of values")
        return sites


@corruptions.register("node_mask", NodeMaskConfig)
class NodeMask(nn.Module):
    """round(ratio * n) of the n open nodes of each row; the rest of the fixed capacity has weight 0.

    Whether a masked node is swapped is drawn for each node on its own: the share holds for small graphs too.
    Real nodes stand before padded ones in a row.
    """

    def __init__(self, config: NodeMaskConfig, sites: Spec) -> None:
        super().__init__()
        self.config = config

    def forward(self, units: Units, sites: Sites, step: Step, path: Path) -> Plan:
        tag = f"node_mask.{path.draw}"
        chosen, counted = self.choose(sites, step.rng, tag)  # (B,M), (B,M)
        mask = torch.zeros_like(sites.sample, dtype=torch.bool).scatter(1, chosen, counted)
        inputs, swapped = self.swap(units, sites, mask, step.rng, tag)
        rows = torch.arange(sites.rows, device=chosen.device)[:, None]
        return Plan(
            inputs=inputs,
            sites=sites,
            replace=mask if swapped is None else mask & ~swapped,
            mask=mask,
            where=(rows * sites.n + chosen).flatten(),
            weight=counted.flatten().float(),
        )

    def choose(self, sites: Sites, rng: Rng, tag: str) -> tuple[Tensor, Tensor]:
        """(B,M) nodes in random order, open ones first, and which of them count."""
        is_open = sites.open()
        bits = rng.bits(tag, sites.sample, sites.place)
        order = bits.masked_fill(~is_open, torch.iinfo(torch.int64).max).argsort(dim=1, stable=True)
        count = self.rounded(is_open.sum(1, keepdim=True))  # (B,1)
        capacity = int(sites.n * self.config.ratio + 0.5)
        ranks = torch.arange(capacity, device=order.device)
        return order[:, :capacity], ranks < count

    def rounded(self, nodes: Tensor) -> Tensor:
        """int64: the number of masked nodes of so many open ones, halves rounded up."""
        return (nodes.double() * self.config.ratio + 0.5).long()

    def swap(self, units: Units, sites: Sites, mask: Tensor, rng: Rng, tag: str) -> tuple[Units, Tensor | None]:
        """The view with some masked nodes' values taken from a random real node, and which (B,N)."""
        if not self.config.swap:
            return units, None
        key = (sites.sample, sites.place)
        swapped = mask & (rng.uniform(f"{tag}.swap", *key) < self.config.swap)
        donor = rng.integers(f"{tag}.donor", sites.real().sum(1, keepdim=True), *key)  # (B,N)
        values = torch.where(swapped[..., None], gather_rows(units.values, donor), units.values)
        return replace(units, values=values), swapped
