"""From the hidden states of a pyramid up to the finest lattice: each joins its own level on the way, as in a U-Net.

SparK's decoder (Tian et al. 2023, arXiv:2301.03580, section 3; the authors' decoder.py and spark.py): holes in what the
encoder gives are filled with the mask vector of their level, so that all that follows is dense.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

from torch import Tensor, nn

from encdec_train.nn.batch_norm import BatchNorm2d
from encdec_train.nn.lattice import cells, cut, plane
from encdec_train.nn.mask import MaskVector
from encdec_train.nn.norm import MapBatchNorm
from encdec_train.registry import decoders
from encdec_train.types import Mismatch, Plan, Spec, Tokens

NOUN = "decoder 'unet'"


@dataclass(kw_only=True)
class UnetConfig:
    width: int = 768  # channels of the coarsest level; every finer one has half of them
    levels: int = 5  # times that the sides of the lattice double

    def spec(self, memory: Spec | None, inputs: Spec | None, sites: Spec) -> Spec:
        if memory is None or inputs is not None:
            raise Mismatch(f"{NOUN} reads a memory and no inputs of its own")
        if self.levels < 1 or self.width < 1 or self.width % 2**self.levels:
            raise Mismatch(f"{NOUN}.width: {self.width} cannot be halved {self.levels} times")
        coarse = plane(NOUN, memory)
        for level, (_, _, grid) in enumerate(self.joins(memory)):
            if grid != tuple(side * 2**level for side in coarse):
                raise Mismatch(f"{NOUN}: the lattice of level {level}, {grid}, has not twice the sides of the last")
        assert sites.raw is not None
        if sites.raw.kind != "values":
            raise Mismatch(f"{NOUN} writes values, the view has {sites.raw.kind}")
        sides = self.patch(memory, sites)
        if sites.raw.width % (sides[0] * sides[1]):
            raise Mismatch(f"{NOUN}: {sites.raw.width} values of a site are no {sides[0]} x {sides[1]} cells")
        return replace(sites, width=sites.raw.width, rows="all", codes=0, layers=())

    def emits(self, spec: Spec) -> list[int]:
        """The last hidden states of the encoder, as many as there are levels that double."""
        return [-1 - level for level in range(min(self.levels, len(spec.layers)))]

    def joins(self, memory: Spec) -> list[tuple[int, int, tuple[int, ...]]]:
        """Layer, channels and lattice of what joins each level, from the coarsest."""
        found = [(len(memory.layers) + i, memory.layers[i]) for i in self.emits(memory)]
        if not found:
            raise Mismatch(f"{NOUN} reads hidden states, the encoder has none to hand out")
        return [(index, layer.width, layer.grid or memory.grid or ()) for index, layer in found]

    def patch(self, memory: Spec, sites: Spec) -> tuple[int, int]:
        """Sides of the block of finest cells that make a site."""
        fine = [side * 2**self.levels for side in plane(NOUN, memory)]
        whole = plane(NOUN, sites)
        if any(side % n for side, n in zip(fine, whole, strict=True)):
            raise Mismatch(f"{NOUN}: {self.levels} levels end on a lattice of {fine}, not tiled by sites of {whole}")
        return fine[0] // whole[0], fine[1] // whole[1]


class Fill(nn.Module):
    """Norm, the mask vector where no cell is real, and a projection to the decoder's channels."""

    def __init__(self, before: int, after: int, kernel: int) -> None:
        super().__init__()
        self.norm, self.mask = MapBatchNorm(before), MaskVector(before)
        self.project = nn.Conv2d(before, after, kernel, padding=kernel // 2)

    def forward(self, x: Tensor, real: Tensor | None) -> Tensor:
        """(B,before,h,w), with `real` (B,1,h,w) or None -> (B,after,h,w)."""
        x = self.norm(x, real)
        if real is not None:
            x = self.mask(x.permute(0, 2, 3, 1), ~real[:, 0]).permute(0, 3, 1, 2)
        return self.project(x)


def up(before: int, after: int) -> nn.Sequential:
    """(B,before,h,w) -> (B,after,2h,2w): a transposed convolution, and two convolutions with norms."""
    return nn.Sequential(
        nn.ConvTranspose2d(before, before, 4, 2, 1),
        nn.Conv2d(before, before, 3, padding=1, bias=False),
        BatchNorm2d(before),
        nn.ReLU6(inplace=True),
        nn.Conv2d(before, after, 3, padding=1, bias=False),
        BatchNorm2d(after),
    )


@decoders.register("unet", UnetConfig)
class Unet(nn.Module):
    """memory (B,n,D) with its hidden states -> (B,N,C), all sites of the view."""

    def __init__(self, config: UnetConfig, memory: Spec, inputs: Spec | None, sites: Spec) -> None:
        super().__init__()
        self.joins, self.patch = config.joins(memory), config.patch(memory, sites)
        widths = [config.width // 2**level for level in range(config.levels + 1)]
        self.fills = nn.ModuleList(
            Fill(before, after, 3 if level else 1)
            for level, ((_, before, _), after) in enumerate(zip(self.joins, widths, strict=False))
        )
        self.ups = nn.ModuleList(up(before, after) for before, after in pairwise(widths))
        channels = config.spec(memory, inputs, sites).width // (self.patch[0] * self.patch[1])
        self.project = nn.Conv2d(widths[-1], channels, 1)
        self._init()

    def _init(self) -> None:
        """As in the authors' decoder.py."""
        for module in [*self.ups.modules(), self.project]:
            if isinstance(module, nn.Conv2d):
                nn.init.trunc_normal_(module.weight, std=0.02)
            elif isinstance(module, nn.ConvTranspose2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def forward(self, memory: Tokens, inputs: Tokens | None, plan: Plan) -> Tokens:
        assert memory.layers is not None, "the build asks the encoder for them"
        real, x = cells(plan.sites), None
        for level, rise in enumerate(self.ups):
            if level < len(self.fills):
                index, _, grid = self.joins[level]
                maps = memory.layers[index].transpose(1, 2).unflatten(2, grid)
                dense = self.fills[level](maps, None if real is None else real.under(maps))
                x = dense if x is None else x + dense
            x = rise(x)
        values = cut(self.project(x).permute(0, 2, 3, 1), self.patch)
        return replace(memory, x=values, sites=plan.sites, layers=None, codes=None)
