"""A convolutional decoder from a coarse lattice back to the view's own: pictures or waveforms.

Transposed convolutions as in VQ-VAE (van den Oord et al. 2017, arXiv:1711.00937, section 4.1) and EnCodec (Défossez
et al. 2022, arXiv:2210.13438, section 3.1), or repeated sites and a convolution.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from torch import Tensor, nn

from encdec_train.nn.conv import ConvStackConfig, lattice_of, to_maps, to_rows, up_stack
from encdec_train.registry import decoders
from encdec_train.types import Mismatch, Plan, Spec, Tokens


@dataclass(kw_only=True)
class UpsampleConfig(ConvStackConfig):
    width: int | None = None  # channels that come out; none: of the view's own values
    resize: bool = False  # repeat sites and convolve, instead of transposed convolutions

    def spec(self, memory: Spec | None, inputs: Spec | None, sites: Spec) -> Spec:
        noun = "decoder 'upsample'"
        self.check(noun)
        if memory is None or inputs is not None:
            raise Mismatch(f"{noun} reads a memory and no inputs of its own")
        fine = lattice_of(sites, noun)
        if lattice_of(memory, noun) != self.coarse(fine):
            here, wanted = memory.grid or memory.length, self.coarse(fine)
            raise Mismatch(f"{noun}: its memory is {here}, {fine} comes from {wanted}")
        assert sites.raw is not None
        return replace(sites, width=self.width or sites.raw.width, rows="all", codes=0, layers=())


@decoders.register("upsample", UpsampleConfig)
class Upsample(nn.Module):
    """memory (B,n,D) -> (B,N,width), all sites of the view."""

    def __init__(self, config: UpsampleConfig, memory: Spec, inputs: Spec | None, sites: Spec) -> None:
        super().__init__()
        dims, after = len(lattice_of(memory, "decoder 'upsample'")), config.spec(memory, inputs, sites).width
        self.layers = up_stack(dims, memory.width, after, config, resize=config.resize)

    def forward(self, memory: Tokens, inputs: Tokens | None, plan: Plan) -> Tokens:
        grid = plan.sites.grid or (plan.sites.n,)
        return replace(memory, x=to_rows(cropped(self.layers(to_maps(memory)), grid)), sites=plan.sites, codes=None)


def cropped(x: Tensor, grid: tuple[int, ...]) -> Tensor:
    """The beginning of (B,D,*lattice): strides that do not divide gave a little more."""
    assert math.prod(x.shape[2:]) >= math.prod(grid)
    for dim, side in enumerate(grid, 2):
        x = x.narrow(dim, 0, side)
    return x
