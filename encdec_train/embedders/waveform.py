"""The convolutional feature encoder of wav2vec 2.0: raw samples to frames, frames to model vectors.

Baevski et al. 2020 (arXiv:2006.11477), section 2 "Feature encoder" and section 4.2: seven blocks of 512
channels, strides (5,2,2,2,2,2,2), kernels (10,3,3,3,3,2,2): a frame sees 400 samples (25 ms at 16 kHz), one
every 320 (20 ms). As in Base, only the first block is normalised (a group for each channel); none has a
bias.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

import torch.nn.functional as F
from torch import Tensor, nn

from encdec_train.nn.frames import FramesConfig, frame_sites
from encdec_train.nn.mask import MaskVector
from encdec_train.nn.position import ConvPosition, ConvPositions
from encdec_train.nn.transformer import init_linear
from encdec_train.registry import embedders
from encdec_train.types import Mismatch, Plan, Sites, Spec, Term, Tokens, Units


class ConvNorm(Enum):
    """What normalises the convolutions."""

    group = "group"  # the first one alone, each channel over time
    layer = "layer"  # every one, each frame over its channels


@dataclass(kw_only=True)
class WaveformEmbedderConfig(FramesConfig):
    width: int | None = None  # none: the width of the encoder that reads it
    norm: ConvNorm = ConvNorm.group
    gradient: float = 0.1  # what the gradient to the convolutions is multiplied by
    penalty: float = 10.0  # weight of the mean square of the last convolution's output; 0: none
    dropout: float = 0.1  # of the projected features, and again with positions added
    position_kernel: int = 128  # frames
    position_groups: int = 16
    position_layers: int = 1  # convolutions; more than one are normalised instead of their weights
    eps: float = 1e-5  # of the layer norms

    def spec(self, view: Spec) -> Spec:
        found = self.frames_spec("embedder 'waveform'", view)
        width = self.width or view.width
        if width % self.position_groups:
            raise Mismatch(f"embedder 'waveform'.position_groups: {self.position_groups} does not divide width {width}")
        if self.position_layers < 1:
            raise Mismatch(f"embedder 'waveform'.position_layers: {self.position_layers} is below 1")
        if not 0 <= self.dropout < 1:
            raise Mismatch(f"embedder 'waveform'.dropout: {self.dropout} is not in [0, 1)")
        return replace(found, width=width)


@embedders.register("waveform", WaveformEmbedderConfig)
class Waveform(nn.Module):
    """(B,N,1) samples to frames; the features are shared by the context network and the quantiser."""

    def __init__(self, config: WaveformEmbedderConfig, view: Spec, *, mask: bool) -> None:
        super().__init__()
        spec = config.spec(view)
        self.config = config
        self.convolutions = config.convolutions(bias=False)
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
        return frame_sites(units, self.config)

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
