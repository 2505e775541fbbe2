"""MAE's decoder: mask tokens at the predicted sites, a light transformer over them and the kept ones.

He et al. 2022 (arXiv:2111.06377), section 3, "MAE decoder". Attention does not care for order and positions travel with
the tokens, so nothing is unshuffled: the sequence is prefix, kept, dropped. Only the dropped sites are read afterwards,
so the last block makes queries for them alone. In several groups it is I-JEPA's predictor (Assran et al. 2023,
arXiv:2301.08243, section 3): every target block is predicted beside a copy of the whole context.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encdec_train.kernels import masking
from encdec_train.nn.position import PointPosition, sincos
from encdec_train.nn.transformer import Block, BlockConfig, init_linear, stack_norm
from encdec_train.registry import decoders
from encdec_train.types import Mismatch, Plan, Sites, Spec, Tokens


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
    groups: int = 1  # equal groups of a row's predicted sites; none reads another

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
        if self.groups < 1:
            raise Mismatch(f"decoder 'mask_tokens'.groups: {self.groups} is below 1")
        length = sites.length - memory.length if self.groups == 1 else 0
        return replace(memory, width=self.width, rows="predicted", length=length)


@decoders.register("mask_tokens", MaskTokensConfig)
class MaskTokens(nn.Module):
    """memory (B,prefix+K,D) -> (B*groups,M/B/groups,width), at the plan's `where`."""

    def __init__(self, config: MaskTokensConfig, memory: Spec, inputs: Spec | None, sites: Spec) -> None:
        super().__init__()
        self.width, self.every_block, self.groups = config.width, config.every_block, config.groups
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
        rows = y.shape[0] * self.groups
        lost = plan.sites.coords.flatten(0, 1)[plan.where].unflatten(0, (rows, -1))  # (B*groups,m,P)
        here, there = self.positions(memory.sites.coords).to(y.dtype), self.positions(lost)
        x, last = masking.restore(y, self.token, here, there, prefix), there.shape[1]
        again = None
        if self.every_block:
            here = here.repeat_interleave(self.groups, 0) if self.groups > 1 else here
            again = F.pad(torch.cat([here, there.to(y.dtype)], 1), (0, 0, prefix, 0))
        sites = self.readers(plan, y.shape[1], rows)
        for block in self.blocks[:-1]:
            x = block(x, sites)
            x = x if again is None else x + again
        x = self.blocks[-1](x, sites, last=last if sites.valid is None else None)[:, -last:]
        return replace(memory, x=self.norm(x), prefix=0, index=plan.where, layers=None)

    def readers(self, plan: Plan, known: int, rows: int) -> Sites:
        """Of the memory and the holes, (rows,known+m). In groups, holes that only fill up are not read."""
        if self.groups == 1 or plan.weight is None:
            return replace(plan.sites, doc=None, valid=None, cu_seqlens=None)  # all sites of a dropped row are read
        real = plan.weight.unflatten(0, (rows, -1)) > 0
        valid = torch.cat([real.new_ones(rows, known), real], 1)
        nowhere = torch.zeros_like(valid, dtype=torch.int64)
        return Sites(sample=nowhere, place=nowhere, valid=valid)
