"""SIREN: layers with a sine for an activation, each site by itself (Sitzmann et al. 2020, arXiv:2006.09661).

Section 3.2 and its supplement: a layer is sin(omega (W x + b)); W is uniform within 1 / inputs in the first layer and
within sqrt(6 / inputs) / omega in the others, so that every layer sees the same distribution. Biases start alike, as
in the code of COIN (EmilienDupont/coin, siren.py).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import nn

from encdec_train.registry import encoders
from encdec_train.types import Attend, Mismatch, Spec, Tokens


@dataclass(kw_only=True)
class SirenConfig:
    width: int = 28  # D
    depth: int = 10  # layers
    omega: float = 30.0
    first_omega: float = 30.0  # of the first layer

    def spec(self, upstream: Spec) -> Spec:
        if upstream.kind != "vectors":
            raise Mismatch(f"encoder 'siren' needs vectors, it is given {upstream.kind}")
        for name in ("width", "depth"):
            if getattr(self, name) < 1:
                raise Mismatch(f"encoder 'siren'.{name}: {getattr(self, name)} is below 1")
        for name in ("omega", "first_omega"):
            if getattr(self, name) <= 0:
                raise Mismatch(f"encoder 'siren'.{name}: {getattr(self, name)} is not above 0")
        return replace(upstream, width=self.width, edges=False)


@encoders.register("siren", SirenConfig)
class Siren(nn.Module):
    """(B,N,P) -> (B,N,D). `width` is D."""

    def __init__(self, config: SirenConfig, upstream: Spec) -> None:
        super().__init__()
        self.config, self.width = config, config.width
        widths = [upstream.width, *[config.width] * config.depth]
        self.layers = nn.ModuleList(nn.Linear(given, config.width) for given in widths[:-1])
        for i, given in enumerate(widths[:-1]):
            bound = (6 / given) ** 0.5 / config.omega if i else 1 / given
            for parameter in self.layers[i].parameters():
                nn.init.uniform_(parameter, -bound, bound)

    def forward(self, tokens: Tokens, attend: Attend | None = None) -> Tokens:
        """No site reads another one, which every pattern allows."""
        x = tokens.x
        for i, layer in enumerate(self.layers):
            x = torch.sin((self.config.omega if i else self.config.first_omega) * layer(x))
        return replace(tokens, x=x)
