"""Swin transformer: attention within windows of a lattice, every second block with its windows shifted.

Liu et al. 2021 (arXiv:2103.14030), sections 3.1 (stages that begin by merging patches) and 3.2 (windows shifted by a
cyclic shift, relative position bias). A lattice that windows do not tile is filled up with zeros behind the norm, and
one that is no larger than a window is read whole.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encdec_train.kernels.attention import Bias, Reads, attention
from encdec_train.kernels.backend import choose
from encdec_train.nn.lattice import coarse_sites, plane, pyramid
from encdec_train.nn.mlp import Activation, Mlp
from encdec_train.nn.transformer import init_linear
from encdec_train.registry import encoders
from encdec_train.types import Attend, Mismatch, Spec, Tokens


@dataclass(kw_only=True)
class SwinConfig:
    channels: int = 96  # of the first stage; doubles with every stage
    layers: list[int] = field(default_factory=lambda: [2, 2, 6, 2])  # blocks of each stage
    heads: list[int] = field(default_factory=lambda: [3, 6, 12, 24])  # of each stage
    window: int = 7  # sites along each side of a window
    ratio: float = 4.0  # of the perceptrons' hidden width to the channels
    input_norm: bool = True  # of the patches, before the first stage
    eps: float = 1e-5  # of the norms
    drop_path: float = 0.0  # chance that a row skips half a block: linear from 0 in the first to this in the last
    emit: list[int] = field(default_factory=list)  # stages whose output, before it is merged, is in `Tokens.layers`

    @property
    def reads(self) -> int:
        """Width of the vectors that it reads without a projection."""
        return self.channels

    @property
    def widths(self) -> list[int]:
        """Channels of each stage."""
        return [self.channels * 2**stage for stage in range(len(self.layers))]

    @property
    def width(self) -> int:
        """D: channels of the last stage."""
        return self.widths[-1]

    def grids(self, grid: tuple[int, ...]) -> list[tuple[int, ...]]:
        """The lattice of each stage; merging halves and rounds up."""
        found = [grid]
        for _ in self.layers[1:]:
            found.append(tuple((side + 1) // 2 for side in found[-1]))
        return found

    def spec(self, upstream: Spec) -> Spec:
        self._check()
        grid = plane("encoder 'swin'", upstream)
        return pyramid(upstream, self.widths, self.grids(grid))

    def _check(self) -> None:
        part = "encoder 'swin'"
        if not self.layers or min(self.layers) < 1:
            raise Mismatch(f"{part}.layers: {self.layers} is not a list of counts of at least 1")
        if len(self.heads) != len(self.layers) or min(self.heads) < 1:
            raise Mismatch(
                f"{part}.heads: {self.heads} is not a count of at least 1 for each of {len(self.layers)} stages"
            )
        for name in ("channels", "window"):
            if getattr(self, name) < 1:
                raise Mismatch(f"{part}.{name}: {getattr(self, name)} is below 1")
        wrong = [(width, heads) for width, heads in zip(self.widths, self.heads, strict=True) if width % heads]
        if wrong:
            raise Mismatch(f"{part}.heads: width {wrong[0][0]} does not divide into {wrong[0][1]} heads")
        if not 0 <= self.drop_path < 1:
            raise Mismatch(f"{part}.drop_path: {self.drop_path} is not in [0, 1)")


class WindowAttention(nn.Module):
    """Multi-head attention within windows of `side` by `side`, with a learned bias for the offset of two sites."""

    def __init__(self, width: int, heads: int, side: int, shift: int) -> None:
        super().__init__()
        self.heads, self.side, self.shift = heads, side, shift
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.table = nn.Parameter(torch.empty((2 * side - 1) ** 2, heads))
        nn.init.trunc_normal_(self.table, std=0.02)

    def bias(self) -> Bias:
        """For the sites of a window; the table is by query minus key."""
        return Bias(diagonals=self.table.T.flip(1), origin=len(self.table) // 2, wide=self.side)

    def regions(self, h: int, w: int) -> Tensor:
        """(windows,n) int64: sites that the cyclic shift brought into one window from opposite ends differ."""

        def region(size: int) -> Tensor:
            at = torch.arange(size, device=self.table.device)
            return (at >= size - self.side).long() + (at >= size - self.shift).long()

        return windows((region(h)[:, None] * 3 + region(w))[None, ..., None], self.side)[0, ..., 0]

    def attend(self, q: Tensor, k: Tensor, v: Tensor, regions: Tensor | None) -> Tensor:
        """(B,windows,H,n,d) three times -> the same; `regions` (windows,n) that do not read each other."""
        bias, n = self.bias(), q.shape[3]
        facts = {"dtype": q.dtype, "size": q.shape[-1], "queries": n, "keys": n, "plain": False}
        if choose("attention", q.device, **facts) == "triton":
            label = None if regions is None else regions.int().repeat(len(q), 1)
            reads = Reads(query_label=label, key_label=label)
            y = attention(q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1), bias=bias, reads=reads)
            return y.unflatten(0, q.shape[:2])
        mask = bias.dense(n, n).expand(q.shape[1], -1, -1, -1)  # (windows,H,n,n)
        if regions is not None:
            apart = regions[:, None, :, None] != regions[:, None, None, :]
            mask = mask.masked_fill(apart, torch.finfo(mask.dtype).min)
        q, k, v = q.flatten(1, 2), k.flatten(1, 2), v.flatten(1, 2)  # (B,windows*H,n,d)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask.flatten(0, 1)[None].to(q.dtype))
        return y.unflatten(1, (-1, self.heads))

    def forward(self, x: Tensor) -> Tensor:
        """(B,h,w,C) -> (B,h,w,C)."""
        h, w = x.shape[1:3]
        x = F.pad(x, (0, 0, 0, -w % self.side, 0, -h % self.side))
        tall, wide = x.shape[1:3]
        if self.shift:
            x = x.roll((-self.shift, -self.shift), (1, 2))
        parts = self.qkv(windows(x, self.side)).unflatten(-1, (3, self.heads, -1))  # (B,windows,n,3,H,d)
        q, k, v = parts.permute(3, 0, 1, 4, 2, 5)  # (B,windows,H,n,d)
        y = self.attend(q, k, v, self.regions(tall, wide) if self.shift else None)
        y = self.out(y.transpose(2, 3).flatten(3))
        y = unwindows(y, self.side, (tall, wide))
        if self.shift:
            y = y.roll((self.shift, self.shift), (1, 2))
        return y[:, :h, :w]


def windows(x: Tensor, side: int) -> Tensor:
    """(B,h,w,C) -> (B,windows,side*side,C)."""
    tiles = x.unflatten(2, (-1, side)).unflatten(1, (-1, side))
    return tiles.transpose(2, 3).flatten(3, 4).flatten(1, 2)


def unwindows(x: Tensor, side: int, grid: tuple[int, int]) -> Tensor:
    """(B,windows,side*side,C) -> (B,h,w,C)."""
    tiles = x.unflatten(1, (grid[0] // side, -1)).unflatten(3, (side, side))
    return tiles.transpose(2, 3).flatten(3, 4).flatten(1, 2)


class SwinBlock(nn.Module):
    """Attention within windows, then a perceptron, each behind a norm and beside a shortcut."""

    def __init__(self, config: SwinConfig, width: int, heads: int, side: int, shift: int, drop: float) -> None:
        super().__init__()
        self.drop = drop
        self.attention_norm = nn.LayerNorm(width, eps=config.eps)
        self.attention = WindowAttention(width, heads, side, shift)
        self.mlp_norm = nn.LayerNorm(width, eps=config.eps)
        hidden = int(config.ratio * width)
        self.mlp = Mlp(width, hidden, Activation.gelu, gated=False, bias=True, dropout=0.0)

    def maybe(self, y: Tensor) -> Tensor:
        """Zero for some rows, and larger for the others (Huang et al. 2016, arXiv:1603.09382)."""
        if not (self.training and self.drop):
            return y
        return y * F.dropout(torch.ones_like(y[:, :1, :1, :1]), self.drop)

    def forward(self, x: Tensor) -> Tensor:
        """(B,h,w,C) -> (B,h,w,C)."""
        x = x + self.maybe(self.attention(self.attention_norm(x)))
        return x + self.maybe(self.mlp(self.mlp_norm(x)))


class Merge(nn.Module):
    """Four neighbours side by side, normed and projected to twice the channels."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.norm, self.project = nn.LayerNorm(4 * width, eps=eps), nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B,h,w,C) -> (B,ceil h/2,ceil w/2,2C)."""
        x = F.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))
        four = [x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]  # columns of neighbours, as published
        return self.project(self.norm(torch.cat(four, -1)))


