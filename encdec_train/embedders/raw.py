"""The values themselves: for encoders whose first layer is the projection (graph and convolutional networks).

The mask vector stands among the raw features, as GraphMAE's [MASK] token does (Hou et al. 2022,
arXiv:2205.10803, section 3), and starts at zero as in its code.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor, nn

from encdec_train.nn.mask import MaskVector, seat
from encdec_train.nn.standard import Standard
from encdec_train.registry import embedders
from encdec_train.types import Mismatch, Plan, Sites, Spec, Tokens, Units, gather_rows


@dataclass(kw_only=True)
class RawEmbedderConfig:
    standardize: bool = False  # each value by the mean and deviation of all that training has shown so far

    def spec(self, view: Spec) -> Spec:
        if view.kind != "values":
            raise Mismatch(f"embedder 'raw' needs values, the view gives {view.kind}")
        return replace(view, kind="vectors", features=view.width, raw=view)


@embedders.register("raw", RawEmbedderConfig)
class Raw(nn.Module):
    """(B,N,C) values are (B,N,C) vectors."""

    def __init__(self, config: RawEmbedderConfig, view: Spec, *, mask: bool) -> None:
        super().__init__()
        self.mask = MaskVector(view.width, std=0.0) if mask else None
        self.standard = Standard(view.width) if config.standardize else None

    def sites(self, units: Units) -> Sites:
        return units.sites

    def features(self, units: Units, sites: Sites, keep: Tensor | None) -> Tensor:
        """(B,K or N,C)."""
        if self.standard is None:
            return units.at(keep).float()
        values = self.standard(units.values.float(), units.sites.real())
        return values if keep is None else gather_rows(values, keep)

    def place(self, features: Tensor, plan: Plan) -> Tokens:
        x, sites = seat(features, plan, self.mask)
        return Tokens(x=x, sites=sites)
