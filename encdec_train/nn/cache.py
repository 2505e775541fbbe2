"""What sequential parts keep of the sites that they have read, so that each new site is read alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from encdec_train.types import Sites, map_tensors


class Cache:
    """Keys and values of attention, states of recurrent layers: each layer's own, one entry for every row."""

    def __init__(self) -> None:
        self.kept: dict[nn.Module, Any] = {}

    def grow(self, layer: nn.Module, k: Tensor, v: Tensor, sites: Sites) -> tuple[Tensor, Tensor, Sites]:
        """Keys and values (B,H,n,d) of new sites, behind those that the layer has kept; all of them are kept."""
        if layer in self.kept:
            old_k, old_v, old = self.kept[layer]
            k, v, sites = torch.cat([old_k, k], 2), torch.cat([old_v, v], 2), behind(old, sites)
        self.kept[layer] = (k, v, sites)
        return k, v, sites

    def reorder(self, rows: Tensor) -> None:
        """Row i becomes what row `rows[i]` was; rows may be left out and may come several times."""
        self.kept = map_tensors(self.kept, lambda kept: kept.index_select(0, rows))


def behind(old: Sites, new: Sites) -> Sites:
    """The sites of both: who they are, where they stand and which of them are real."""
    real = None if old.valid is None and new.valid is None else torch.cat([old.real(), new.real()], 1)
    return replace(
        Sites(sample=torch.cat([old.sample, new.sample], 1), place=torch.cat([old.place, new.place], 1)),
        valid=real,
        max_len=new.max_len,
        whole=False,
    )
