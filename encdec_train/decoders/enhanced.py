"""One vector and glimpses of the text: a query at each site reads what its plan lets it see.

Xiao et al. 2022, "RetroMAE" (arXiv:2205.12035), section 3.3, "Enhanced decoding". A query is the vector and a position;
it reads the vector, which stands in the place of the first token, and the tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import nn

from encdec_train.nn.transformer import Block, BlockConfig, init_blocks, stack_norm
from encdec_train.registry import decoders
from encdec_train.types import Mismatch, Plan, Spec, Tokens


@dataclass(kw_only=True)
class EnhancedConfig(BlockConfig):
    depth: int = 1
    init_std: float | None = None  # of linear weights; none: Xavier uniform, or by fan-in
    position_std: float = 0.02  # of the vectors of places, which are added to a vector of unit scale

    def spec(self, memory: Spec | None, inputs: Spec | None, sites: Spec) -> Spec:
        self.check("decoder 'enhanced'")
        self.check_unplaced("decoder 'enhanced'")
        if memory is None or memory.rows != "one":
            raise Mismatch("decoder 'enhanced' reads one vector: give objective.memory a path with a pooled bottleneck")
        if inputs is None or inputs.kind != "vectors" or inputs.prefix:
            raise Mismatch("decoder 'enhanced' needs tokens of its own: set objective.inputs to a path without encoder")
        for name, given in (("memory", memory), ("inputs", inputs)):
            if given.width != self.width:
                raise Mismatch(f"decoder 'enhanced'.width: {self.width}, its {name} has {given.width}")
        if not (sites.max_len or sites.length):
            raise Mismatch("decoder 'enhanced' has a vector for each place, the view's documents have no bound")
        return replace(inputs, rows="all")


@decoders.register("enhanced", EnhancedConfig)
class Enhanced(nn.Module):
    """memory (B,1,D) and inputs (B,N,D) -> (B,N,D)."""

    def __init__(self, config: EnhancedConfig, memory: Spec, inputs: Spec, sites: Spec) -> None:
        super().__init__()
        self.positions = nn.Embedding(sites.max_len or sites.length, config.width)
        self.norm = stack_norm(config)
        self.blocks = nn.ModuleList(Block(config, own=False, cross=True, index=i) for i in range(config.depth))
        self.final = stack_norm(config) if config.norm_first and config.final_norm else nn.Identity()
        nn.init.normal_(self.positions.weight, std=config.position_std)
        init_blocks(self, config, config.init_std)

    def forward(self, memory: Tokens, inputs: Tokens, plan: Plan) -> Tokens:
        x = self.norm(memory.x + self.positions(inputs.sites.place).to(memory.x.dtype))
        read = torch.cat([memory.x, inputs.x[:, 1:]], 1)
        for block in self.blocks:
            x = block(x, inputs.sites, memory=read, memory_sites=inputs.sites, memory_attend=plan.attend)
        return replace(inputs, x=self.final(x), layers=None)
