"""A small PointNet: each group of points becomes one vector, whatever their order; its middle gives the position.

Qi et al. 2017 (PointNet, arXiv:1612.00593); the sizes are those of Point-MAE (Pang et al. 2022, arXiv:2203.06604,
section 3.2; the authors' models/Point_MAE.py): two layers, the maximum over the group beside each point, two layers,
the maximum again. Only kept groups are embedded, so only they count in the batch norms.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encdec_train.nn.mask import MaskVector, seat
from encdec_train.nn.norm import Norm, make_norm
from encdec_train.nn.position import PointPosition
from encdec_train.nn.transformer import init_linear
from encdec_train.registry import embedders
from encdec_train.types import Mismatch, Plan, Sites, Spec, Tokens, Units


@dataclass(kw_only=True)
class PointnetConfig:
    width: int | None = None  # none: the width of the encoder that reads it
    hidden: list[int] = field(default_factory=lambda: [128, 256, 512])  # of the first, second and third layer
    position_hidden: int = 128  # width inside the layers that read the middle of a group
    init_std: float | None = None  # of linear weights; none: Xavier uniform

    def spec(self, view: Spec) -> Spec:
        if view.kind != "values" or not view.coords or view.width % view.coords:
            raise Mismatch(f"embedder 'pointnet' needs groups of points around coordinates, the view gives {view.kind}")
        if len(self.hidden) != 3 or min(*self.hidden, self.position_hidden) < 1:
            raise Mismatch(f"embedder 'pointnet'.hidden: {self.hidden} are not the widths of three layers")
        width = self.width or view.width
        return replace(view, kind="vectors", width=width, features=width, raw=view)


@embedders.register("pointnet", PointnetConfig)
class Pointnet(nn.Module):
    """(B,N,G*P) points about their middles, and these as coordinates, to (B,K or N,D)."""

    def __init__(self, config: PointnetConfig, view: Spec, *, mask: bool) -> None:
        super().__init__()
        self.dims, width = view.coords, config.spec(view).width
        first, second, third = config.hidden
        self.point = Layers(view.coords, first, second)
        self.group = Layers(2 * second, third, width)
        self.position = PointPosition(view.coords, config.position_hidden, width)
        init_linear(self, config.init_std)
        self.mask = MaskVector(width) if mask else None

    def sites(self, units: Units) -> Sites:
        return units.sites

    def features(self, units: Units, sites: Sites, keep: Tensor | None) -> Tensor:
        """(B,K or N,D)."""
        x = self.point(units.at(keep).unflatten(-1, (-1, self.dims)))  # (B,K,G,C)
        whole = x.amax(2, keepdim=True).expand_as(x)
        found: Tensor = self.group(torch.cat([whole, x], -1)).amax(2)
        return found

    def place(self, features: Tensor, plan: Plan) -> Tokens:
        x, sites = seat(features, plan, self.mask)
        position = self.position(sites.coords).to(x.dtype)
        return Tokens(x=x + position, sites=sites, position=position)


class Layers(nn.Module):
    """Two linear layers on the last axis, batch norm and ReLU between them."""

    def __init__(self, width: int, hidden: int, out: int) -> None:
        super().__init__()
        self.up, self.norm, self.down = (
            nn.Linear(width, hidden),
            make_norm(Norm.batch, hidden, 1e-5),
            nn.Linear(hidden, out),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(...,width) -> (...,out)."""
        found: Tensor = self.down(F.relu(self.norm(self.up(x))))
        return found
