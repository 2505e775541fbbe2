"""Strided convolutions of a waveform and nothing else: a frame knows the samples that it sees, and no others.

van den Oord et al. 2018, "Contrastive predictive coding" (arXiv:1807.03748), section 3.1: five layers of 512 channels,
strides (5,4,2,2,2), filters (10,8,4,4,4), rectified: a frame every 160 samples.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch.nn.functional as F
from torch import Tensor, nn

from encdec_train.nn.frames import FramesConfig, frame_sites
from encdec_train.nn.mask import MaskVector, seat
from encdec_train.registry import embedders
from encdec_train.types import Mismatch, Plan, Sites, Spec, Tokens, Units


@dataclass(kw_only=True)
class FramesEmbedderConfig(FramesConfig):
    channels: list[int] = field(default_factory=lambda: [512] * 5)
    kernels: list[int] = field(default_factory=lambda: [10, 8, 4, 4, 4])
    strides: list[int] = field(default_factory=lambda: [5, 4, 2, 2, 2])

    def spec(self, view: Spec) -> Spec:
        return self.frames_spec("embedder 'frames'", view)


@embedders.register("frames", FramesEmbedderConfig)
class Frames(nn.Module):
    """(B,N,1) samples -> (B,frames,channels[-1])."""

    def __init__(self, config: FramesEmbedderConfig, view: Spec, *, mask: bool) -> None:
        super().__init__()
        self.config = config
        self.convolutions = config.convolutions(bias=True)
        self.mask = MaskVector(config.channels[-1]) if mask else None

    def sites(self, units: Units) -> Sites:
        return frame_sites(units, self.config)

    def features(self, units: Units, sites: Sites, keep: Tensor | None) -> Tensor:
        if keep is not None:
            raise Mismatch("embedder 'frames' computes all frames: use a corruption that replaces, not drops")
        x = units.values.transpose(1, 2)
        for layer in self.convolutions:
            x = F.relu(layer(x))
        return x.transpose(1, 2)

    def place(self, features: Tensor, plan: Plan) -> Tokens:
        x, sites = seat(features, plan, self.mask)
        return Tokens(x=x, sites=sites)
