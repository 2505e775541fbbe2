"""Gated recurrent units over the sites, from left to right and, if wanted, from right to left.

Cho et al. 2014 (arXiv:1406.1078), in torch's form of the gates; both ways as in Bahdanau et al. 2015 (arXiv:1409.0473),
section 3.2: a state says what stands around its site.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from encdec_train.nn.cache import Cache
from encdec_train.registry import encoders
from encdec_train.types import Attend, Layer, Mismatch, Sites, Spec, Tokens, gather_rows


@dataclass(kw_only=True)
class GruConfig:
    width: int = 512  # of a state; both directions together
    depth: int = 1  # layers
    both: bool = True  # half of the width reads from right to left

    def spec(self, upstream: Spec) -> Spec:
        if upstream.kind != "vectors" or upstream.prefix:
            raise Mismatch("encoder 'gru' needs vectors without prefix tokens")
        if self.both and upstream.ahead:
            raise Mismatch("encoder 'gru' reads from right to left what is to be predicted: set both=false")
        if self.width < 1 or self.depth < 1 or (self.both and self.width % 2):
            raise Mismatch(f"encoder 'gru': {self.depth} layers of width {self.width} are not possible")
        layers = (Layer(self.width),) * self.depth
        return replace(upstream, width=self.width, edges=False, layers=layers)


@encoders.register("gru", GruConfig)
class Gru(nn.Module):
    """(B,N,E) -> (B,N,width). Padding stands at the end of a row and is not read."""

    def __init__(self, config: GruConfig, upstream: Spec) -> None:
        super().__init__()
        self.config, self.width = config, config.width
        hidden = config.width // 2 if config.both else config.width
        widths = [upstream.width] + [config.width] * (config.depth - 1)
        self.ahead = nn.ModuleList(nn.GRU(width, hidden, batch_first=True) for width in widths)
        self.back = nn.ModuleList(nn.GRU(width, hidden, batch_first=True) for width in widths if config.both)

    @property
    def keeps(self) -> bool:
        """Whether it can go on with a row by a cache."""
        return not self.config.both

    def forward(self, tokens: Tokens, attend: Attend | None = None, cache: Cache | None = None) -> Tokens:
        if tokens.sites.doc is not None:
            raise Mismatch("encoder 'gru' reads one document in a row, the rows are packed")
        if attend is not None and (self.config.both or not attend.only_causal):
            raise Mismatch(
                "encoder 'gru' reads a row from end to end: the corruption's attention pattern is not its own"
            )
        x, turn = tokens.x, turned(tokens.sites) if self.config.both else None
        for i, ahead in enumerate(self.ahead):
            state = None if cache is None or ahead not in cache.kept else cache.kept[ahead].transpose(0, 1)
            y, _ = ahead(x, state)
            if cache is not None:  # (B,1,H) of the last real site
                cache.kept[ahead] = gather_rows(y, tokens.sites.real().sum(1, keepdim=True) - 1)
            if turn is not None:
                z, _ = self.back[i](gather_rows(x, turn))
                y = torch.cat([y, gather_rows(z, turn)], -1)
            x = y
        return replace(tokens, x=x, layers=None)


def turned(sites: Sites) -> Tensor:
    """(B,N) int64: the real sites of each row from right to left, then the padding; its own inverse."""
    place = torch.arange(sites.n, device=sites.sample.device).expand(sites.rows, -1)
    length = sites.real().sum(1, keepdim=True)
    return torch.where(place < length, length - 1 - place, place)
