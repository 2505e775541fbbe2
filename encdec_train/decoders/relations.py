"""The self-attention relations of one block of the memory's encoder, as what is predicted.

Wang et al. 2021, "MiniLMv2" (arXiv:2012.15828), section 3.1: queries with queries, keys with keys, values with values.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import nn

from encdec_train.nn.relations import relation_width, relations
from encdec_train.registry import decoders
from encdec_train.types import Mismatch, Plan, Spec, Tokens


@dataclass(kw_only=True)
class RelationsConfig:
    layer: int = -1  # block; negative: from the last
    split: int = 48  # relation heads, whatever the number of attention heads

    def emits_qkv(self, memory: Spec) -> list[int]:
        return [self.layer]

    def spec(self, memory: Spec | None, inputs: Spec | None, sites: Spec) -> Spec:
        if memory is None or inputs is not None:
            raise Mismatch("decoder 'relations' reads a memory and has no inputs of its own")
        return replace(memory, width=relation_width("decoder 'relations'", memory, self.layer, self.split), layers=())


@decoders.register("relations", RelationsConfig)
class Relations(nn.Module):
    """memory -> (B,N,3*heads*length) log probabilities."""

    def __init__(self, config: RelationsConfig, memory: Spec, inputs: Spec | None, sites: Spec) -> None:
        super().__init__()
        self.heads, self.layer, self.length = config.split, config.layer % len(memory.layers), memory.length

    def forward(self, memory: Tokens, inputs: Tokens | None, plan: Plan) -> Tokens:
        assert memory.qkv is not None, "the build asks the encoder for them"
        x = relations(memory.qkv[self.layer], self.heads, memory.sites, self.length)
        return replace(memory, x=x, layers=None, qkv=None)
