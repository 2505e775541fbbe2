"""A table of vectors for ids: words, codes, atoms, categories.

With learned positions, token types and a norm it is BERT's input (Devlin et al. 2019, figure 2); with none, T5's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encdec_train.nn.mask import MaskVector, seat
from encdec_train.nn.norm import Norm, make_norm
from encdec_train.nn.position import sincos
from encdec_train.registry import embedders
from encdec_train.types import Mismatch, Plan, Sites, Spec, Tokens, Units


class IdsPosition(Enum):
    """What marks where a token stands in its document."""

    none = "none"  # left to the encoder (relative bias, rotation)
    learned = "learned"  # one vector for each place
    sincos = "sincos"  # Vaswani et al. 2017, section 3.5


@dataclass(kw_only=True)
class IdsConfig:
    width: int | None = None  # none: the width of the encoder that reads it
    shares: str | None = None  # another embedder, whose token table is used here too
    scale: bool = False  # tokens times the square root of the width (Vaswani et al. 2017, section 3.4)
    position: IdsPosition = IdsPosition.none
    axes: int = 1  # learned tables: of the place, or where a corruption gives `coords`, of each coordinate
    positions: int | None = None  # places that have a learned vector; none: as many as a document can have
    types: int = 0  # rows of a token type table (2 in BERT), whose first is added everywhere
    norm: Norm = Norm.none  # after the sum
    eps: float = 1e-12  # of the norm
    norm_bias: bool = True  # in the norm
    dropout: float = 0.0  # after the norm
    init_std: float = 0.02  # of all tables

    refers: ClassVar[dict[str, str]] = {"shares": "embedder"}

    def places(self, view: Spec) -> int:
        """Rows of the learned position table."""
        return self.positions or view.max_len or view.length

    def spec(self, view: Spec) -> Spec:
        if view.kind != "ids":
            raise Mismatch(f"embedder 'ids' needs ids, the view gives {view.kind}")
        if not 0 <= self.dropout < 1:
            raise Mismatch(f"embedder 'ids'.dropout: {self.dropout} is not in [0, 1)")
        if self.axes < 1 or (self.axes > 1 and self.position is not IdsPosition.learned):
            raise Mismatch(f"embedder 'ids'.axes: {self.axes} tables of positions, with position={self.position.value}")
        if self.types < 0:
            raise Mismatch(f"embedder 'ids'.types: {self.types} is below 0")
        self._check_places(view)
        width = self.width or view.width
        return replace(view, kind="vectors", width=width, features=width, raw=view)

    def _check_places(self, view: Spec) -> None:
        if self.position is not IdsPosition.learned:
            return
        needed, given = view.max_len or view.length, self.places(view)
        if not given:
            raise Mismatch("embedder 'ids'.positions: the view's documents have no bound, so give a number")
        if needed > given:
            raise Mismatch(f"embedder 'ids'.positions: {given}, but the view's documents have {needed} places")


@embedders.register("ids", IdsConfig)
class Ids(nn.Module):
    """Ids (B,N) -> (B,K or N,D). `table` is what a tied head reads."""

    def __init__(self, config: IdsConfig, view: Spec, shared: nn.Module | None = None, *, mask: bool) -> None:
        super().__init__()
        self.config, width = config, config.spec(view).width
        learned = config.position is IdsPosition.learned
        if shared is None:
            self.table = nn.Embedding(view.width, width)
        else:
            # stays the other's: neither registered nor saved
            self.__dict__["table"] = _table(shared, view.width, width)
        self.positions = nn.Embedding(config.places(view), width) if learned else None
        self.axes = nn.ModuleList(nn.Embedding(config.places(view), width) for _ in range(config.axes - 1))
        self.types = nn.Embedding(config.types, width) if config.types else None
        self.norm = make_norm(config.norm, width, config.eps, bias=config.norm_bias)
        own = self.table if shared is None else None
        for table in (own, self.positions, *self.axes, self.types):
            if table is not None:
                nn.init.normal_(table.weight, std=config.init_std)
        self.mask = MaskVector(width, config.init_std) if mask else None

    @property
    def places(self) -> int | None:
        """Places of a row that can be told apart; none: any."""
        return None if self.positions is None else self.positions.num_embeddings

    def sites(self, units: Units) -> Sites:
        return units.sites

    def features(self, units: Units, sites: Sites, keep: Tensor | None) -> Tensor:
        """(B,K or N,D)."""
        return self.table(units.at(keep))

    def place(self, features: Tensor, plan: Plan) -> Tokens:
        x, sites = seat(features, plan, self.mask)
        if self.config.scale:
            x = x * x.shape[-1] ** 0.5
        if self.positions is not None:
            x = x + self._learned(self.positions, sites)
        elif self.config.position is IdsPosition.sincos:
            x = x + sincos(sites.place[..., None], x.shape[-1]).to(x.dtype)
        if self.types is not None:
            x = x + self.types.weight[0]
        x = self.norm(x)
        if self.config.dropout:
            x = F.dropout(x, self.config.dropout, self.training)
        return Tokens(x=x, sites=sites)

    def _learned(self, positions: nn.Embedding, sites: Sites) -> Tensor:
        """(B,K or N,D): the place's vector. With several axes those of the coordinates, or of the place and zeros."""
        if not self.axes:
            return positions(sites.place)
        zeros = [torch.zeros_like(sites.place)] * len(self.axes)
        found = [sites.place, *zeros] if sites.coords is None else sites.coords.long().unbind(-1)
        x = positions(found[0])
        for table, at in zip(self.axes, found[1:], strict=True):
            x = x + table(at)
        return x


def _table(other: nn.Module, ids: int, width: int) -> nn.Embedding:
    """The table of another embedder, if it suits."""
    table = getattr(other, "table", None)
    if not isinstance(table, nn.Embedding) or table.weight.shape != (ids, width):
        found = tuple(table.weight.shape) if isinstance(table, nn.Embedding) else "no table"
        raise Mismatch(f"embedder 'ids'.shares: a table of {(ids, width)} is needed, the other has {found}")
    return table
