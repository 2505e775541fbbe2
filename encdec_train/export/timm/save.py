"""A folder as `timm.create_model("local-dir:...")` reads it, and the proof that it gives the same outputs as ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from encdec_train.data.transform import Transform
from encdec_train.data.transforms.image import ImageTransform
from encdec_train.encoders.resnet import ResidualBlock, ResNetConfig, Stem
from encdec_train.export.held import Held
from encdec_train.export.hf.save import compare_states, sample
from encdec_train.export.timm.resnet import to_timm
from encdec_train.library import need
from encdec_train.step import Parts
from encdec_train.types import Mismatch

NAMES: dict[tuple[ResidualBlock, tuple[int, ...]], str] = {  # of timm's models: what they are made of
    (ResidualBlock.basic, (2, 2, 2, 2)): "resnet18",
    (ResidualBlock.basic, (3, 4, 6, 3)): "resnet34",
    (ResidualBlock.bottleneck, (3, 4, 6, 3)): "resnet50",
    (ResidualBlock.bottleneck, (3, 4, 23, 3)): "resnet101",
    (ResidualBlock.bottleneck, (3, 8, 36, 3)): "resnet152",
}


def architecture(encoder: Any) -> str:
    """Timm's name of a model of these parts.

    Raises:
        Mismatch: timm has none.
    """
    if not isinstance(encoder, ResNetConfig):
        kind = type(encoder).__name__.removesuffix("Config")
        raise Mismatch(f"export --to timm: only residual networks are known here, the encoder is a {kind}")
    name = NAMES.get((encoder.block, tuple(encoder.layers)))
    if name is None or encoder.stem is not Stem.imagenet or encoder.channels != 64 or encoder.multiplier != 1:
        raise Mismatch(
            f"export --to timm: no model there has block={encoder.block.value}, layers={encoder.layers}, "
            f"stem={encoder.stem.value}, channels={encoder.channels}, multiplier={encoder.multiplier}"
        )
    return name


def save(folder: Path, kept: Held, parts: Parts, transform: Transform) -> str:
    """Write the weights and their description, load them back, compare. Returns timm's name of the model.

    Raises:
        Mismatch: timm has no model for these parts, or gives other outputs.
    """
    name = architecture(kept.ours.encoder)
    view = transform.of(kept.path.view)
    if not isinstance(view, ImageTransform):
        raise Mismatch("export --to timm: the view holds no pictures")
    library = need("timm", "timm", "export --to timm")
    state = kept.state(parts)
    weights = to_timm({k.removeprefix("encoder.main."): v for k, v in state.items() if k.startswith("encoder.main.")})
    save_file({key: value.contiguous() for key, value in weights.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(described(name, kept, view), indent=1) + "\n", encoding="utf-8")
    model = library.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0).eval()
    batch, given = sample(kept, transform)
    with torch.no_grad():
        states = model.forward_features(given["pixel_values"])
    compare_states(f"timm's {name}", kept, parts, batch, states)
    return name


def described(name: str, kept: Held, view: ImageTransform) -> dict[str, Any]:
    """config.json as timm has it on the hub."""
    data = view.data
    return {
        "architecture": name,
        "num_classes": 0,
        "num_features": kept.ours.encoder.width,
        "model_args": {"in_chans": data.channels},
        "pretrained_cfg": {
            "input_size": [data.channels, data.size, data.size],
            "interpolation": "bicubic",
            "crop_pct": 1.0,
            "mean": list(data.mean),
            "std": list(data.std),
            "num_classes": 0,
            "first_conv": "conv1",
            "classifier": "fc",
        },
    }
