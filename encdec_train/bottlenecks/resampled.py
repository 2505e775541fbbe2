"""Learned queries read the tokens: as many sites come out as there are queries.

Attention pooling with one query (Lee et al. 2019, arXiv:1810.00825, section 3.2), with the feed-forward layer after it
as SigLIP has it, or a fixed number of sites for a decoder (CoCa, Yu et al. 2022, arXiv:2205.01917, section 3.2,
"Attentional Poolers").
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from encdec_train.nn.mlp import Activation, Mlp
from encdec_train.nn.norm import Norm, make_norm
from encdec_train.nn.pool import check_pool
from encdec_train.nn.transformer import Attention, BlockConfig, init_linear
from encdec_train.registry import bottlenecks
from encdec_train.rng import Rng
from encdec_train.types import Mismatch, Sites, Spec, Tokens


@dataclass(kw_only=True)
class ResampledConfig:
    queries: int = 1  # sites that come out
    heads: int = 12
    mlp: bool = False  # after it a norm and a feed-forward layer, with a residual
    hidden: int | None = None  # width of the feed-forward layer; none: four times the tokens'
    activation: Activation = Activation.gelu_tanh
    norm: Norm = Norm.none  # of what comes out, without the feed-forward layer
    eps: float = 1e-6  # of the norms

    def spec(self, upstream: Spec) -> Spec:
        check_pool("bottleneck 'resampled'", upstream)
        if self.queries < 1:
            raise Mismatch(f"bottleneck 'resampled'.queries: {self.queries} is below 1")
        if upstream.width % self.heads:
            raise Mismatch(f"bottleneck 'resampled': width {upstream.width} does not divide into {self.heads} heads")
        return replace(
            upstream,
            rows="one" if self.queries == 1 else "coarse",
            length=self.queries,
            max_len=0,
            prefix=0,
            grid=None,
            coords=0,
            layers=(),
        )


@bottlenecks.register("resampled", ResampledConfig)
class Resampled(nn.Module):
    """Tokens (B,prefix+N,D) -> tokens (B,queries,D), whose places are the numbers of the queries."""

    def __init__(self, config: ResampledConfig, upstream: Spec) -> None:
        super().__init__()
        width = upstream.width
        self.queries = nn.Parameter(torch.empty(config.queries, width))
        self.attention = Attention(BlockConfig(width=width, heads=config.heads), own=False)
        self.norm = make_norm(Norm.layer if config.mlp else config.norm, width, config.eps)
        hidden = config.hidden or 4 * width
        self.mlp = Mlp(width, hidden, config.activation, gated=False, bias=True, dropout=0.0) if config.mlp else None
        init_linear(self)
        nn.init.xavier_uniform_(self.queries)

    def forward(self, tokens: Tokens, rng: Rng) -> Tokens:
        rows, count = tokens.sites.rows, len(self.queries)
        place = torch.arange(count, device=tokens.x.device).expand(rows, -1)
        sites = Sites(sample=tokens.sites.sample[:, :1].expand(rows, count), place=place, max_len=count)
        x = self.attention(
            self.queries.to(tokens.x.dtype).expand(rows, -1, -1),
            query=sites,
            key=tokens.sites,
            prefix=(0, tokens.prefix),
            memory=tokens.x,
        )
        return replace(tokens, x=self.finish(x), prefix=0, sites=sites, layers=None)

    def finish(self, x: Tensor) -> Tensor:
        """(B,queries,D) -> the same."""
        return self.norm(x) if self.mlp is None else x + self.mlp(self.norm(x))
