"""ViT under transformers' names (`ViTModel`), both ways; `ViTMAEModel` has the same.

Our patches are rows of pixels, columns, channels; theirs pass a convolution whose weight has the channels first. Their
positions are stored, ours are computed or, if learned, have none for the class token.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from encdec_train.embedders.linear import LinearEmbedderConfig, Position
from encdec_train.encoders.transformer import TransformerConfig
from encdec_train.export.hf.bert import check
from encdec_train.export.hf.pairs import Pairs, affine, depth, join, layers, split
from encdec_train.export.hf.vit_mae import BLOCK, PATCHES, positions
from encdec_train.nn.norm import Norm
from encdec_train.types import Mismatch

CONVOLUTION = "embeddings.patch_embeddings.projection.weight"  # (D,C,p,p)
PLACES = "embeddings.position_embeddings"  # (1,1+N,D)
CLASS = "embeddings.cls_token"  # (1,1,D)
LEARNED = "embedder.main.positions.weight"  # (N,D)


def pairs(blocks: int) -> Pairs:
    """All weights that are the same on both sides."""
    found = {
        "embedder.main.project.bias": ("embeddings.patch_embeddings.projection.bias",),
        **affine("encoder.main.norm", "layernorm"),
    }
    for i in range(blocks):
        found.update(layers(f"encoder.main.blocks.{i}", f"layers.{i}", BLOCK))
    return found


def to_hf(state: Mapping[str, Tensor], *, grid: tuple[int, int], patch: int) -> dict[str, Tensor]:
    """The weights of a run's parts under transformers' names.

    Args:
        state: our weights.
        grid: patches along height and width.
        patch: side of a patch in pixels.
    """
    out = split(pairs(depth(state, "encoder.main.blocks.")), state)
    out[CONVOLUTION] = state[PATCHES].unflatten(1, (patch, patch, -1)).permute(0, 3, 1, 2).contiguous()
    out[CLASS] = state["encoder.main.tokens"][None]
    fixed = positions(grid, state[PATCHES].shape[0])
    out[PLACES] = (F.pad(state[LEARNED], (0, 0, 1, 0)) if LEARNED in state else fixed)[None]
    return out


def from_hf(state: Mapping[str, Tensor], *, grid: tuple[int, int], learned: bool) -> dict[str, Tensor]:
    """The weights of a `ViTModel` as a run's parts name them.

    Raises:
        Mismatch: its stored positions are learned ones, ours are sines and cosines.
    """
    out = join(pairs(depth(state, "layers.")), state)
    out[PATCHES] = state[CONVOLUTION].permute(0, 2, 3, 1).flatten(1)  # (D,p,p,C)
    out["encoder.main.tokens"] = state[CLASS][0]
    places = state[PLACES][0]
    if learned:
        out[LEARNED] = places[1:]
        out["encoder.main.tokens"] = out["encoder.main.tokens"] + places[:1]  # the class token stands nowhere here
    elif places.shape[0] != 1 + grid[0] * grid[1] or not torch.allclose(
        places, positions(grid, places.shape[1]), atol=1e-4
    ):
        raise Mismatch("its positions are learned ones of its own: set embedder.position=learned")
    return out


_ENCODER = {
    "norm": Norm.layer,
    "norm_bias": True,
    "norm_first": True,
    "first_norm": True,
    "final_norm": True,
    "gated": False,
    "bias": True,
    "up_bias": True,
    "scale": True,
    "windows": [],
    "rotary": [],
    "slopes": False,
    "layer_scale": None,
    "relative": False,
    "lattice": False,
    "adaptive": False,
    "causal": False,
    "input_norm": False,
    "prefix": 1,
    "head_width": None,
}


def config_to_hf(
    embedder: LinearEmbedderConfig, encoder: TransformerConfig, *, grid: tuple[int, int], patch: int, channels: int
) -> dict[str, Any]:
    """Arguments of transformers' `ViTConfig`.

    Raises:
        Mismatch: a part is not what ViT can say.
    """
    check("ViT", "encoder", encoder, _ENCODER)
    if grid[0] != grid[1]:
        raise Mismatch(f"export to ViT: its pictures are squares, these have {grid[0]} x {grid[1]} patches")
    if embedder.position is Position.none:
        raise Mismatch("export to ViT: embedder has position=none, which ViT cannot say")
    return {
        "hidden_size": encoder.width,
        "num_hidden_layers": encoder.depth,
        "num_attention_heads": encoder.heads,
        "intermediate_size": encoder.hidden or 4 * encoder.width,
        "hidden_act": {"gelu_tanh": "gelu_new"}.get(encoder.activation.value, encoder.activation.value),
        "hidden_dropout_prob": encoder.dropout,
        "attention_probs_dropout_prob": encoder.attention_dropout,
        "layer_norm_eps": encoder.eps,
        "image_size": grid[0] * patch,
        "patch_size": patch,
        "num_channels": channels,
        "qkv_bias": True,
    }
