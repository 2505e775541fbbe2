"""The convolutional feature encoder of wav2vec 2.0: raw samples to frames, frames to model vectors.

Baevski et al. 2020 (arXiv:2006.11477), section 2 "Feature encoder" and section 4.2: seven blocks of 512
channels, strides (5,2,2,2,2,2,2), kernels (10,3,3,3,3,2,2): a frame sees 400 samples (25 ms at 16 kHz), one
every 320 (20 ms). As in Base, only the first block is normalised (a group for each channel); none has a
bias.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encdec_train.nn.mask import MaskVector
from encdec_train.nn.position import ConvPosition, ConvPositions
from encdec_train.nn.transformer import init_linear
from encdec_train.registry import embedders
from encdec_train.types import Mismatch, Plan, Sites, Spec, Term, Tokens, Units

Count = TypeVar("Count", int, Tensor)


class ConvNorm(Enum):
    """What normalises the convolutions."""

    group = "group"  # the first one alone, each channel over time
    layer = "layer"  # every one, each frame over its channels


@dataclass(kw_only=True)
class WaveformEmbedderConfig:
    width: int | None = None  # none: the width of the encoder that reads it
    channels: list[int] = field(default_factory=lambda: [512] * 7)  # of each convolution
    kernels: list[int] = field(default_factory=lambda: [10, 3, 3, 3, 3, 2, 2])  # in samples of the layer below
    strides: list[int] = field(default_factory=lambda: [5, 2, 2, 2, 2, 2, 2])
    norm: ConvNorm = ConvNorm.group
    gradient: float = 0.1  # what the gradient to the convolutions is multiplied by
    penalty: float = 10.0  # weight of the mean square of the last convolution's output; 0: none
    dropout: float = 0.1  # of the projected features, and again with positions added
    position_kernel: int = 128  # frames
    position_groups: int = 16
    position_layers: int = 1  # convolutions; more than one are normalised instead of their weights
    eps: float = 1e-5  # of the layer norms

    def frames(self, samples: Count) -> Count:
        """Number of frames whose whole receptive field lies within `samples`."""
        for kernel, stride in zip(self.kernels, self.strides, strict=True):
            samples = (samples - kernel) // stride + 1
        return samples

    def receptive(self) -> int:
        """Samples that one frame sees."""
        size, hop = 1, 1
        for kernel, stride in zip(self.kernels, self.strides, strict=True):
            size, hop = size + (kernel - 1) * hop, hop * stride
        return size

    def spec(self, view: Spec) -> Spec:
        if view.kind != "values" or view.width != 1:
            raise Mismatch(f"embedder 'waveform' needs samples of one channel, the view gives {view.width} {view.kind}")
        self._check_layers()
        width = self.width or view.width
        if width % self.position_groups:
            raise Mismatch(f"embedder 'waveform'.position_groups: {self.position_groups} does not divide width {width}")
        if self.position_layers < 1:
            raise Mismatch(f"embedder 'waveform'.position_layers: {self.position_layers} is below 1")
        if not 0 <= self.dropout < 1:
            raise Mismatch(f"embedder 'waveform'.dropout: {self.dropout} is not in [0, 1)")
        if view.length and view.length < self.receptive():
            raise Mismatch(f"embedder 'waveform': a frame sees {self.receptive()} samples, the view has {view.length}")
        length = self.frames(view.length) if view.length else 0
        return replace(
            view, kind="vectors", width=width, length=length, features=self.channels[-1], grid=None, raw=view
        )

    def _check_layers(self) -> None:
        layers = [len(self.channels), len(self.kernels), len(self.strides)]
        if len(set(layers)) > 1 or not layers[0]:
            raise Mismatch(
                "embedder 'waveform': channels, kernels and strides need one entry for each layer, "
                f"they have {layers[0]}, {layers[1]} and {layers[2]}"
            )
        if min(*self.channels, *self.kernels, *self.strides) < 1:
            raise Mismatch("embedder 'waveform': channels, kernels and strides must be at least 1")


@embedders.register("waveform", WaveformEmbedderConfig)
class Waveform(nn.Module):
    """(B,N,1) samples to frames; the features are shared by the context network and the quantiser."""

    def __init__(self, config: WaveformEmbedderConfig, view: Spec, *, mask: bool) -> None:
        super().__init__()
        spec = config.spec(view)
        self.config = config
        inputs = [1, *config.channels[:-1]]
        layers = [
            nn.Conv1d(below, above, kernel, stride, bias=False)
            for below, above, kernel, stride in zip(
                inputs, config.channels, config.kernels, config.strides, strict=True
            )
        ]
        for layer in layers:
            nn.init.kaiming_normal_(layer.weight)
        self.convolutions = nn.ModuleList(layers)
        grouped = config.norm is ConvNorm.group
        self.group_norm = nn.GroupNorm(config.channels[0], config.channels[0]) if grouped else None
        self.layer_norms = None if grouped else nn.ModuleList(nn.LayerNorm(c, config.eps) for c in config.channels)
        self.feature_norm = nn.LayerNorm(spec.features, config.eps)
        self.project = nn.Linear(spec.features, spec.width)
        init_linear(self.project)
        position = (spec.width, config.position_kernel, config.position_groups)
        several = config.position_layers > 1
        self.position = ConvPositions(*position, config.position_layers) if several else ConvPosition(*position)
        self.norm = nn.LayerNorm(spec.width, config.eps)
        self.mask = MaskVector(spec.width) if mask else None

    def sites(self, units: Units) -> Sites:
        """Frames; one is real where all samples that it sees are. A shorter row keeps its first frame."""
        frames = self.config.frames(units.sites.n)
        sample = units.sites.sample[:, :frames]
        place = torch.arange(frames, device=sample.device).expand(sample.shape[0], -1)
        valid = None
        if units.sites.valid is not None:
            real = self.config.frames(units.sites.valid.sum(1, keepdim=True)).clamp_min(1)
            valid = place < real
        return Sites(sample=sample, place=place, valid=valid)

    def features(self, units: Units, sites: Sites, keep: Tensor | None) -> Tensor | tuple[Tensor, dict[str, Term]]:
        """(B,N,F) layer-normed output of the convolutions, before any mask; and the penalty on its size."""
        if keep is not None:
            raise Mismatch("embedder 'waveform' computes all frames: use a corruption that replaces, not drops")
        x = self.convolve(units.values.transpose(1, 2)).transpose(1, 2)  # (B,N,F)
        x = x.detach() + self.config.gradient * (x - x.detach())  # the value of x, exactly
        features = self.feature_norm(x)
        if not self.config.penalty:
            return features
        return features, {"penalty": self.size(x, sites)}

    def convolve(self, x: Tensor) -> Tensor:
        """(B,1,N) samples -> (B,F,frames)."""
        for i, layer in enumerate(self.convolutions):
            x = layer(x)
            if self.layer_norms is not None:
                x = self.layer_norms[i](x.transpose(1, 2)).transpose(1, 2)
            elif i == 0 and self.group_norm is not None:
                x = self.group_norm(x)
            x = F.gelu(x)
        return x

    def size(self, x: Tensor, sites: Sites) -> Term:
        """Mean square of (B,N,F) over real frames (section 4.2, "L2 penalty to the activations")."""
        square = x.float().square().mean(-1)
        real = sites.real().to(square.dtype)
        return Term((square * real).sum(), real.sum(), self.config.penalty)

    def place(self, features: Tensor, plan: Plan) -> Tokens:
        x = self.drop(self.project(features))
        if plan.replace is not None and self.mask is not None:
            x = self.mask(x, plan.replace)
        if plan.sites.valid is not None:  # padding must not reach real frames through the convolution
            x = x * plan.sites.valid[..., None]
        x = self.drop(self.norm(x + self.position(x)))
        return Tokens(x=x, sites=plan.sites)

    def drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.config.dropout, self.training) if self.config.dropout else x
