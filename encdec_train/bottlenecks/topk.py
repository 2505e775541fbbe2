"""A sparse autoencoder: every site is a sum of a few directions of a large dictionary.

Gao et al. 2024, "Scaling and evaluating sparse autoencoders" (arXiv:2406.04093): section 2.3 (the k largest latents),
section 2.4 and appendix A.2 (latents that died learn from what the others left over), appendix A (start, directions).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from encdec_train.nn.gather import world
from encdec_train.registry import bottlenecks
from encdec_train.rng import Rng
from encdec_train.types import Mismatch, Spec, Term, Tokens


@dataclass(kw_only=True)
class TopkConfig:
    latents: int = 32768  # directions of the dictionary
    k: int = 32  # latents that are active at a site
    dead_after: int = 10_000_000  # sites since a latent was last active
    dead_k: int = 512  # dead latents that are active in what they learn from
    dead_weight: float = 1 / 32  # of the squared error of what they restore

    def spec(self, upstream: Spec) -> Spec:
        name = "bottleneck 'topk'"
        for field in ("k", "dead_k"):
            if not 1 <= getattr(self, field) <= self.latents:
                raise Mismatch(f"{name}.{field}: {getattr(self, field)} is not within 1 to {self.latents} latents")
        if self.dead_after < 1 or self.dead_weight < 0:
            raise Mismatch(f"{name}: dead_after {self.dead_after} or dead_weight {self.dead_weight} is too small")
        return replace(upstream, layers=())


@bottlenecks.register("topk", TopkConfig)
class Topk(nn.Module):
    """Tokens (B,prefix+N,D) -> the same shape, restored from k latents; `codes` (B,N,k) tell which."""

    batchwise = True

    idle: Tensor

    def __init__(self, config: TopkConfig, upstream: Spec) -> None:
        super().__init__()
        self.config = config
        directions = torch.empty(config.latents, upstream.width)
        nn.init.normal_(directions)
        directions = F.normalize(directions, dim=1)
        self.decode = nn.Parameter(directions)  # (L,D); only their direction counts
        self.encode = nn.Parameter(directions.clone())  # starts as the transpose
        self.threshold = nn.Parameter(torch.zeros(config.latents))
        self.centre = nn.Parameter(torch.zeros(upstream.width))
        self.register_buffer("idle", torch.zeros(config.latents, dtype=torch.int64))  # sites since it was active

    def forward(self, tokens: Tokens, rng: Rng) -> Tokens:
        x = tokens.x.float()
        latents = F.linear(x - self.centre, self.encode, self.threshold)  # (B,prefix+N,L)
        found, which = largest(latents, self.config.k)
        y = self.restore(found, which) + self.centre
        aux = dict(tokens.aux or {})
        if self.training and torch.is_grad_enabled():
            real = F.pad(tokens.sites.real(), (tokens.prefix, 0), value=True)
            self.count(which, found, real)
            aux["dead"] = self.revive(latents, (x - y).detach(), real)
        codes = which[:, tokens.prefix :]
        return replace(tokens, x=y.to(tokens.x.dtype), codes=codes, aux=aux or None, layers=None)

    def restore(self, found: Tensor, which: Tensor) -> Tensor:
        """(...,k) values of the latents (...,k) -> (...,D), without the centre."""
        directions = F.normalize(self.decode, dim=1)
        sparse = found.new_zeros(*found.shape[:-1], self.config.latents).scatter(-1, which, found)
        return sparse @ directions

    def revive(self, latents: Tensor, rest: Tensor, real: Tensor) -> Term:
        """Squared error of dead latents, the largest of which restore what is left over (equation 5); 0 without any."""
        dead = self.idle >= self.config.dead_after
        found, which = largest(latents.masked_fill(~dead, -torch.inf), self.config.dead_k)
        error = (self.restore(found, which) - rest).square().mean(-1)  # (B,prefix+N)
        return Term((error * real).sum() * dead.any(), real.sum().float(), self.config.dead_weight)

    @torch.no_grad()
    def count(self, which: Tensor, found: Tensor, real: Tensor) -> None:
        """Sites of all ranks since each latent was last active."""
        active = torch.zeros_like(self.idle).index_add_(
            0, which.flatten(), ((found > 0) & real[..., None]).flatten().long()
        )
        sites = real.sum()
        if world()[1] > 1:
            dist.all_reduce(active)
            dist.all_reduce(sites)
        self.idle.copy_(torch.where(active > 0, 0, self.idle + sites))


def largest(latents: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Values and numbers of the k largest latents (...,k), those below zero as zero."""
    found, which = latents.topk(k, dim=-1)
    return found.relu(), which
