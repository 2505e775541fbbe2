"""A perceptron from every site of the memory by itself."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from torch import nn

from encdec_train.nn.mlp import Activation, perceptron
from encdec_train.nn.transformer import init_linear
from encdec_train.registry import decoders
from encdec_train.types import Mismatch, Plan, Spec, Tokens


@dataclass(kw_only=True)
class MlpDecoderConfig:
    hidden: list[int] = field(default_factory=lambda: [500])  # widths of the layers; an activation follows each
    activation: Activation = Activation.relu

    @property
    def width(self) -> int:
        """Of the last layer."""
        return self.hidden[-1]

    def spec(self, memory: Spec | None, inputs: Spec | None, sites: Spec) -> Spec:
        if not self.hidden or min(self.hidden) < 1:
            raise Mismatch(f"decoder 'mlp'.hidden: {self.hidden} is not a list of widths of at least 1")
        if memory is None or inputs is not None:
            raise Mismatch("decoder 'mlp' reads a memory and no inputs of its own")
        return replace(memory, width=self.width, layers=())


@decoders.register("mlp", MlpDecoderConfig)
class MlpDecoder(nn.Module):
    """memory (B,n,D) -> (B,n,width)."""

    def __init__(self, config: MlpDecoderConfig, memory: Spec, inputs: Spec | None, sites: Spec) -> None:
        super().__init__()
        self.layers = perceptron([memory.width, *config.hidden], config.activation)
        init_linear(self)

    def forward(self, memory: Tokens, inputs: Tokens | None, plan: Plan) -> Tokens:
        return replace(memory, x=self.layers(memory.x), layers=None)
