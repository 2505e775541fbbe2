"""Transformer blocks that a vector of their row scales, shifts and gates: conditioning on time.

Peebles and Xie 2023, "Scalable diffusion models with transformers" (arXiv:2212.09748), section 3.2, "adaLN-Zero".
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encdec_train.kernels.attention import Bias
from encdec_train.nn.mlp import Mlp
from encdec_train.nn.transformer import Attention, BlockConfig
from encdec_train.types import Attend, Sites, Tokens

FEATURES = 256  # of a time
STEPS = 1000.0  # times in [0, 1] are scaled to, so that the fastest wave turns between neighbours


def time_features(time: Tensor) -> Tensor:
    """(B,) times in [0, 1] -> (B,FEATURES) cosines and sines of falling frequency."""
    half = FEATURES // 2
    frequency = torch.exp(torch.arange(half, device=time.device) * (-math.log(10000.0) / half))
    angle = STEPS * time[:, None].float() * frequency
    return torch.cat([angle.cos(), angle.sin()], -1)


class TimeEmbedding(nn.Module):
    """Features of a time through a perceptron; tokens without a time are clean: time 0."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(FEATURES, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, tokens: Tokens) -> Tensor:
        """(B,D)."""
        cond = tokens.cond
        if cond is None:
            cond = time_features(torch.zeros(tokens.sites.rows, device=tokens.x.device))
        return self.layers(cond.to(tokens.x.dtype))


class AdaptiveNorm(nn.Module):
    """A layer norm whose scale and shift come from the condition; both start at zero."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps, elementwise_affine=False)
        self.modulation = nn.Linear(width, 2 * width)

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        """(B,N,D) with a condition (B,D)."""
        shift, scale = self.modulation(F.silu(cond))[:, None].chunk(2, -1)
        return self.norm(x) * (1 + scale) + shift


class AdaptiveBlock(nn.Module):
    """Self-attention and feed-forward, each with an adaptive norm and a gate; as it starts it is the identity."""

    def __init__(self, config: BlockConfig, *, index: int = 0) -> None:
        super().__init__()
        width = config.width
        self.attention = Attention(config, index=index)
        self.norm = AdaptiveNorm(width, config.eps)
        self.mlp = Mlp(
            width,
            config.hidden or 4 * width,
            config.activation,
            gated=config.gated,
            bias=config.bias,
            dropout=config.hidden_dropout,
            up_bias=config.up_bias,
        )
        self.mlp_norm = AdaptiveNorm(width, config.eps)
        self.gates = nn.Linear(width, 2 * width)

    def forward(
        self,
        x: Tensor,
        sites: Sites,
        *,
        cond: Tensor,
        prefix: int = 0,
        attend: Attend | None = None,
        bias: Bias | None = None,
    ) -> Tensor:
        """(B,prefix+N,D) -> the same."""
        gate, mlp_gate = self.gates(F.silu(cond))[:, None].chunk(2, -1)
        y = self.norm(x, cond)
        y = self.attention(y, query=sites, key=sites, prefix=(prefix, prefix), attend=attend, bias=bias)
        x = x + gate * y
        return x + mlp_gate * self.mlp(self.mlp_norm(x, cond))


def init_adaptive(module: nn.Module) -> None:
    """Scales, shifts and gates start at zero."""
    for part in module.modules():
        layers = [part.modulation] if isinstance(part, AdaptiveNorm) else []
        layers += [part.gates] if isinstance(part, AdaptiveBlock) else []
        for layer in layers:
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