@encoders.register("swin", SwinConfig)
class Swin(nn.Module):
    """Vectors on a lattice (B,H*W,C) -> (B,h*w,D) on a coarser one. `width` is D."""

    def __init__(self, config: SwinConfig, upstream: Spec) -> None:
        super().__init__()
        self.config, self.width = config, config.width
        same = upstream.width == config.channels
        self.project = nn.Identity() if same else nn.Linear(upstream.width, config.channels)
        self.input_norm = nn.LayerNorm(config.channels, eps=config.eps) if config.input_norm else nn.Identity()
        self.stages = nn.ModuleList()
        assert upstream.grid is not None
        depth, done = max(1, sum(config.layers) - 1), 0
        for stage, (width, grid) in enumerate(zip(config.widths, config.grids(upstream.grid), strict=True)):
            side = min(config.window, *grid)
            shift = side // 2 if side < min(grid) else 0  # a lattice that is one window has nothing to shift
            blocks: list[nn.Module] = [Merge(width // 2, config.eps)] if stage else []
            for i in range(config.layers[stage]):
                drop = config.drop_path * done / depth
                blocks.append(SwinBlock(config, width, config.heads[stage], side, shift if i % 2 else 0, drop))
                done += 1
            self.stages.append(nn.Sequential(*blocks))
        self.norm = nn.LayerNorm(config.width, eps=config.eps)
        init_linear(self, 0.02)

    def forward(self, tokens: Tokens, attend: Attend | None = None) -> Tokens:
        grid = tokens.sites.grid
        if grid is None:
            raise Mismatch("encoder 'swin' needs a full lattice: sites were dropped or pictures differ in size")
        if attend is not None:
            raise Mismatch("encoder 'swin' reads windows: the corruption's attention pattern has no meaning here")
        x = self.input_norm(self.project(tokens.x)).unflatten(1, grid)  # (B,h,w,C)
        layers: dict[int, Tensor] = {}
        for i, stage in enumerate(self.stages):
            x = stage(x)
            if i in self.config.emit:
                layers[i] = x.flatten(1, 2)
        sites = coarse_sites(tokens.sites, x.shape[1:3])
        return replace(tokens, x=self.norm(x).flatten(1, 2), sites=sites, position=None, layers=layers or None)
