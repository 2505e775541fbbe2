"""A Gaussian for every site, drawn in training, and its divergence from the standard normal.

Kingma and Welling 2014, "Auto-Encoding Variational Bayes" (arXiv:1312.6114), section 2.4 and appendix B.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from encdec_train.nn.transformer import init_linear
from encdec_train.registry import bottlenecks
from encdec_train.rng import Rng
from encdec_train.types import Mismatch, Spec, Term, Tokens

CLAMP = (-30.0, 20.0)  # of the log variance: finite in float32


@dataclass(kw_only=True)
class GaussianConfig:
    width: int = 16  # of a latent vector
    weight: float = 1.0  # of the divergence in nats for each raw value, as likelihoods are counted: 1 is the bound

    def spec(self, upstream: Spec) -> Spec:
        name = "bottleneck 'gaussian'"
        if self.width < 1:
            raise Mismatch(f"{name}.width: {self.width} is below 1")
        if upstream.prefix:
            raise Mismatch(f"{name} draws sites, it is given {upstream.prefix} prefix tokens")
        if upstream.raw is None or not upstream.raw.length:
            raise Mismatch(f"{name} counts the divergence for each raw value, the view's rows are of no fixed length")
        return replace(upstream, width=self.width, layers=())


@bottlenecks.register("gaussian", GaussianConfig)
class Gaussian(nn.Module):
    """Tokens (B,N,D) -> (B,N,width): mean + deviation * noise in training, the mean in eval mode."""

    def __init__(self, config: GaussianConfig, upstream: Spec) -> None:
        super().__init__()
        self.config = config
        assert upstream.raw is not None, "spec() comes first"
        self.values = upstream.raw.length * (upstream.raw.width if upstream.raw.kind == "values" else 1)  # of a row
        self.moments = nn.Linear(upstream.width, 2 * config.width)
        init_linear(self.moments)

    def forward(self, tokens: Tokens, rng: Rng) -> Tokens:
        mean, log_variance = self.moments(tokens.x).float().chunk(2, -1)  # (B,N,width)
        log_variance = log_variance.clamp(*CLAMP)
        x = mean
        if self.training:
            sites, channel = tokens.sites, torch.arange(self.config.width, device=mean.device)
            noise = rng.normal("gaussian", sites.sample[..., None], sites.place[..., None], channel)
            x = mean + (0.5 * log_variance).exp() * noise
        rows = divergence(mean, log_variance) * tokens.sites.real()  # (B,N)
        count = torch.full((), float(len(rows) * self.values), device=rows.device)
        aux = {**(tokens.aux or {}), "kl": Term(rows.sum(), count, self.config.weight)}
        return replace(tokens, x=x.to(tokens.x.dtype), aux=aux, layers=None)


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """(...,D) moments -> (...) divergence of the Gaussian from the standard normal, in nats (appendix B)."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(-1)
