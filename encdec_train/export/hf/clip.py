"""The two towers of transformers' `CLIPModel` as embedders and encoders of ours; read only.

Both end with a norm here: of the pictures' tower transformers norms the class token alone, when it pools.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from encdec_train.embedders.ids import IdsConfig, IdsPosition
from encdec_train.embedders.linear import LinearEmbedderConfig, Position
from encdec_train.encoders.transformer import TransformerConfig
from encdec_train.export.hf.bert import check
from encdec_train.export.hf.pairs import Pairs, affine, depth, join, layers
from encdec_train.nn.norm import Norm
from encdec_train.types import Mismatch

BLOCK = {
    "norm": ("layer_norm1",),
    "attention.qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "attention.out": ("self_attn.out_proj",),
    "mlp_norm": ("layer_norm2",),
    "mlp.up": ("mlp.fc1",),
    "mlp.down": ("mlp.fc2",),
}
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
    "hidden_dropout": 0.0,
    "final_dropout": 0.0,
    "head_width": None,
}


def image_from_hf(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The pictures' tower of a `CLIPModel` as a run's parts name it."""
    found = join(_pairs(state, "vision_model", "post_layernorm"), state)
    found |= join(affine("encoder.main.input_norm", "vision_model.pre_layrnorm"), state)  # spelt so
    places = state["vision_model.embeddings.position_embedding.weight"]
    patches = state["vision_model.embeddings.patch_embedding.weight"]  # (D,C,p,p), no bias
    # the class token stands nowhere here
    found["encoder.main.tokens"] = (state["vision_model.embeddings.class_embedding"] + places[0])[None]
    found["embedder.main.positions.weight"] = places[1:]
    found["embedder.main.project.weight"] = patches.permute(0, 2, 3, 1).flatten(1)
    found["embedder.main.project.bias"] = torch.zeros_like(patches[:, 0, 0, 0])
    return found


def text_from_hf(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The texts' tower of a `CLIPModel` as a run's parts name it."""
    tables = {
        "embedder.main.table.weight": ("text_model.embeddings.token_embedding.weight",),
        "embedder.main.positions.weight": ("text_model.embeddings.position_embedding.weight",),
    }
    return join({**_pairs(state, "text_model", "final_layer_norm"), **tables}, state)


def _pairs(state: Mapping[str, Tensor], tower: str, last: str) -> Pairs:
    found = affine("encoder.main.norm", f"{tower}.{last}")
    for i in range(depth(state, f"{tower}.encoder.layers.")):
        found |= layers(f"encoder.main.blocks.{i}", f"{tower}.encoder.layers.{i}", BLOCK)
    return found


def image_arguments(
    embedder: LinearEmbedderConfig, encoder: TransformerConfig, *, grid: tuple[int, int], patch: int, channels: int
) -> dict[str, Any]:
    """Arguments of transformers' `CLIPVisionConfig`.

    Raises:
        Mismatch: a part is not what CLIP can say.
    """
    check("CLIP", "embedder", embedder, {"position": Position.learned, "norm": Norm.none})
    if grid[0] != grid[1]:
        raise Mismatch(f"CLIP's pictures are squares, these have {grid[0]} x {grid[1]} patches")
    own = {"causal": False, "input_norm": True, "prefix": 1}
    return {
        **_arguments(encoder, own),
        "image_size": grid[0] * patch,
        "patch_size": patch,
        "num_channels": channels,
    }


def text_arguments(embedder: IdsConfig, encoder: TransformerConfig, *, words: int, positions: int) -> dict[str, Any]:
    """Arguments of transformers' `CLIPTextConfig`.

    Raises:
        Mismatch: a part is not what CLIP can say.
    """
    own = {"position": IdsPosition.learned, "axes": 1, "types": 0, "norm": Norm.none, "scale": False}
    check("CLIP", "embedder", embedder, own)
    causal = {"causal": True, "input_norm": False, "prefix": 0}
    return {**_arguments(encoder, causal), "vocab_size": words, "max_position_embeddings": positions}


def _arguments(encoder: TransformerConfig, own: Mapping[str, Any]) -> dict[str, Any]:
    check("CLIP", "encoder", encoder, {**_ENCODER, **own})
    return {
        "hidden_size": encoder.width,
        "num_hidden_layers": encoder.depth,
        "num_attention_heads": encoder.heads,
        "intermediate_size": encoder.hidden or 4 * encoder.width,
        "hidden_act": {"gelu_tanh": "gelu_new"}.get(encoder.activation.value, encoder.activation.value),
        "attention_dropout": encoder.attention_dropout,
        "layer_norm_eps": encoder.eps,
    }
