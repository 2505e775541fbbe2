"""ResNet weights under timm's names, which are also torchvision's, both ways. timm itself is not needed."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

CLASSIFIER = "fc."  # timm's last layer, which an encoder does not have
OUTER = {"stem": "conv1", "norm": "bn1"}  # our name: timm's
INNER = {"convs": "conv", "norms": "bn"}  # lists here, numbered from 1 there


def to_timm(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state of an encoder `resnet` under timm's names, without a classifier."""
    return {_timm_name(name): value for name, value in state.items()}


def from_timm(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state of a timm or torchvision ResNet, less its classifier, as an encoder `resnet` names it."""
    return {_our_name(name): value for name, value in state.items() if not name.startswith(CLASSIFIER)}


def _timm_name(name: str) -> str:
    """`stages.0.1.convs.2.weight` -> `layer1.1.conv3.weight`."""
    top, rest = name.split(".", 1)
    if top in OUTER:
        return f"{OUTER[top]}.{rest}"
    stage, block, kind, rest = rest.split(".", 3)
    where = f"layer{int(stage) + 1}.{block}"
    if kind == "shortcut":
        return f"{where}.downsample.{rest}"
    index, rest = rest.split(".", 1)
    return f"{where}.{INNER[kind]}{int(index) + 1}.{rest}"


def _our_name(name: str) -> str:
    """`layer1.1.conv3.weight` -> `stages.0.1.convs.2.weight`."""
    for ours, theirs in OUTER.items():
        if name.startswith(f"{theirs}."):
            return name.replace(theirs, ours, 1)
    layer, block, part, rest = name.split(".", 3)
    where = f"stages.{int(layer.removeprefix('layer')) - 1}.{block}"
    if part == "downsample":
        return f"{where}.shortcut.{rest}"
    kind = next(ours for ours, theirs in INNER.items() if part.startswith(theirs))
    return f"{where}.{kind}.{int(part.removeprefix(INNER[kind])) - 1}.{rest}"
