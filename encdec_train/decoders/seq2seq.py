"""The decoder of an encoder-decoder: causal self-attention, cross-attention to the memory, feed-forward.

Vaswani et al. 2017 (arXiv:1706.03762), section 3.1; Raffel et al. 2020 (arXiv:1910.10683), section 2.1:
relative bias shared by all blocks and absent from cross-attention, RMS norm, dropout after the final norm.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch.nn.functional as F
from torch import nn

from encdec_train.nn.cache import Cache
from encdec_train.nn.transformer import Block, BlockConfig, init_blocks, make_bias, stack_norm
from encdec_train.registry import decoders
from encdec_train.types import Mismatch, Plan, Spec, Tokens


@dataclass(kw_only=True)
class Seq2SeqConfig(BlockConfig):
    init_std: float | None = None  # of linear weights; none: Xavier uniform, or by fan-in
    final_dropout: float = 0.0  # after the last norm

    def spec(self, memory: Spec | None, inputs: Spec | None, sites: Spec) -> Spec:
        self.check("decoder 'seq2seq'")
        if self.lattice:
            raise Mismatch("decoder 'seq2seq' writes a line, it has no lattice")
        if memory is None:
            raise Mismatch("decoder 'seq2seq' reads a memory, the objective has none")
        if inputs is None or inputs.kind != "vectors":
            raise Mismatch("decoder 'seq2seq' needs inputs of its own: set objective.inputs to a path with reply=true")
        if inputs.prefix:
            raise Mismatch(f"decoder 'seq2seq': its inputs have {inputs.prefix} prefix tokens, none are allowed")
        return replace(inputs, width=self.width)


@decoders.register("seq2seq", Seq2SeqConfig)
class Seq2Seq(nn.Module):
    """memory (B,prefix+K,E) and inputs (B,N,D) -> (B,N,width)."""

    keeps = True  # it can go on with a row by a cache

    def __init__(self, config: Seq2SeqConfig, memory: Spec, inputs: Spec, sites: Spec) -> None:
        super().__init__()
        self.config, self.width = config, config.width
        self.project = _project(inputs.width, config.width)
        self.read = _project(memory.width, config.width)
        self.blocks = nn.ModuleList(Block(config, cross=True, index=i) for i in range(config.depth))
        self.norm = stack_norm(config) if config.final_norm else nn.Identity()
        self.bias = make_bias(config, bidirectional=False)
        init_blocks(self, config, config.init_std)

    def forward(self, memory: Tokens, inputs: Tokens, plan: Plan, cache: Cache | None = None) -> Tokens:
        x, y = self.project(inputs.x), self.read(memory.x)
        bias = None if self.bias is None else self.bias(inputs.sites)
        for block in self.blocks:
            x = block(
                x,
                inputs.sites,
                attend=plan.attend,
                bias=bias,
                memory=y,
                memory_sites=memory.sites,
                memory_prefix=memory.prefix,
                cache=cache,
            )
        x = self.norm(x)
        if self.config.final_dropout:
            x = F.dropout(x, self.config.final_dropout, self.training)
        return replace(inputs, x=x, layers=None)


def _project(given: int, wanted: int) -> nn.Module:
    return nn.Identity() if given == wanted else nn.Linear(given, wanted)
