"""Residual convolutional networks on a two-dimensional lattice.

He et al. 2016 (arXiv:1512.03385), with the stride of a bottleneck on its 3x3 convolution, as in torchvision,
timm and SimCLR. The small stem is for pictures of 32 x 32 (Chen et al. 2020, arXiv:2002.05709, appendix B.9).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from encdec_train.nn.batch_norm import BatchNorm2d
from encdec_train.nn.lattice import coarse_sites, plane, pyramid, rows
from encdec_train.registry import encoders
from encdec_train.types import Attend, Mismatch, Spec, Tokens


class ResidualBlock(Enum):
    """What a residual block is made of."""

    basic = "basic"  # 3x3, 3x3
    bottleneck = "bottleneck"  # 1x1, 3x3, 1x1 to four times the channels

    @property
    def expansion(self) -> int:
        return 4 if self is ResidualBlock.bottleneck else 1


class Stem(Enum):
    """What comes before the blocks."""

    imagenet = "imagenet"  # 7x7 stride 2, 3x3 max pooling stride 2
    small = "small"  # 3x3


@dataclass(kw_only=True)
class ResNetConfig:
    block: ResidualBlock = ResidualBlock.bottleneck
    layers: list[int] = field(default_factory=lambda: [3, 4, 6, 3])  # blocks of each stage
    channels: int = 64  # of the stem and the first stage's 3x3 convolutions; doubles with every stage
    multiplier: int = 1  # of all channels ("ResNet-50 (2x)")
    stem: Stem = Stem.imagenet
    zero_init: bool = True  # the last norm of each block starts at 0: every block starts as the identity
    momentum: float = 0.1  # of the running statistics: share of the newest batch
    eps: float = 1e-5  # of the norms
    emit: list[int] = field(default_factory=list)  # stages whose output is kept in `Tokens.layers`

    @property
    def widths(self) -> list[int]:
        """Channels that leave each stage."""
        first = self.channels * self.multiplier * self.block.expansion
        return [first * 2**stage for stage in range(len(self.layers))]

    @property
    def width(self) -> int:
        """D: channels that leave the last stage."""
        return self.widths[-1]

    def grids(self, grid: tuple[int, ...]) -> list[tuple[int, ...]]:
        """The lattice after each stage; every stride halves and rounds up."""
        found = []
        for stage in range(len(self.layers)):
            strides = 1 if stage else 2 if self.stem is Stem.imagenet else 0
            for _ in range(strides):
                grid = tuple((side + 1) // 2 for side in grid)
            found.append(grid)
        return found

    def spec(self, upstream: Spec) -> Spec:
        self._check()
        grid = plane("encoder 'resnet'", upstream)
        return pyramid(upstream, self.widths, self.grids(grid))

    def _check(self) -> None:
        if not self.layers or min(self.layers) < 1:
            raise Mismatch(f"encoder 'resnet'.layers: {self.layers} is not a list of counts of at least 1")
        for name in ("channels", "multiplier"):
            if getattr(self, name) < 1:
                raise Mismatch(f"encoder 'resnet'.{name}: {getattr(self, name)} is below 1")


class Block(nn.Module):
    """Convolutions and norms beside a shortcut, which is projected where the shape changes."""

    def __init__(self, config: ResNetConfig, before: int, inner: int, stride: int) -> None:
        super().__init__()
        after = inner * config.block.expansion
        if config.block is ResidualBlock.bottleneck:
            shapes = [(before, inner, 1, 1), (inner, inner, 3, stride), (inner, after, 1, 1)]
        else:
            shapes = [(before, inner, 3, stride), (inner, after, 3, 1)]
        self.convs = nn.ModuleList(conv(*shape) for shape in shapes)
        self.norms = nn.ModuleList(norm(config, shape[1]) for shape in shapes)
        self.shortcut = None
        if stride != 1 or before != after:
            self.shortcut = nn.Sequential(conv(before, after, 1, stride), norm(config, after))

    def forward(self, x: Tensor) -> Tensor:
        """(B,before,h,w) -> (B,after,h/stride,w/stride)."""
        y, last = x, len(self.convs) - 1
        for i, (convolve, normalize) in enumerate(zip(self.convs, self.norms, strict=True)):
            y = normalize(convolve(y))
            if i < last:
                y = F.relu(y, inplace=True)
        y = y + (x if self.shortcut is None else self.shortcut(x))
        return F.relu(y, inplace=True)


@encoders.register("resnet", ResNetConfig)
class ResNet(nn.Module):
    """Vectors on a lattice (B,H*W,C) -> (B,h*w,D) on a coarser one. `width` is D."""

    def __init__(self, config: ResNetConfig, upstream: Spec) -> None:
        super().__init__()
        self.config, self.width = config, config.width
        first = config.channels * config.multiplier
        small = config.stem is Stem.small
        self.stem = conv(upstream.width, first, 3 if small else 7, 1 if small else 2)
        self.norm = norm(config, first)
        self.pool = nn.Identity() if small else nn.MaxPool2d(3, 2, 1)
        self.stages = nn.ModuleList()
        for stage, (before, after) in enumerate(pairwise([first, *config.widths])):
            inner = after // config.block.expansion
            blocks = [Block(config, before, inner, 1 if stage == 0 else 2)]
            blocks += [Block(config, after, inner, 1) for _ in range(config.layers[stage] - 1)]
            self.stages.append(nn.Sequential(*blocks))
        self._init()

    def _init(self) -> None:
        """He et al. 2015 (arXiv:1502.01852); the last norms as in Goyal et al. 2017 (arXiv:1706.02677)."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if self.config.zero_init:
            for module in self.modules():
                if isinstance(module, Block):
                    nn.init.zeros_(module.norms[-1].weight)  # type: ignore[arg-type]

    def forward(self, tokens: Tokens, attend: Attend | None = None) -> Tokens:
        grid = tokens.sites.grid
        if grid is None:
            raise Mismatch("encoder 'resnet' needs a full lattice: sites were dropped or pictures differ in size")
        x = tokens.x.unflatten(1, grid).permute(0, 3, 1, 2)  # (B,C,H,W), channels last in memory
        x = self.pool(F.relu(self.norm(self.stem(x)), inplace=True))
        layers: dict[int, Tensor] = {}
        for i, stage in enumerate(self.stages):
            x = stage(x)
            if i in self.config.emit:
                layers[i] = rows(x)
        sites = coarse_sites(tokens.sites, x.shape[-2:])
        return replace(tokens, x=rows(x), sites=sites, layers=layers or None)


def conv(before: int, after: int, kernel: int, stride: int) -> nn.Conv2d:
    """A convolution that keeps the lattice, but for its stride; a norm follows, so it has no bias."""
    return nn.Conv2d(before, after, kernel, stride, kernel // 2, bias=False)


def norm(config: ResNetConfig, width: int) -> BatchNorm2d:
    return BatchNorm2d(width, eps=config.eps, momentum=config.momentum)
