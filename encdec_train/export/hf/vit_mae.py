"""MAE under transformers' names (`ViTMAEForPreTraining`), both ways.

Our patches are rows of pixels, columns, channels; theirs pass a convolution whose weight has the channels first. Their
positions are stored, ours are computed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from encdec_train.export.hf.pairs import Pairs, affine, depth, join, layers, split
from encdec_train.nn.position import sincos
from encdec_train.types import Mismatch

PATCHES = "embedder.main.project.weight"  # (D, p*p*C)
CONVOLUTION = "vit.embeddings.patch_embeddings.projection.weight"  # (D,C,p,p)
POSITIONS = ("vit.embeddings.position_embeddings", "decoder.decoder_pos_embed")
BLOCK = {
    "attention.qkv": ("attention.q_proj", "attention.k_proj", "attention.v_proj"),
    "attention.out": ("attention.o_proj",),
    "norm": ("layernorm_before",),
    "mlp_norm": ("layernorm_after",),
    "mlp.up": ("mlp.fc1",),
    "mlp.down": ("mlp.fc2",),
}


def pairs(encoder: int, decoder: int) -> Pairs:
    """All weights that are the same on both sides, of so many blocks."""
    found = {
        "embedder.main.project.bias": ("vit.embeddings.patch_embeddings.projection.bias",),
        **affine("encoder.main.norm", "vit.layernorm"),
        **affine("decoder.main.project", "decoder.decoder_embed"),
        **affine("decoder.main.norm", "decoder.decoder_norm"),
        **affine("head.main", "decoder.decoder_pred"),
    }
    for i in range(encoder):
        found.update(layers(f"encoder.main.blocks.{i}", f"vit.layers.{i}", BLOCK))
    for i in range(decoder):
        found.update(layers(f"decoder.main.blocks.{i}", f"decoder.decoder_layers.{i}", BLOCK))
    return found


def from_hf(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a `ViTMAEForPreTraining` as a run's parts name them.

    Raises:
        Mismatch: its stored positions are not the sines and cosines that ours are.
    """
    for name in POSITIONS:
        stored = state[name][0]
        side = math.isqrt(len(stored) - 1)
        if not torch.allclose(stored, positions((side, side), stored.shape[1]), atol=1e-4):
            raise Mismatch(f"{name}: not the fixed two-dimensional sine and cosine positions of MAE")
    out = join(pairs(depth(state, "vit.layers."), depth(state, "decoder.decoder_layers.")), state)
    out[PATCHES] = state[CONVOLUTION].permute(0, 2, 3, 1).flatten(1)  # (D,p,p,C)
    out["encoder.main.tokens"] = state["vit.embeddings.cls_token"][0]
    out["decoder.main.token"] = state["decoder.mask_token"][0, 0]
    return out


def to_hf(state: Mapping[str, Tensor], *, grid: tuple[int, int], patch: int) -> dict[str, Tensor]:
    """The weights of a run's parts (`Parts.student.state_dict()`) under transformers' names.

    Args:
        state: our weights.
        grid: patches along height and width.
        patch: side of a patch in pixels.
    """
    counts = [depth(state, f"{noun}.main.blocks.") for noun in ("encoder", "decoder")]
    out = split(pairs(*counts), state)
    out[CONVOLUTION] = state[PATCHES].unflatten(1, (patch, patch, -1)).permute(0, 3, 1, 2).contiguous()
    out["vit.embeddings.cls_token"] = state["encoder.main.tokens"][None]
    out["decoder.mask_token"] = state["decoder.main.token"][None, None]
    widths = (state[PATCHES].shape[0], state["decoder.main.token"].shape[0])
    out.update({name: positions(grid, width)[None] for name, width in zip(POSITIONS, widths, strict=True)})
    return out


def positions(grid: tuple[int, int], width: int) -> Tensor:
    """(1+N,width) as theirs are stored: the class token stands nowhere."""
    axes = torch.meshgrid(torch.arange(grid[0]), torch.arange(grid[1]), indexing="ij")
    coords = torch.stack(axes, -1).flatten(0, 1)  # (N,2)
    return torch.cat([torch.zeros(1, width), sincos(coords, width)])
