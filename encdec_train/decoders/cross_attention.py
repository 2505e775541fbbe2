"""Queries that only read the memory and not each other, each block its own mixture of the encoder's layers.

CrossMAE (Fu et al. 2024, arXiv:2401.14391): a mask token at every predicted site, cross-attention and feed-forward; the
memory of each block is a learned sum of the outputs of the encoder's blocks, normed. A site's prediction does not
depend on which others are predicted.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from encdec_train.nn.norm import make_norm
from encdec_train.nn.position import sincos
from encdec_train.nn.transformer import Block, BlockConfig, init_linear, stack_norm
from encdec_train.registry import decoders
from encdec_train.types import Mismatch, Plan, Spec, Tokens


@dataclass(kw_only=True)
class CrossAttentionConfig(BlockConfig):
    width: int = 512
    depth: int = 12
    heads: int = 16
    mix: bool = False  # each block reads its own learned sum of all layers of the encoder; else the memory as it is

    def emits(self, memory: Spec) -> list[int]:
        """The layers that the encoder must hand out."""
        return list(range(len(memory.layers))) if self.mix else []

    def spec(self, memory: Spec | None, inputs: Spec | None, sites: Spec) -> Spec:
        self.check("decoder 'cross_attention'")
        if memory is None or memory.rows != "kept":
            given = "no memory" if memory is None else f"{memory.rows} sites"
            raise Mismatch(f"decoder 'cross_attention' fills dropped sites, its memory has {given}")
        if not sites.coords:
            raise Mismatch("decoder 'cross_attention' needs coordinates, the view has none")
        self.check_unplaced("decoder 'cross_attention'")
        if inputs is not None:
            raise Mismatch("decoder 'cross_attention' takes no inputs of its own")
        widths = {layer.width for layer in memory.layers}
        if self.mix and widths != {memory.width}:
            given = f"layers of widths {sorted(widths)}" if widths else "no layers"
            raise Mismatch(f"decoder 'cross_attention'.mix needs layers of width {memory.width}, it is given {given}")
        return replace(memory, width=self.width, rows="predicted", length=sites.length - memory.length, layers=())


@decoders.register("cross_attention", CrossAttentionConfig)
class CrossAttention(nn.Module):
    """memory (B,prefix+K,D), or its layers -> (B,M/B,width), at the plan's `where`."""

    def __init__(self, config: CrossAttentionConfig, memory: Spec, inputs: Spec | None, sites: Spec) -> None:
        super().__init__()
        self.emits, self.width = config.emits(memory), config.width
        self.token = nn.Parameter(torch.empty(config.width))
        self.blocks = nn.ModuleList(
            Block(config, own=False, cross=True, memory=memory.width) for _ in range(config.depth)
        )
        self.norm = stack_norm(config)
        if self.emits:
            self.mix = nn.Linear(len(self.emits), config.depth, bias=False)
            norms = [make_norm(config.norm, memory.width, config.eps) for _ in range(config.depth)]
            self.mix_norms = nn.ModuleList(norms)
        init_linear(self)  # the mixture too: their code draws it normal, and then anew with all other layers
        nn.init.normal_(self.token, std=0.02)

    def memories(self, memory: Tokens) -> list[Tensor]:
        """What each block reads: (B,prefix+K,D)."""
        if not self.emits:
            return [memory.x] * len(self.blocks)
        assert memory.layers is not None, "the build asks the encoder for them"
        stacked = torch.stack([memory.layers[i] for i in self.emits])  # (L,B,prefix+K,D)
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
