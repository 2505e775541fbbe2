"""ResNet under transformers' names (`ResNetModel`), both ways; transformers is not needed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from encdec_train.encoders.resnet import ResNetConfig, Stem
from encdec_train.types import Mismatch

OURS, THEIRS = "encoder.main.", "embedder.embedder."
OUTER = {"stem": "convolution", "norm": "normalization"}  # our name: theirs
INNER = {"convs": "convolution", "norms": "normalization"}
SHORTCUT = ("convolution", "normalization")  # ours are numbered


def to_hf(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The encoder's weights under transformers' names."""
    return {_their_name(name.removeprefix(OURS)): value for name, value in state.items() if name.startswith(OURS)}


def from_hf(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a `ResNetModel` as a run's parts name them."""
    return {f"{OURS}{_our_name(name)}": value for name, value in state.items()}


def _their_name(name: str) -> str:
    """`stages.0.1.convs.2.weight` -> `encoder.stages.0.layers.1.layer.2.convolution.weight`."""
    top, rest = name.split(".", 1)
    if top in OUTER:
        return f"{THEIRS}{OUTER[top]}.{rest}"
    stage, block, kind, index, rest = rest.split(".", 4)
    where = f"encoder.stages.{stage}.layers.{block}"
    if kind == "shortcut":
        return f"{where}.shortcut.{SHORTCUT[int(index)]}.{rest}"
    return f"{where}.layer.{index}.{INNER[kind]}.{rest}"


def _our_name(name: str) -> str:
    """The inverse of `_their_name`."""
    if name.startswith(THEIRS):
        kind, rest = name.removeprefix(THEIRS).split(".", 1)
        return f"{_key(OUTER, kind)}.{rest}"
    _, _, stage, _, block, part, rest = name.split(".", 6)
    if part == "shortcut":
        kind, rest = rest.split(".", 1)
        return f"stages.{stage}.{block}.shortcut.{SHORTCUT.index(kind)}.{rest}"
    index, kind, rest = rest.split(".", 2)
    return f"stages.{stage}.{block}.{_key(INNER, kind)}.{index}.{rest}"


def _key(names: Mapping[str, str], theirs: str) -> str:
    return next(ours for ours, found in names.items() if found == theirs)


def config_to_hf(encoder: ResNetConfig, channels: int) -> dict[str, Any]:
    """Arguments of transformers' `ResNetConfig`.

    Raises:
        Mismatch: its stem is not theirs, or its norms have another eps.
    """
    if encoder.stem is not Stem.imagenet or encoder.eps != 1e-5:
        raise Mismatch(
            f"export to ResNet: encoder has stem={encoder.stem.value}, eps={encoder.eps}; transformers' ResNet has "
            "stem=imagenet, eps=1e-05"
        )
    return {
        "num_channels": channels,
        "embedding_size": encoder.channels * encoder.multiplier,
        "hidden_sizes": encoder.widths,
        "depths": list(encoder.layers),
        "layer_type": encoder.block.value,
        "hidden_act": "relu",
        "downsample_in_first_stage": False,
        "downsample_in_bottleneck": False,
    }
