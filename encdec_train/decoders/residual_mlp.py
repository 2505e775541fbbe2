"""Residual perceptrons over every site of the memory by itself: a heavy head that nothing but pretraining needs.

El-Nouby et al. 2024 (AIM, arXiv:2401.08541), section 3.2: blocks of fixed width whatever the encoder's, positions once
more before the first. What predicts raw values would otherwise be the encoder's last blocks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor, nn

from encdec_train.nn.mlp import Activation, Mlp
from encdec_train.nn.norm import Norm, make_norm
from encdec_train.nn.position import sincos
from encdec_train.nn.transformer import init_linear
from encdec_train.registry import decoders
from encdec_train.types import Mismatch, Plan, Spec, Tokens


@dataclass(kw_only=True)
class ResidualMlpConfig:
    width: int = 2048  # D
    depth: int = 12  # blocks
    hidden: int | None = None  # width inside a block; none: 4 * width
    norm: Norm = Norm.layer  # before each block and after the last
    eps: float = 1e-6  # of the norms
    activation: Activation = Activation.gelu
    bias: bool = True  # in linear layers
    position: bool = True  # sines and cosines of the coordinates are added before the first block

    def spec(self, memory: Spec | None, inputs: Spec | None, sites: Spec) -> Spec:
        if memory is None or inputs is not None:
            raise Mismatch("decoder 'residual_mlp' reads a memory and no inputs of its own")
        for name in ("width", "depth"):
            if getattr(self, name) < 1:
                raise Mismatch(f"decoder 'residual_mlp'.{name}: {getattr(self, name)} is below 1")
        if self.position and not memory.coords:
            raise Mismatch("decoder 'residual_mlp'.position needs coordinates, the memory has none")
        return replace(memory, width=self.width, prefix=0, layers=())


class ResidualMlp(nn.Module):
    """A norm and a perceptron beside a shortcut."""

    def __init__(self, config: ResidualMlpConfig) -> None:
        super().__init__()
        width = config.width
        self.norm = make_norm(config.norm, width, config.eps)
        self.mlp = Mlp(width, config.hidden or 4 * width, config.activation, gated=False, bias=config.bias, dropout=0.0)

    def forward(self, x: Tensor) -> Tensor:
        """(...,D) -> (...,D)."""
        return x + self.mlp(self.norm(x))


@decoders.register("residual_mlp", ResidualMlpConfig)
class ResidualMlpDecoder(nn.Module):
    """memory (B,prefix+n,D) -> (B,n,width)."""

    def __init__(self, config: ResidualMlpConfig, memory: Spec, inputs: Spec | None, sites: Spec) -> None:
        super().__init__()
        self.config = config
        self.project = nn.Linear(memory.width, config.width, bias=config.bias)
        self.blocks = nn.Sequential(*(ResidualMlp(config) for _ in range(config.depth)))
        self.norm = make_norm(config.norm, config.width, config.eps)
        init_linear(self)

    def forward(self, memory: Tokens, inputs: Tokens | None, plan: Plan) -> Tokens:
        x = self.project(memory.body)
        if self.config.position:
            assert memory.sites.coords is not None
            x = x + sincos(memory.sites.coords, self.config.width).to(x.dtype)
        return replace(memory, x=self.norm(self.blocks(x)), prefix=0, layers=None)
