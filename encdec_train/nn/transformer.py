"""The transformer block, one for every encoder and decoder that stacks it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encdec_train.kernels.attention import Bias
from encdec_train.nn.attention import attention, attention_behind
from encdec_train.nn.cache import Cache
from encdec_train.nn.mlp import Activation, Mlp
from encdec_train.nn.norm import Norm, make_norm
from encdec_train.nn.position import LatticeBias, LinearBias, RelativeBias, rotate, rotation
from encdec_train.types import Attend, Mismatch, Sites


@dataclass(kw_only=True)
class BlockConfig:
    width: int = 768  # D
    depth: int = 12  # blocks
    heads: int = 12
    head_width: int | None = None  # none: width / heads
    hidden: int | None = None  # width of the feed-forward layer; none: 4 * width
    norm: Norm = Norm.layer
    eps: float = 1e-6  # of the norms
    norm_bias: bool = True  # in layer norms
    norm_first: bool = True  # pre-norm; else the original post-norm
    first_norm: bool = True  # before the first attention (pre-norm stacks, where the input is not normalised yet)
    final_norm: bool = True  # after the last block (pre-norm stacks)
    activation: Activation = Activation.gelu
    gated: bool = False  # gated feed-forward layer
    bias: bool = True  # in linear layers
    up_bias: bool = True  # in the first linear layer of the feed-forward layer, where the others have one
    scale: bool = True  # divide by sqrt(head width); T5 does not
    dropout: float = 0.0  # of what each sublayer adds
    attention_dropout: float = 0.0
    hidden_dropout: float = 0.0  # inside the feed-forward layer
    windows: list[int] = field(default_factory=list)  # places to either side that a block reads, in turn; 0: all
    rotary: list[float] = field(default_factory=list)  # bases of rotary positions, in turn over the blocks; empty: none
    slopes: bool = False  # a linear bias by distance, fixed (ALiBi)
    relative: bool = False  # T5's relative bias, shared by all blocks
    lattice: bool = False  # a learned bias for the offset of two sites of a lattice (BEiT), shared by all blocks
    buckets: int = 32
    max_distance: int = 128
    bias_std: float | None = (
        None  # of the learned bias at the start; none: 1, 1 / sqrt(width) with `fan_in`, 0 on a lattice
    )
    fan_in: bool = False  # weights start normal with deviation 1 / sqrt(fan-in) (T5), else as the part says
    layer_scale: float | None = None  # where a learned gain of what each sublayer adds starts (CaiT); none: no gain
    shrink: bool = False  # layers that add to the stream start smaller by sqrt(2 * depth) (GPT-2, Megatron)

    def check(self, noun: str) -> None:
        if self.head_width is None and self.width % self.heads:
            raise Mismatch(f"{noun}: width {self.width} does not divide into {self.heads} heads")
        for name in ("dropout", "attention_dropout", "hidden_dropout"):
            value = getattr(self, name)
            if not 0 <= value < 1:
                raise Mismatch(f"{noun}.{name}: {value} is not in [0, 1)")
        for name in ("width", "depth", "heads"):
            if getattr(self, name) < 1:
                raise Mismatch(f"{noun}.{name}: {getattr(self, name)} is below 1")
        self._check_positions(noun)

    def _check_positions(self, noun: str) -> None:
        biases = [name for name in ("slopes", "relative", "lattice") if getattr(self, name)]
        if len(biases) > 1:
            raise Mismatch(f"{noun}: {' and '.join(biases)} are several biases, choose one")
        if any(window < 0 for window in self.windows):
            raise Mismatch(f"{noun}.windows: {self.windows} has one below 0")
        if any(base <= 1 for base in self.rotary):
            raise Mismatch(f"{noun}.rotary: {self.rotary} has a base that is not above 1")
        if self.rotary and (self.head_width or self.width // self.heads) % 2:
            raise Mismatch(f"{noun}.rotary: heads of width {self.head_width or self.width // self.heads} have no pairs")
        if not (self.first_norm or self.norm_first):
            raise Mismatch(f"{noun}.first_norm: a post-norm stack has no norm before its first attention")

    def check_unplaced(self, noun: str) -> None:
        """For stacks whose sites are out of order: only their coordinates say where they stand."""
        placed = [name for name in ("windows", "rotary", "slopes", "relative", "lattice") if getattr(self, name)]
        if placed:
            raise Mismatch(f"{noun} reads coordinates, not places: it has no {', '.join(placed)}")

    def turn(self, values: list[Any], block: int) -> Any | None:
        """The value of one block, where values take turns over the blocks; None where there are none."""
        return values[block % len(values)] if values else None


def stack_norm(config: BlockConfig) -> nn.Module:
    """A norm as the whole stack has them."""
    return make_norm(config.norm, config.width, config.eps, bias=config.norm_bias)


def layer_gain(config: BlockConfig) -> nn.Parameter | None:
    """(D,): the gain of what a sublayer adds (Touvron et al. 2021, arXiv:2103.17239, section 2.1), if it has one."""
    return None if config.layer_scale is None else nn.Parameter(torch.full((config.width,), config.layer_scale))


def make_bias(
    config: BlockConfig, *, bidirectional: bool, grid: tuple[int, ...] | None = None, prefix: int = 0
) -> LinearBias | RelativeBias | LatticeBias | None:
    """What all blocks add to their scores, by place; made once for the stack.

    Args:
        config: of the blocks.
        bidirectional: keys behind a query have buckets of their own.
        grid: the lattice that `lattice` is for.
        prefix: tokens before it.
    """
    if config.slopes:
        return LinearBias(config.heads)
    if config.lattice:
        high, wide = grid or ()
        return LatticeBias(config.heads, (high, wide), prefix)
    if not config.relative:
        return None
    return RelativeBias(config.heads, config.buckets, config.max_distance, bidirectional=bidirectional)


def narrow(attend: Attend | None, window: int) -> Attend | None:
    """The pattern within `window` places to either side, unless it is narrower already; 0 = as it is."""
    if not window or (attend is not None and 0 < attend.window <= window):
        return attend
    return Attend(window=window) if attend is None else replace(attend, window=window)


class Attention(nn.Module):
    """Multi-head attention; queries from one sequence, keys and values from the same or another of width `memory`."""

    def __init__(self, config: BlockConfig, *, own: bool = True, memory: int | None = None, index: int = 0) -> None:
        super().__init__()
        self.heads, self.own, self.dropout = config.heads, own, config.attention_dropout
        self.size = config.head_width or config.width // config.heads
        self.scale = None if config.scale else 1.0
        self.window = (config.turn(config.windows, index) or 0) if own else 0
        self.base = config.turn(config.rotary, index) if own else None
        inner = self.heads * self.size
        self.inner = inner
        if own:
            self.qkv = nn.Linear(config.width, 3 * inner, bias=config.bias)
        else:
            self.q = nn.Linear(config.width, inner, bias=config.bias)
            self.kv = nn.Linear(memory or config.width, 2 * inner, bias=config.bias)
        self.out = nn.Linear(inner, config.width, bias=config.bias)

    def project(self, x: Tensor, memory: Tensor | None, last: int | None) -> Iterator[Tensor]:
        """q, k, v as (B,H,N,d); with `last`, queries are made for the last rows only."""
        if not self.own:
            assert memory is not None
            parts = (self.q(x), *self.kv(memory).chunk(2, -1))
        elif last is None:
            parts = self.qkv(x).chunk(3, -1)
        else:
            w, b, i = self.qkv.weight, self.qkv.bias, self.inner
            k, v = F.linear(x, w[i:], None if b is None else b[i:]).chunk(2, -1)
            parts = (F.linear(x[:, -last:], w[:i], None if b is None else b[:i]), k, v)
        return (part.unflatten(-1, (self.heads, self.size)).transpose(1, 2) for part in parts)

    def forward(
        self,
        x: Tensor,
        *,
        query: Sites,
        key: Sites,
        prefix: tuple[int, int],
        memory: Tensor | None = None,
        attend: Attend | None = None,
        bias: Bias | None = None,
        last: int | None = None,
        cache: Cache | None = None,
    ) -> Tensor:
        """(B,n,D): of all sites, or of the last; with a cache `x` is what follows the sites that it has kept."""
        if cache is not None:
            return self.onward(x, query, key, prefix, memory, attend, bias, cache)
        q, k, v = self.project(x, memory, last)
        if self.base is not None:
            turned = rotation(key.place, self.size, self.base, prefix[1])
            q, k = rotate(q, turned), rotate(k, turned)
        y = attention(
            q,
            k,
            v,
            query=query,
            key=key,
            attend=narrow(attend, self.window),
            own=self.own,
            prefix=prefix,
            bias=bias,
            dropout=self.dropout if self.training else 0.0,
            scale=self.scale,
        )
        return self.out(y.transpose(1, 2).flatten(2))

    def onward(
        self,
        x: Tensor,
        query: Sites,
        key: Sites,
        prefix: tuple[int, int],
        memory: Tensor | None,
        attend: Attend | None,
        bias: Bias | None,
        cache: Cache,
    ) -> Tensor:
        """What follows the sites that the cache has kept; of a memory, keys and values are made once."""
        if not self.own:
            if self not in cache.kept:
                _, *kept = self.project(x, memory, None)
                cache.kept[self] = tuple(kept)
            k, v = cache.kept[self]
            q = self.q(x).unflatten(-1, (self.heads, self.size)).transpose(1, 2)
            y = attention(q, k, v, query=query, key=key, attend=attend, own=False, prefix=prefix, scale=self.scale)
            return self.out(y.transpose(1, 2).flatten(2))
        q, k, v = self.project(x, None, None)
        if self.base is not None:
            turned = rotation(query.place, self.size, self.base)
            q, k = rotate(q, turned), rotate(k, turned)
        k, v, key = cache.grow(self, k, v, query)
        pattern = narrow(attend, self.window)
        y = attention_behind(q, k, v, query=query, key=key, attend=pattern, bias=bias, scale=self.scale)
        return self.out(y.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Self-attention if `own`, cross-attention if there is a memory, feed-forward; pre-norm or post-norm.

    `index` is its number in the stack: windows and rotary bases take turns over the blocks.
    """

    entries = ("qkv",)  # methods besides `forward` that are called from outside

    def __init__(
        self, config: BlockConfig, *, own: bool = True, cross: bool = False, memory: int | None = None, index: int = 0
    ) -> None:
        super().__init__()
        self.norm_first, self.dropout = config.norm_first, config.dropout
        self.attention = Attention(config, index=index) if own else None
        bare = index == 0 and not config.first_norm
        self.norm = (nn.Identity() if bare else stack_norm(config)) if own else None
        self.cross = Attention(config, own=False, memory=memory) if cross else None
        self.cross_norm = stack_norm(config) if cross else None
        self.mlp = Mlp(
            config.width,
            config.hidden or 4 * config.width,
            config.activation,
            gated=config.gated,
            bias=config.bias,
            dropout=config.hidden_dropout,
            up_bias=config.up_bias,
        )
        self.mlp_norm = stack_norm(config)
        self.gain = layer_gain(config) if own else None
        self.cross_gain = layer_gain(config) if cross else None
        self.mlp_gain = layer_gain(config)

    @torch.no_grad()
    def shrink(self, factor: float) -> None:
        """Make what the sublayers add smaller."""
        for layer in (self.mlp.down, *(part.out for part in (self.attention, self.cross) if part is not None)):
            layer.weight.mul_(factor)

    def qkv(self, x: Tensor) -> Tensor:
        """(B,3,N,H*d): the queries, keys and values that its attention makes of what the block is given (B,N,D)."""
        assert self.attention is not None and self.norm is not None
        read = self.norm(x) if self.norm_first else x
        return self.attention.qkv(read).unflatten(-1, (3, -1)).transpose(1, 2)

    def add(  # type: ignore[no-untyped-def]
        self, x: Tensor, norm: nn.Module, gain: Tensor | None, sublayer, last: int | None = None
    ) -> Tensor:
        y = sublayer(norm(x)) if self.norm_first else sublayer(x)
        y = y if gain is None else y * gain
        if self.dropout:
            y = F.dropout(y, self.dropout, self.training)
        x = (x if last is None else x[:, -last:]) + y
        return x if self.norm_first else norm(x)

    def forward(
        self,
        x: Tensor,
        sites: Sites,
        *,
        prefix: int = 0,
        attend: Attend | None = None,
        bias: Bias | None = None,
        memory: Tensor | None = None,
        memory_sites: Sites | None = None,
        memory_prefix: int = 0,
        memory_attend: Attend | None = None,
        last: int | None = None,
        cache: Cache | None = None,
    ) -> Tensor:
        """(B,prefix+N,D) -> the same, or (B,last,D) where only the last rows are read afterwards.

        With a cache `x` holds only what follows the sites that it has kept.
        """
        if self.attention is not None:
            own, norm = self.attention, self.norm
            assert norm is not None
            x = self.add(
                x,
                norm,
                self.gain,
                lambda y: own(
                    y,
                    query=sites,
                    key=sites,
                    prefix=(prefix, prefix),
                    attend=attend,
                    bias=bias,
                    last=last,
                    cache=cache,
                ),
                last,
            )
        if self.cross is not None:
            cross, norm = self.cross, self.cross_norm
            assert memory_sites is not None and norm is not None
            x = self.add(
                x,
                norm,
                self.cross_gain,
                lambda y: cross(
                    y,
                    query=sites,
                    key=memory_sites,
                    memory=memory,
                    prefix=(prefix, memory_prefix),
                    attend=memory_attend,
                    cache=cache,
                ),
            )
        return self.add(x, self.mlp_norm, self.mlp_gain, self.mlp)


