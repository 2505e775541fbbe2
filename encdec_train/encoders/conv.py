"""A convolutional encoder of pictures or waveforms, with strides and residual units.

By its words the encoder of VQ-VAE (van den Oord et al. 2017, arXiv:1711.00937, section 4.1) or of EnCodec (Défossez
et al. 2022, arXiv:2210.13438, section 3.1, figure 1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from encdec_train.nn.conv import ConvStackConfig, down_stack, lattice_of, to_maps, to_rows
from encdec_train.registry import encoders
from encdec_train.types import Attend, Mismatch, Sites, Spec, Tokens


@dataclass(kw_only=True)
class ConvEncoderConfig(ConvStackConfig):
    width: int = 64  # D: channels that come out

    def spec(self, upstream: Spec) -> Spec:
        noun = "encoder 'conv'"
        grid = lattice_of(upstream, noun)
        self.check(noun)
        if self.width < 1:
            raise Mismatch(f"{noun}.width: {self.width} is below 1")
        if self.lstm and len(grid) > 1:
            raise Mismatch(f"{noun}.lstm runs along a line, the lattice has {len(grid)} dimensions")
        coarse = self.coarse(grid)
        return replace(
            upstream,
            width=self.width,
            length=math.prod(coarse),
            max_len=0,
            grid=coarse,
            coords=len(coarse),
            edges=False,
            rows="coarse" if self.stride > 1 else upstream.rows,
        )


@encoders.register("conv", ConvEncoderConfig)
class ConvEncoder(nn.Module):
    """Vectors on a lattice (B,N,C) -> (B,n,D) on a lattice `stride` times coarser. `width` is D."""

    def __init__(self, config: ConvEncoderConfig, upstream: Spec) -> None:
        super().__init__()
        self.config, self.width = config, config.width
        self.layers = down_stack(len(lattice_of(upstream, "encoder 'conv'")), upstream.width, config.width, config)

    def forward(self, tokens: Tokens, attend: Attend | None = None) -> Tokens:
        if attend is not None and not (self.config.causal and attend.only_causal):
            raise Mismatch("encoder 'conv' reads what stands around: the corruption's attention pattern is not its own")
        x = self.layers(to_maps(tokens))
        return replace(tokens, x=to_rows(x), sites=coarse_sites(tokens.sites, tuple(x.shape[2:]), self.config.stride))


def coarse_sites(sites: Sites, grid: tuple[int, ...], stride: int) -> Sites:
    """Sites of the coarser lattice: new places and coordinates, the key of the row; real where any finer site is."""
    axes = [torch.arange(side, device=sites.sample.device) for side in grid]
    coords = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).flatten(0, -2).float()  # (n,P)
    rows, n = sites.rows, len(coords)
    valid: Tensor | None = None
    if sites.valid is not None and len(grid) == 1:
        valid = sites.valid[:, ::stride]
    return Sites(
        sample=sites.sample[:, :1].expand(rows, n),
        place=torch.arange(n, device=coords.device).expand(rows, n),
        coords=coords.expand(rows, -1, -1),
        valid=valid,
        grid=grid,
    )
