"""Positions: fixed sine and cosine, relative bias by bucket, convolutional."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encdec_train.types import Sites


def sincos(coords: Tensor, width: int) -> Tensor:
    """Fixed positions (...,P) -> (...,width), the last coordinate (x) first, as in MAE's code.

    Each axis takes width / P: sines, then cosines, of frequencies 10000 ** (-i / (width / 2P)) (Vaswani et al. 2017,
    section 3.5; two-dimensional as in MoCo v3 and MAE). What does not divide is zero.
    """
    axes = coords.shape[-1]
    half = width // (2 * axes)
    steps = torch.arange(half, dtype=torch.float64, device=coords.device)
    frequency = (10000.0 ** (-steps / half)).float()
    angles = coords.flip(-1)[..., None].float() * frequency  # (...,P,half)
    parts = torch.cat([angles.sin(), angles.cos()], dim=-1).flatten(-2)
    return F.pad(parts, (0, width - parts.shape[-1]))


class RelativeBias(nn.Module):
    """T5's learned bias for the distance between key and query (Raffel et al. 2020, section 2.1).

    Half of the buckets are exact distances, the rest grow logarithmically up to `max_distance`. Shared by all layers.
    """

    def __init__(self, heads: int, buckets: int, max_distance: int, *, bidirectional: bool) -> None:
        super().__init__()
        self.buckets, self.max_distance, self.bidirectional = buckets, max_distance, bidirectional
        self.table = nn.Embedding(buckets, heads)

    def bucket(self, distance: Tensor) -> Tensor:
        """int64 bucket of key place minus query place."""
        buckets, base = self.buckets, torch.zeros_like(distance)
        if self.bidirectional:
            buckets //= 2
            base = (distance > 0).long() * buckets
            distance = distance.abs()
        else:
            distance = (-distance).clamp_min(0)
        exact = buckets // 2
        scale = (buckets - exact) / math.log(self.max_distance / exact)
        far = exact + (torch.log(distance.clamp_min(1).float() / exact) * scale).long()
        return base + torch.where(distance < exact, distance, far.clamp_max(buckets - 1))

    def forward(self, sites: Sites) -> Tensor:
        """(H,L,L) by place, for every place that the sites can hold."""
        length = sites.max_len or sites.n
        place = torch.arange(length, device=self.table.weight.device)
        return self.table(self.bucket(place[None, :] - place[:, None])).permute(2, 0, 1)


class ConvPosition(nn.Module):
    """wav2vec 2.0's positions: a grouped convolution over time, weight-normalised (Baevski et al. 2020, section 2)."""

    def __init__(self, width: int, kernel: int, groups: int) -> None:
        super().__init__()
        conv = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=groups)
        nn.init.normal_(conv.weight, std=math.sqrt(4.0 / (kernel * width)))
        assert conv.bias is not None
        nn.init.zeros_(conv.bias)
        self.conv = nn.utils.parametrizations.weight_norm(conv, dim=2)
        self.trim = 1 - kernel % 2  # an even kernel gives one step too many

    def forward(self, x: Tensor) -> Tensor:
        """(B,N,D) -> (B,N,D), to be added."""
        y = self.conv(x.transpose(1, 2))
        if self.trim:
            y = y[..., : -self.trim]
        return F.gelu(y).transpose(1, 2)


class ConvPositions(nn.Module):
    """data2vec's positions of speech: several grouped convolutions over time, each normalised without parameters.

    Baevski et al. 2022 (arXiv:2202.03555), section 4.2; fairseq's `pos_conv_depth`.
    """

    def __init__(self, width: int, kernel: int, groups: int, layers: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=groups) for _ in range(layers)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B,N,D) -> (B,N,D), to be added."""
        n, y = x.shape[1], x.transpose(1, 2)
        for conv in self.convs:
            y = F.layer_norm(conv(y)[..., :n].transpose(1, 2), x.shape[-1:])  # an even kernel gives one step too many
            y = F.gelu(y).transpose(1, 2)
        return y.transpose(1, 2)
