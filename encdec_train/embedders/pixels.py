"""Raw values as they are: the input of convolutional encoders, which bring their own first layer."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor, nn

from encdec_train.nn.mask import MaskVector
from encdec_train.registry import embedders
from encdec_train.types import Mismatch, Plan, Sites, Spec, Tokens, Units, gather_rows


@dataclass(kw_only=True)
class PixelsConfig:
    def spec(self, view: Spec) -> Spec:
        if view.kind != "values":
            raise Mismatch(f"embedder 'pixels' needs values, the view gives {view.kind}")
        return replace(view, kind="vectors", features=view.width, raw=view)


@embedders.register("pixels", PixelsConfig)
class Pixels(nn.Module):
    """(B,N,C) values become vectors of width C on the same lattice. The one parameter is the mask vector."""

    def __init__(self, config: PixelsConfig, view: Spec, *, mask: bool) -> None:
        super().__init__()
        self.mask = MaskVector(view.width) if mask else None

    def sites(self, units: Units) -> Sites:
        return units.sites

    def features(self, units: Units, sites: Sites, keep: Tensor | None) -> Tensor:
        """(B,K or N,C)."""
        return units.values if keep is None else gather_rows(units.values, keep)

    def place(self, features: Tensor, plan: Plan) -> Tokens:
        x, sites = features, plan.sites
        if plan.replace is not None and self.mask is not None:
            x = self.mask(x, plan.replace)
        if plan.keep is not None:
            sites = sites.take(plan.keep)
        return Tokens(x=x, sites=sites)
