"""One linear layer from raw values to model vectors: image patches, frames, nodes, table rows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

import torch.nn.functional as F
from torch import Tensor, nn

from encdec_train.nn.adaptive import time_features
from encdec_train.nn.mask import MaskVector, seat
from encdec_train.nn.norm import Norm, make_norm
from encdec_train.nn.position import sincos
from encdec_train.nn.transformer import init_linear
from encdec_train.registry import embedders
from encdec_train.types import Mismatch, Plan, Sites, Spec, Tokens, Units


class Position(Enum):
    """What marks where a site stands."""

    sincos = "sincos"
    learned = "learned"  # one vector for each place of a document
    none = "none"


@dataclass(kw_only=True)
class LinearEmbedderConfig:
    width: int | None = None  # none: the width of the encoder that reads it
    position: Position = Position.sincos
    norm: Norm = Norm.none  # of what was projected, before positions
    eps: float = 1e-6  # of the norm
    dropout: float = 0.0  # after positions

    def spec(self, view: Spec) -> Spec:
        if view.kind != "values":
            raise Mismatch(f"embedder 'linear' needs values, the view gives {view.kind}")
        if self.position is Position.sincos and not view.coords:
            raise Mismatch("embedder 'linear': position=sincos needs coordinates, the view has none")
        if self.position is Position.learned and not (view.max_len or view.length):
            raise Mismatch("embedder 'linear': position=learned needs rows of bounded length, the view's have no bound")
        if not 0 <= self.dropout < 1:
            raise Mismatch(f"embedder 'linear'.dropout: {self.dropout} is not in [0, 1)")
        width = self.width or view.width
        return replace(view, kind="vectors", width=width, features=width, raw=view)


@embedders.register("linear", LinearEmbedderConfig)
class Linear(nn.Module):
    """Only the kept sites are ever projected."""

    def __init__(self, config: LinearEmbedderConfig, view: Spec, *, mask: bool) -> None:
        super().__init__()
        self.config, width = config, config.spec(view).width
        self.project = nn.Linear(view.width, width)
        init_linear(self.project)
        self.norm = make_norm(config.norm, width, config.eps)
        learned = config.position is Position.learned
        self.positions = nn.Embedding(view.max_len or view.length, width) if learned else None
        if self.positions is not None:
            nn.init.normal_(self.positions.weight, std=0.02)
        self.mask = MaskVector(width) if mask else None

    def sites(self, units: Units) -> Sites:
        return units.sites

    def features(self, units: Units, sites: Sites, keep: Tensor | None) -> Tensor:
        """(B,K or N,D)."""
        return self.norm(self.project(units.at(keep)))

    def place(self, features: Tensor, plan: Plan) -> Tokens:
        x, sites = seat(features, plan, self.mask)
        if self.config.position is Position.sincos:
            assert sites.coords is not None
            x = x + sincos(sites.coords, x.shape[-1])
        elif self.positions is not None:
            x = x + self.positions(sites.place)
        if self.config.dropout:
            x = F.dropout(x, self.config.dropout, self.training)
        cond = None if plan.time is None else time_features(plan.time)
        return Tokens(x=x, sites=sites, cond=cond)
