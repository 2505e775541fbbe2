"""Where a site stands and nothing else: for networks that are a picture, a sound or a shape themselves.

Each axis runs from -1; the longest ends at 1 (Sitzmann et al. 2020, SIREN, arXiv:2006.09661, section 4.1; COIN, Dupont
et al. 2021, arXiv:2103.03123, section 2).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor, nn

from encdec_train.nn.mask import seat
from encdec_train.registry import embedders
from encdec_train.types import Mismatch, Plan, Sites, Spec, Tokens, Units, gather_rows


@dataclass(kw_only=True)
class CoordinatesConfig:
    def spec(self, view: Spec) -> Spec:
        if view.grid is None or max(view.grid) < 2:
            raise Mismatch(f"embedder 'coordinates' needs sites on a lattice, the view has {view.grid or 'none'}")
        return replace(view, kind="vectors", width=view.coords, features=view.coords, raw=view)


@embedders.register("coordinates", CoordinatesConfig)
class Coordinates(nn.Module):
    """(B,N,C) values are never read; (B,N,P) coordinates are the vectors."""

    def __init__(self, config: CoordinatesConfig, view: Spec, *, mask: bool) -> None:
        super().__init__()
        assert view.grid is not None, "spec refuses a view without a lattice"
        self.last = max(view.grid) - 1

    def sites(self, units: Units) -> Sites:
        return units.sites

    def features(self, units: Units, sites: Sites, keep: Tensor | None) -> Tensor:
        """(B,K or N,P)."""
        assert sites.coords is not None, "spec refuses a view without a lattice"
        coords = sites.coords if keep is None else gather_rows(sites.coords, keep)
        return 2 * coords / self.last - 1

    def place(self, features: Tensor, plan: Plan) -> Tokens:
        x, sites = seat(features, plan, None)
        return Tokens(x=x, sites=sites)
