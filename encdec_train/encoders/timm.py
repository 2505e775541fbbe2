"""Any model of pictures of the library timm, by its name.

It is made without its classifier and gives what timm's `forward_features` does: tokens behind class tokens, or the
last map of a convolutional network. What it gives is found on the meta device, before any weights exist.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from encdec_train import hub
from encdec_train.nn.borrowed import (
    Look,
    coarse_spec,
    coarse_tokens,
    line,
    picture,
    picture_grid,
    retire,
    square_lattice,
    untrained,
)
from encdec_train.registry import encoders
from encdec_train.types import Attend, Mismatch, Spec, Tokens

PART = "encoder 'timm'"


@dataclass(kw_only=True)
class TimmConfig:
    model: str = "resnet18"  # as timm lists it
    pretrained: bool = False  # begin with the weights that timm names for it
    options: dict[str, Any] = field(default_factory=dict)  # further arguments of timm.create_model

    def spec(self, upstream: Spec) -> Spec:
        found = look(self, upstream)
        return coarse_spec(upstream, found.width, found.prefix, found.grid)


def look(config: TimmConfig, upstream: Spec) -> Look:
    """What the model makes of `upstream`; raise `Mismatch` where it cannot read that."""
    size = picture_grid(PART, upstream)
    return _look(config.model, json.dumps(config.options, sort_keys=True), size, upstream.width)


@lru_cache(maxsize=8)
def _look(model: str, options: str, size: tuple[int, int], channels: int) -> Look:
    with torch.device("meta"):
        found = make(TimmConfig(model=model, options=json.loads(options)), channels)
        try:
            x = features(found, torch.zeros(2, channels, *size))
        except Exception as error:
            said = f"{PART}: '{model}' does not read pictures of {(channels, *size)}"
            raise Mismatch(f"{said} ({line(error)})") from error
    unused = untrained(found, x)
    prefix = 0 if x.dim() == 4 else getattr(found, "num_prefix_tokens", 0)
    width = x.shape[1] if x.dim() == 4 else x.shape[-1]
    return Look(width=width, prefix=prefix, grid=square_lattice(PART, x, prefix, size), unused=unused)


def make(config: TimmConfig, channels: int, *, pretrained: bool = False) -> nn.Module:
    """The model without its classifier, on the default device.

    Raises:
        Mismatch: timm is not installed, or cannot make it.
    """
    try:
        import timm
    except ModuleNotFoundError as error:
        raise Mismatch(f"{PART} needs the extra 'timm': pip install 'encdec-train[timm]'") from error
    except Exception as error:  # a torchvision that does not suit torch
        raise Mismatch(f"{PART}: timm is installed but does not import ({line(error)})") from error
    if pretrained:
        hub.reaches()
    try:
        made: nn.Module = timm.create_model(
            config.model, pretrained=pretrained, num_classes=0, in_chans=channels, **config.options
        )
    except Exception as error:
        raise Mismatch(f"{PART}: '{config.model}' cannot be made ({line(error)})") from error
    return made


def features(model: Any, pixels: Tensor) -> Tensor:
    """(B,C,H,W) -> (B,D,h,w), or (B,prefix+h*w,D)."""
    x: Tensor = model.forward_features(pixels)
    return x.permute(0, 3, 1, 2) if str(getattr(model, "output_fmt", "")).endswith("NHWC") else x


@encoders.register("timm", TimmConfig)
class Timm(nn.Module):
    """Pixels (B,H*W,C) -> (B,prefix+h*w,D) by a model of timm."""

    def __init__(self, config: TimmConfig, upstream: Spec) -> None:
        super().__init__()
        found = look(config, upstream)
        self.width, self.prefix = found.width, found.prefix
        weights = config.pretrained and torch.empty(0).device.type != "meta"  # the meta device has no room for any
        self.model = make(config, upstream.width, pretrained=weights)
        retire(self.model, found.unused)

    def portable(self) -> dict[str, Any]:
        """Values of the configuration that build this part where the weights that it began with are not at hand."""
        return {"pretrained": False}

    def forward(self, tokens: Tokens, attend: Attend | None = None) -> Tokens:
        if attend is not None:
            raise Mismatch(f"{PART} reads whole pictures: the corruption's attention pattern has no meaning here")
        pixels = picture(PART, tokens)
        x = features(self.model, pixels)
        grid = square_lattice(PART, x, self.prefix, (pixels.shape[2], pixels.shape[3]))
        return coarse_tokens(tokens, x, self.prefix, grid)
