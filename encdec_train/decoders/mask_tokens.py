"""MAE's decoder: mask tokens at the dropped sites, a light transformer over all of them.

He et al. 2022 (arXiv:2111.06377), section 3, "MAE decoder". Attention does not care for order and positions travel with
the tokens, so nothing is unshuffled: the sequence is prefix, kept, dropped. Only the dropped sites are read afterwards,
so the last block makes queries for them alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encdec_train.nn.position import PointPosition, sincos
from encdec_train.nn.transformer import Block, BlockConfig, init_linear, stack_norm
from encdec_train.registry import decoders
from encdec_train.types import Mismatch, Plan, Spec, Tokens


class HolePosition(Enum):
    """What marks where a site stands."""

    sincos = "sincos"
    learned = "learned"  # two linear layers on its coordinates


@dataclass(kw_only=True)
class MaskTokensConfig(BlockConfig):
    width: int = 512
    depth: int = 8
    heads: int = 16
    position: HolePosition = HolePosition.sincos
    position_hidden: int = 128  # width inside learned positions
    every_block: bool = False  # add positions before every block, not only before the first
    project: bool = True  # a linear layer between encoder and decoder; else they are of one width

    def spec(self, memory: Spec | None, inputs: Spec | None, sites: Spec) -> Spec:
        self.check("decoder 'mask_tokens'")
        if memory is None or memory.rows != "kept":
            given = "no memory" if memory is None else f"{memory.rows} sites"
            raise Mismatch(f"decoder 'mask_tokens' fills dropped sites, its memory has {given}")
        if not sites.coords:
            raise Mismatch("decoder 'mask_tokens' needs coordinates, the view has none")
        self.check_unplaced("decoder 'mask_tokens'")
        if not self.project and memory.width != self.width:
            raise Mismatch(
                f"decoder 'mask_tokens'.width: {self.width}, the encoder has {memory.width}: set project=true"
            )
        if inputs is not None:
            raise Mismatch("decoder 'mask_tokens' takes no inputs of its own")
        return replace(memory, width=self.width, rows="predicted", length=sites.length - memory.length)


@decoders.register("mask_tokens", MaskTokensConfig)
class MaskTokens(nn.Module):
    """memory (B,prefix+K,D) -> (B,N-K,width), at the plan's `where`."""

    def __init__(self, config: MaskTokensConfig, memory: Spec, inputs: Spec | None, sites: Spec) -> None:
        super().__init__()
        self.width, self.every_block = config.width, config.every_block
        self.project = nn.Linear(memory.width, config.width) if config.project else nn.Identity()
        self.token = nn.Parameter(torch.empty(config.width))
        self.blocks = nn.ModuleList(Block(config, index=i) for i in range(config.depth))
        self.norm = stack_norm(config)
        learned = config.position is HolePosition.learned
        self.position = PointPosition(sites.coords, config.position_hidden, config.width) if learned else None
        init_linear(self)
        nn.init.normal_(self.token, std=0.02)

    def positions(self, coords: Tensor) -> Tensor:
        """(...,P) -> (...,width)."""
        if self.position is None:
            return sincos(coords, self.width)
        found: Tensor = self.position(coords)
        return found

    def forward(self, memory: Tokens, inputs: Tokens | None, plan: Plan) -> Tokens:
        assert memory.sites.coords is not None and plan.sites.coords is not None
        y, prefix = self.project(memory.x), memory.prefix
        rows = y.shape[0]
        lost = plan.sites.coords.flatten(0, 1)[plan.where].unflatten(0, (rows, -1))  # (B,N-K,P)
        here, there = self.positions(memory.sites.coords).to(y.dtype), self.positions(lost)
        holes = (self.token + there).to(y.dtype)
        x = torch.cat([y[:, :prefix], y[:, prefix:] + here, holes], 1)
        again = F.pad(torch.cat([here, there.to(y.dtype)], 1), (0, 0, prefix, 0)) if self.every_block else None
        everyone = replace(plan.sites, doc=None, valid=None)  # all sites of a dropped row are read
        for block in self.blocks[:-1]:
            x = block(x, everyone, prefix=prefix)
            x = x if again is None else x + again
        x = self.blocks[-1](x, everyone, prefix=prefix, last=holes.shape[1])
        return replace(memory, x=self.norm(x), prefix=0, index=plan.where, layers=None)
