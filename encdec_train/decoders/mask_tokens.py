"""MAE's decoder: mask tokens at the dropped sites, a light transformer over all of them.

He et al. 2022 (arXiv:2111.06377), section 3, "MAE decoder". Attention does not care for order and positions travel with
the tokens, so nothing is unshuffled: the sequence is prefix, kept, dropped. Only the dropped sites are read afterwards,
so the last block makes queries for them alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import nn

from encdec_train.nn.position import sincos
from encdec_train.nn.transformer import Block, BlockConfig, init_linear, stack_norm
from encdec_train.registry import decoders
from encdec_train.types import Mismatch, Plan, Spec, Tokens


@dataclass(kw_only=True)
class MaskTokensConfig(BlockConfig):
    width: int = 512
    depth: int = 8
    heads: int = 16

    def spec(self, memory: Spec | None, inputs: Spec | None, sites: Spec) -> Spec:
        self.check("decoder 'mask_tokens'")
        if memory is None or memory.rows != "kept":
            given = "no memory" if memory is None else f"{memory.rows} sites"
            raise Mismatch(f"decoder 'mask_tokens' fills dropped sites, its memory has {given}")
        if not sites.coords:
            raise Mismatch("decoder 'mask_tokens' needs coordinates, the view has none")
        placed = [name for name in ("windows", "rotary", "slopes", "relative") if getattr(self, name)]
        if placed:  # its sites are out of order, and only their coordinates say where they stand
            raise Mismatch(f"decoder 'mask_tokens' reads coordinates, not places: it has no {', '.join(placed)}")
        if inputs is not None:
            raise Mismatch("decoder 'mask_tokens' takes no inputs of its own")
        return replace(memory, width=self.width, rows="predicted", length=sites.length - memory.length)


@decoders.register("mask_tokens", MaskTokensConfig)
class MaskTokens(nn.Module):
    """memory (B,prefix+K,D) -> (B,N-K,width), at the plan's `where`."""

    def __init__(self, config: MaskTokensConfig, memory: Spec, inputs: Spec | None, sites: Spec) -> None:
        super().__init__()
        self.width = config.width
        self.project = nn.Linear(memory.width, config.width)
        self.token = nn.Parameter(torch.empty(config.width))
        self.blocks = nn.ModuleList(Block(config, index=i) for i in range(config.depth))
        self.norm = stack_norm(config)
        init_linear(self)
        nn.init.normal_(self.token, std=0.02)

    def forward(self, memory: Tokens, inputs: Tokens | None, plan: Plan) -> Tokens:
        assert memory.sites.coords is not None and plan.sites.coords is not None
        y, prefix = self.project(memory.x), memory.prefix
        rows = y.shape[0]
        lost = plan.sites.coords.flatten(0, 1)[plan.where].unflatten(0, (rows, -1))  # (B,N-K,P)
        kept = y[:, prefix:] + sincos(memory.sites.coords, self.width).to(y.dtype)
        holes = (self.token + sincos(lost, self.width)).to(y.dtype)
        x = torch.cat([y[:, :prefix], kept, holes], 1)
        everyone = replace(plan.sites, doc=None, valid=None)  # all sites of a dropped row are read
        for block in self.blocks[:-1]:
            x = block(x, everyone, prefix=prefix)
        x = self.blocks[-1](x, everyone, prefix=prefix, last=holes.shape[1])
        return replace(memory, x=self.norm(x), prefix=0, index=plan.where, layers=None)
