"""Convolutions on a lattice of one or two dimensions that keep its size, divide it by a stride or multiply it again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encdec_train.nn.mlp import Act, Activation
from encdec_train.types import Mismatch, Spec, Tokens

CONV = {1: nn.Conv1d, 2: nn.Conv2d}
TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d}


@dataclass(kw_only=True)
class ConvStackConfig:
    """Levels from the finest to the coarsest, with a stride between two of them."""

    channels: list[int] = field(default_factory=lambda: [64, 128, 256])  # of each level
    strides: list[int] = field(default_factory=lambda: [2, 2])  # between the levels
    blocks: list[int] = field(default_factory=lambda: [0, 0, 2])  # residual units of each level
    kernel: int = 3  # of a residual unit's first convolution; the second is 1 wide
    compress: int = 2  # a residual unit is so many times narrower inside
    edge_kernel: int = 3  # of the first and the last convolution
    shortcut: bool = False  # a residual unit's shortcut is a convolution of width 1
    activation: Activation = Activation.relu
    causal: bool = False  # padding stands before the beginning only
    reflect: bool = False  # padding mirrors what is inside, else it is zero
    weight_norm: bool = False
    lstm: int = 0  # layers of an LSTM at the coarsest level, added to what they read (one dimension)

    @property
    def stride(self) -> int:
        """Sites of the finest level to one of the coarsest, along each dimension."""
        found = 1
        for stride in self.strides:
            found *= stride
        return found

    def coarse(self, grid: Sequence[int]) -> tuple[int, ...]:
        """The lattice at the coarsest level; every stride rounds up."""
        for stride in self.strides:
            grid = [-(-side // stride) for side in grid]
        return tuple(grid)

    def check(self, noun: str) -> None:
        if not len(self.channels) == len(self.strides) + 1 == len(self.blocks):
            raise Mismatch(
                f"{noun}: channels and blocks need one entry for each level and strides one less, they have "
                f"{len(self.channels)}, {len(self.blocks)} and {len(self.strides)}"
            )
        if min(self.channels) < 1 or min([1, *self.strides]) < 1 or min(self.blocks) < 0:
            raise Mismatch(f"{noun}: channels and strides must be at least 1, blocks at least 0")
        if self.kernel % 2 == 0 or self.edge_kernel % 2 == 0:
            raise Mismatch(f"{noun}: kernel {self.kernel} and edge_kernel {self.edge_kernel} must be odd")
        if self.compress < 1 or any(width % self.compress for width in self.channels):
            raise Mismatch(f"{noun}.compress: {self.compress} does not divide all of the channels {self.channels}")


def lattice_of(spec: Spec, noun: str) -> tuple[int, ...]:
    """The lattice that vectors stand on: their own, or the line of a row of fixed length."""
    if spec.kind != "vectors" or spec.prefix or not (spec.grid or spec.length):
        raise Mismatch(f"{noun} needs vectors on a full lattice or in rows of one length, without prefix tokens")
    grid = spec.grid or (spec.length,)
    if len(grid) not in CONV:
        raise Mismatch(f"{noun} needs a lattice of one or two dimensions, it is given {len(grid)}")
    return grid


def to_maps(tokens: Tokens) -> Tensor:
    """(B,N,D) on a lattice -> (B,D,*lattice)."""
    return tokens.x.transpose(1, 2).unflatten(2, tokens.sites.grid or (tokens.sites.n,))


def to_rows(x: Tensor) -> Tensor:
    """(B,D,*lattice) -> (B,N,D)."""
    return x.flatten(2).transpose(1, 2)


@torch.no_grad()
def start(conv: nn.Module, inputs: int) -> None:
    """Normal weights that keep the variance of a sum of `inputs` numbers; no bias."""
    nn.init.normal_(conv.weight, std=inputs**-0.5)  # type: ignore[arg-type]
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]


class Conv(nn.Module):
    """A convolution whose output has ceil(size / stride) sites along every dimension."""

    def __init__(
        self, dims: int, before: int, after: int, kernel: int, config: ConvStackConfig, *, stride: int = 1
    ) -> None:
        super().__init__()
        conv = CONV[dims](before, after, kernel, stride)
        start(conv, before * kernel**dims)
        self.conv = nn.utils.parametrizations.weight_norm(conv) if config.weight_norm else conv
        self.kernel, self.stride = kernel, stride
        self.causal, self.mode = config.causal, "reflect" if config.reflect else "constant"

    def forward(self, x: Tensor) -> Tensor:
        """(B,before,*lattice) -> (B,after,*coarser)."""
        total, pads = self.kernel - self.stride, []
        for size in reversed(x.shape[2:]):
            right = 0 if self.causal else total // 2
            pads += [total - right, right + -size % self.stride]
        return self.conv(F.pad(x, pads, mode=self.mode) if any(pads) else x)


class UpConv(nn.Module):
    """A transposed convolution of twice the stride: every site becomes `stride` sites along every dimension."""

    def __init__(self, dims: int, before: int, after: int, config: ConvStackConfig, *, stride: int) -> None:
        super().__init__()
        conv = TRANSPOSED[dims](before, after, 2 * stride, stride)
        start(conv, before * 2**dims)
        self.conv = nn.utils.parametrizations.weight_norm(conv) if config.weight_norm else conv
        self.stride, self.causal = stride, config.causal

    def forward(self, x: Tensor) -> Tensor:
        """(B,before,*lattice) -> (B,after,*finer)."""
        sizes = x.shape[2:]
        y = self.conv(x)
        left = 0 if self.causal else self.stride - self.stride // 2
        for dim, size in enumerate(sizes, 2):
            y = y.narrow(dim, left, size * self.stride)
        return y


class Resize(nn.Module):
    """Sites are repeated, then a convolution: no checkerboards (Odena et al. 2016, distill.pub)."""

    def __init__(self, dims: int, before: int, after: int, config: ConvStackConfig, *, stride: int) -> None:
        super().__init__()
        self.stride, self.conv = stride, Conv(dims, before, after, 3, config)

    def forward(self, x: Tensor) -> Tensor:
        """(B,before,*lattice) -> (B,after,*finer)."""
        return self.conv(F.interpolate(x, scale_factor=float(self.stride), mode="nearest"))


class ResidualUnit(nn.Module):
    """Activation, convolution, activation, convolution of width 1, beside a shortcut.

    van den Oord et al. 2017 (arXiv:1711.00937), section 4.1; Défossez et al. 2022 (arXiv:2210.13438), section 3.1.
    """

    def __init__(self, dims: int, width: int, config: ConvStackConfig) -> None:
        super().__init__()
        inner = width // config.compress
        self.activation = config.activation.fn
        self.first = Conv(dims, width, inner, config.kernel, config)
        self.second = Conv(dims, inner, width, 1, config)
        self.shortcut = Conv(dims, width, width, 1, config) if config.shortcut else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B,D,*lattice) -> the same shape."""
        y = self.second(self.activation(self.first(self.activation(x))))
        return self.shortcut(x) + y


