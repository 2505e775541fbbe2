"""Queries that only read the memory and not each other, each block its own mixture of the encoder's layers.

CrossMAE (Fu et al. 2024, arXiv:2401.14391): a mask token at every predicted site, cross-attention and feed-forward; the
memory of each block is a learned sum of the outputs of the encoder's blocks, and of what the first of them reads
("inter-block attention"), normed. A site's prediction does not depend on which others are predicted.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from encdec_train.nn.norm import make_norm
from encdec_train.nn.position import sincos
from encdec_train.nn.transformer import Block, BlockConfig, init_linear
from encdec_train.registry import decoders
from encdec_train.types import Mismatch, Plan, Spec, Tokens


@dataclass(kw_only=True)
class CrossAttentionConfig(BlockConfig):
    width: int = 512
    depth: int = 12
    heads: int = 16
    emit: list[int] = field(default_factory=list)  # blocks of the encoder that are mixed, -1: what the first reads;
    # empty: the memory as it is

    def spec(self, memory: Spec | None, inputs: Spec | None, sites: Spec) -> Spec:
        self.check("decoder 'cross_attention'")
        if memory is None or memory.rows != "kept":
            given = "no memory" if memory is None else f"{memory.rows} sites"
            raise Mismatch(f"decoder 'cross_attention' fills dropped sites, its memory has {given}")
        if not sites.coords:
            raise Mismatch("decoder 'cross_attention' needs coordinates, the view has none")
        if inputs is not None:
            raise Mismatch("decoder 'cross_attention' takes no inputs of its own")
        if len(set(self.emit)) < len(self.emit):
            raise Mismatch(f"decoder 'cross_attention'.emit: {self.emit} names a block twice")
        return replace(memory, width=self.width, rows="predicted", length=sites.length - memory.length)


@decoders.register("cross_attention", CrossAttentionConfig)
class CrossAttention(nn.Module):
    """memory (B,prefix+K,D), or its layers -> (B,M/B,width), at the plan's `where`."""

    def __init__(self, config: CrossAttentionConfig, memory: Spec, inputs: Spec | None, sites: Spec) -> None:
        super().__init__()
        self.emit, self.width = config.emit, config.width
        self.token = nn.Parameter(torch.empty(config.width))
        self.blocks = nn.ModuleList(
            Block(config, own=False, cross=True, memory=memory.width) for _ in range(config.depth)
        )
        self.norm = make_norm(config.norm, config.width, config.eps)
        if self.emit:
            self.mix = nn.Linear(len(self.emit), config.depth, bias=False)
            self.mix_norms = nn.ModuleList(
                make_norm(config.norm, memory.width, config.eps) for _ in range(config.depth)
            )
        init_linear(self)  # of the mixture too: their code draws it normal, and then anew with all other layers
        nn.init.normal_(self.token, std=0.02)

    def memories(self, memory: Tokens) -> list[Tensor]:
        """What each block reads: (B,prefix+K,D)."""
        if not self.emit:
            return [memory.x] * len(self.blocks)
        layers = memory.layers or {}
        if not set(self.emit) <= set(layers):
            raise Mismatch(
                f"decoder 'cross_attention' mixes the encoder's layers {self.emit}, it emits {sorted(layers)}: "
                "set encoder.main.emit"
            )
        stacked = torch.stack([layers[i] for i in self.emit])  # (L,B,prefix+K,D)
        mixed = torch.einsum("jl,lbnd->jbnd", self.mix.weight.to(stacked.dtype), stacked)
        return [norm(one) for norm, one in zip(self.mix_norms, mixed, strict=True)]

    def forward(self, memory: Tokens, inputs: Tokens | None, plan: Plan) -> Tokens:
        assert plan.where is not None
        asked = plan.sites.take(plan.where.view(memory.x.shape[0], -1) % plan.sites.n)  # (B,M/B)
        assert asked.coords is not None
        x = (self.token + sincos(asked.coords, self.width)).to(memory.x.dtype)
        for block, read in zip(self.blocks, self.memories(memory), strict=True):
            x = block(x, asked, memory=read, memory_sites=memory.sites, memory_prefix=memory.prefix)
        return replace(memory, x=self.norm(x), prefix=0, index=plan.where, layers=None)
