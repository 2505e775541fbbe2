"""Frames of a waveform: what a stack of strided convolutions makes of it, and where they stand."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn

from encdec_train.types import Mismatch, Sites, Spec, Units

Count = TypeVar("Count", int, Tensor)


class Framed(Protocol):
    def frames(self, samples: Count) -> Count:
        """Number of frames whose whole receptive field lies within `samples`."""


@dataclass(kw_only=True)
class FramesConfig:
    channels: list[int] = field(default_factory=lambda: [512] * 7)  # of each convolution
    kernels: list[int] = field(default_factory=lambda: [10, 3, 3, 3, 3, 2, 2])  # in samples of the layer below
    strides: list[int] = field(default_factory=lambda: [5, 2, 2, 2, 2, 2, 2])

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

    def frames_spec(self, noun: str, view: Spec) -> Spec:
        """Of what the last convolution makes of the samples of one channel."""
        if view.kind != "values" or view.width != 1:
            raise Mismatch(f"{noun} needs samples of one channel, the view gives {view.width} {view.kind}")
        layers = [len(self.channels), len(self.kernels), len(self.strides)]
        if len(set(layers)) > 1 or not layers[0]:
            raise Mismatch(
                f"{noun}: channels, kernels and strides need one entry for each layer, "
                f"they have {layers[0]}, {layers[1]} and {layers[2]}"
            )
        if min(*self.channels, *self.kernels, *self.strides) < 1:
            raise Mismatch(f"{noun}: channels, kernels and strides must be at least 1")
        if view.length and view.length < self.receptive():
            raise Mismatch(f"{noun}: a frame sees {self.receptive()} samples, the view has {view.length}")
        length, width = self.frames(view.length) if view.length else 0, self.channels[-1]
        return replace(view, kind="vectors", width=width, length=length, features=width, grid=None, raw=view)

    def convolutions(self, *, bias: bool) -> nn.ModuleList:
        """The layers, (B,1,samples) to (B,channels[-1],frames), with the start for rectifiers (He et al. 2015)."""
        shapes = zip([1, *self.channels[:-1]], self.channels, self.kernels, self.strides, strict=True)
        layers = [nn.Conv1d(below, above, kernel, stride, bias=bias) for below, above, kernel, stride in shapes]
        for layer in layers:
            nn.init.kaiming_normal_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        return nn.ModuleList(layers)


def frame_sites(units: Units, config: Framed) -> Sites:
    """Frames; one is real where all samples that it sees are. A shorter row keeps its first frame."""
    sample = units.sites.sample[:, : config.frames(units.sites.n)]
    place = torch.arange(sample.shape[1], device=sample.device).expand(sample.shape[0], -1)
    valid = None
    if units.sites.valid is not None:
        valid = place < config.frames(units.sites.valid.sum(1, keepdim=True)).clamp_min(1)
    return Sites(sample=sample, place=place, valid=valid)
