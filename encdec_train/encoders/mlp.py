"""A perceptron for every site by itself."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from torch import nn

from encdec_train.nn.mlp import Activation, perceptron
from encdec_train.nn.transformer import init_linear
from encdec_train.registry import encoders
from encdec_train.types import Attend, Mismatch, Spec, Tokens


@dataclass(kw_only=True)
class MlpEncoderConfig:
    hidden: list[int] = field(default_factory=lambda: [500])  # widths of the layers; an activation follows each
    activation: Activation = Activation.relu

    @property
    def width(self) -> int:
        """D: of the last layer."""
        return self.hidden[-1]

    def spec(self, upstream: Spec) -> Spec:
        if not self.hidden or min(self.hidden) < 1:
            raise Mismatch(f"encoder 'mlp'.hidden: {self.hidden} is not a list of widths of at least 1")
        if upstream.kind != "vectors":
            raise Mismatch(f"encoder 'mlp' needs vectors, it is given {upstream.kind}")
        return replace(upstream, width=self.width)


@encoders.register("mlp", MlpEncoderConfig)
class MlpEncoder(nn.Module):
    """(B,N,C) -> (B,N,D). `width` is D."""

    def __init__(self, config: MlpEncoderConfig, upstream: Spec) -> None:
        super().__init__()
        self.width = config.width
        self.layers = perceptron([upstream.width, *config.hidden], config.activation)
        init_linear(self)

    def forward(self, tokens: Tokens, attend: Attend | None = None) -> Tokens:
        """No site reads another one, which every pattern allows."""
        return replace(tokens, x=self.layers(tokens.x))
