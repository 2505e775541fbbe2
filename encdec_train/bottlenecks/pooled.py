"""One vector for a whole row: the decoder, or the head, reads a single site."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import nn

from encdec_train.nn.pool import Pool, check_pool, pool
from encdec_train.registry import bottlenecks
from encdec_train.rng import Rng
from encdec_train.types import Mismatch, Spec, Tokens


@dataclass(kw_only=True)
class PooledConfig:
    pool: Pool = Pool.mean

    def spec(self, upstream: Spec) -> Spec:
        check_pool("bottleneck 'pooled'", upstream)
        if self.pool is Pool.cls and not upstream.prefix and upstream.raw is not None and upstream.raw.kind != "ids":
            raise Mismatch("bottleneck 'pooled': pool=cls needs a class token, the encoder has no prefix")
        return replace(upstream, rows="one", length=1, prefix=0, grid=None)


@bottlenecks.register("pooled", PooledConfig)
class Pooled(nn.Module):
    """Tokens (B,prefix+N,D) -> tokens of one site (B,1,D)."""

    def __init__(self, config: PooledConfig, upstream: Spec) -> None:
        super().__init__()
        self.config = config

    def forward(self, tokens: Tokens, rng: Rng) -> Tokens:
        first = torch.zeros(tokens.sites.rows, 1, dtype=torch.int64, device=tokens.x.device)
        sites = replace(tokens.sites.take(first), valid=None)
        return replace(tokens, x=pool(tokens, self.config.pool)[:, None], prefix=0, sites=sites, layers=None)