@torch.no_grad()
def init_linear(module: nn.Module, std: float | None = None) -> None:
    """Xavier uniform for every linear layer (MAE's code), or normal of a given deviation; biases are zero."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            if std is None:
                nn.init.xavier_uniform_(layer.weight)
            else:
                nn.init.normal_(layer.weight, std=std)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def init_blocks(module: nn.Module, config: BlockConfig, std: float | None = None) -> None:
    """The start of a stack: by fan-in if its configuration says so, else as `init_linear`."""
    if config.fan_in:
        init_fan_in(module, config.width)
    else:
        init_linear(module, std)
    for layer in module.modules():
        if isinstance(layer, RelativeBias | LatticeBias) and config.bias_std is not None:
            nn.init.normal_(layer.table.weight, std=config.bias_std)
        elif isinstance(layer, Block) and config.shrink:
            layer.shrink((2 * config.depth) ** -0.5)


@torch.no_grad()
def init_fan_in(module: nn.Module, width: int) -> None:
    """T5's start (the authors' Mesh TensorFlow code, as in transformers' `T5PreTrainedModel._init_weights`).

    Every linear weight is normal with deviation 1 / sqrt(fan-in). Queries are divided by the square root of
    the head width where attention does not divide; relative biases have deviation 1 / sqrt(width).
    """
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, RelativeBias):
            nn.init.normal_(layer.table.weight, std=width**-0.5)
    for layer in module.modules():
        if isinstance(layer, Attention) and layer.scale is not None:
            weight = layer.qkv.weight[: layer.inner] if layer.own else layer.q.weight
            weight.mul_(layer.size**-0.5)