class Recurrent(nn.Module):
    """LSTM layers over the line, added to their input."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(width, width, layers, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        """(B,D,N) -> (B,D,N)."""
        rows = x.transpose(1, 2)
        return (self.lstm(rows)[0] + rows).transpose(1, 2)


def down_stack(dims: int, before: int, after: int, config: ConvStackConfig) -> nn.Sequential:
    """From the finest level to the coarsest, and to `after` channels."""
    act, first, last = config.activation, config.channels[0], config.channels[-1]
    layers: list[nn.Module] = [Conv(dims, before, first, config.edge_kernel, config)]
    for level, (width, blocks) in enumerate(zip(config.channels, config.blocks, strict=True)):
        layers += [ResidualUnit(dims, width, config) for _ in range(blocks)]
        if level < len(config.strides):
            stride, wider = config.strides[level], config.channels[level + 1]
            layers += [Act(act), Conv(dims, width, wider, 2 * stride, config, stride=stride)]
    layers += [Recurrent(last, config.lstm)] if config.lstm else []
    return nn.Sequential(*layers, Act(act), Conv(dims, last, after, config.edge_kernel, config))


def up_stack(dims: int, before: int, after: int, config: ConvStackConfig, *, resize: bool = False) -> nn.Sequential:
    """From the coarsest level to the finest, and to `after` channels: the mirror image."""
    up = Resize if resize else UpConv
    act, first, last = config.activation, config.channels[0], config.channels[-1]
    layers: list[nn.Module] = [Conv(dims, before, last, config.edge_kernel, config)]
    layers += [Recurrent(last, config.lstm)] if config.lstm else []
    for level in reversed(range(len(config.channels))):
        layers += [ResidualUnit(dims, config.channels[level], config) for _ in range(config.blocks[level])]
        if level:
            stride, finer = config.strides[level - 1], config.channels[level - 1]
            layers += [Act(act), up(dims, config.channels[level], finer, config, stride=stride)]
    return nn.Sequential(*layers, Act(act), Conv(dims, first, after, config.edge_kernel, config))
