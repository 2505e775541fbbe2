"""wav2vec 2.0 under transformers' names (`Wav2Vec2ForPreTraining`), both ways; transformers is not needed.

Here queries, keys and values are one matrix, and the codebook has an axis for its groups; there they are
apart, and it is flat.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from encdec_train.corruptions.span_mask import SpanMaskConfig
from encdec_train.embedders.waveform import ConvNorm, WaveformEmbedderConfig
from encdec_train.encoders.transformer import TransformerConfig
from encdec_train.losses.contrastive import ContrastiveConfig
from encdec_train.nn.mlp import Activation
from encdec_train.nn.norm import Norm
from encdec_train.targets.quantized import QuantizedConfig
from encdec_train.types import Mismatch

CODEBOOK = "target.main.codebook"  # (G,V,d)
CODEVECTORS = "quantizer.codevectors"  # (1,G*V,d)
MASK = "embedder.main.mask.vector"

Pairs = dict[str, tuple[str, ...]]  # our name: theirs, one after the other along the first axis


def to_hf(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a run's parts (`Parts.student.state_dict()`) under transformers' names."""
    layers, depth = _count(state, "embedder.main.convolutions."), _count(state, "encoder.main.blocks.")
    out: dict[str, Tensor] = {}
    for ours, theirs in pairs(layers, depth, target=CODEBOOK in state, mask=MASK in state).items():
        out.update(zip(theirs, (piece.contiguous() for piece in state[ours].chunk(len(theirs))), strict=True))
    if CODEBOOK in state:
        out[CODEVECTORS] = state[CODEBOOK].flatten(0, 1)[None]
    return out


def from_hf(state: Mapping[str, Tensor], *, groups: int = 2) -> dict[str, Tensor]:
    """The weights of a `Wav2Vec2ForPreTraining` as a run's parts name them.

    Args:
        state: its state dictionary.
        groups: number of codebooks of its quantiser.
    """
    layers = _count(state, "wav2vec2.feature_extractor.conv_layers.")
    depth = _count(state, "wav2vec2.encoder.layers.")
    named = pairs(layers, depth, target=CODEVECTORS in state, mask="wav2vec2.masked_spec_embed" in state)
    out = {ours: torch.cat([state[name] for name in theirs]) for ours, theirs in named.items()}
    if CODEVECTORS in state:
        out[CODEBOOK] = state[CODEVECTORS][0].unflatten(0, (groups, -1)).contiguous()
    return out


def pairs(layers: int, depth: int, *, target: bool, mask: bool) -> Pairs:
    """All weights but the codebook, of so many convolutions and blocks."""
    found = _embedder(layers)
    if mask:
        found[MASK] = ("wav2vec2.masked_spec_embed",)
    for i in range(depth):
        found.update(_block(f"encoder.main.blocks.{i}", f"wav2vec2.encoder.layers.{i}"))
    if target:
        found.update(_affine("head.main", "project_hid"))
        found.update(_affine("target.main.logits", "quantizer.weight_proj"))
        found.update(_affine("target.main.project", "project_q"))
    return found


def _embedder(layers: int) -> Pairs:
    ours, theirs = "embedder.main", "wav2vec2.feature_extractor.conv_layers"
    found: Pairs = {f"{ours}.convolutions.{i}.weight": (f"{theirs}.{i}.conv.weight",) for i in range(layers)}
    found.update(_affine(f"{ours}.group_norm", f"{theirs}.0.layer_norm"))
    found.update(_affine(f"{ours}.feature_norm", "wav2vec2.feature_projection.layer_norm"))
    found.update(_affine(f"{ours}.project", "wav2vec2.feature_projection.projection"))
    found.update(_affine(f"{ours}.norm", "wav2vec2.encoder.layer_norm"))
    for name in ("bias", "parametrizations.weight.original0", "parametrizations.weight.original1"):
        found[f"{ours}.position.conv.{name}"] = (f"wav2vec2.encoder.pos_conv_embed.conv.{name}",)
    return found


def _block(ours: str, theirs: str) -> Pairs:
    names = {
        "attention.qkv": ("attention.q_proj", "attention.k_proj", "attention.v_proj"),
        "attention.out": ("attention.out_proj",),
        "norm": ("layer_norm",),
        "mlp.up": ("feed_forward.intermediate_dense",),
        "mlp.down": ("feed_forward.output_dense",),
        "mlp_norm": ("final_layer_norm",),
    }
    found: Pairs = {}
    for name, parts in names.items():
        found.update(_affine(f"{ours}.{name}", *(f"{theirs}.{part}" for part in parts)))
    return found


def _affine(ours: str, *theirs: str) -> Pairs:
    return {f"{ours}.{kind}": tuple(f"{name}.{kind}" for name in theirs) for kind in ("weight", "bias")}


def _count(state: Mapping[str, Tensor], prefix: str) -> int:
    """Numbered modules under `prefix`."""
    return len({name.removeprefix(prefix).split(".", 1)[0] for name in state if name.startswith(prefix)})


def config_to_hf(
    embedder: WaveformEmbedderConfig,
    encoder: TransformerConfig,
    corruption: SpanMaskConfig,
    target: QuantizedConfig,
    loss: ContrastiveConfig,
) -> dict[str, Any]:
    """Arguments of transformers' `Wav2Vec2Config`.

    Raises:
        Mismatch: a part is not what its wav2vec 2.0 can say.
    """
    return {
        **arguments(embedder, encoder),
        "feat_quantizer_dropout": target.dropout,
        "mask_time_prob": corruption.start * corruption.length,
        "mask_time_length": corruption.length,
        "num_codevector_groups": target.groups,
        "num_codevectors_per_group": target.entries,
        "codevector_dim": target.code_width,
        "proj_codevector_dim": target.width,
        "num_negatives": target.negatives,
        "contrastive_logits_temperature": loss.temperature,
        "diversity_loss_weight": target.diversity_weight,
    }


def arguments(embedder: WaveformEmbedderConfig, encoder: TransformerConfig) -> dict[str, Any]:
    """What `Wav2Vec2Config` says of the encoder alone.

    Raises:
        Mismatch: a part is not what its wav2vec 2.0 can say.
    """
    _check(embedder, encoder)
    return {
        "hidden_size": encoder.width,
        "num_hidden_layers": encoder.depth,
        "num_attention_heads": encoder.heads,
        "intermediate_size": encoder.hidden or 4 * encoder.width,
        "hidden_dropout": encoder.dropout,
        "activation_dropout": encoder.hidden_dropout,
        "attention_dropout": encoder.attention_dropout,
        "layerdrop": encoder.layer_drop,
        "layer_norm_eps": encoder.eps,
        "feat_extract_norm": "group",
        "feat_proj_dropout": embedder.dropout,
        "conv_dim": list(embedder.channels),
        "conv_kernel": list(embedder.kernels),
        "conv_stride": list(embedder.strides),
        "conv_bias": False,
        "num_conv_pos_embeddings": embedder.position_kernel,
        "num_conv_pos_embedding_groups": embedder.position_groups,
    }


_BLOCK = {
    "norm": Norm.layer,
    "norm_first": False,
    "final_norm": False,
    "bias": True,
    "scale": True,
    "gated": False,
    "activation": Activation.gelu,
    "relative": False,
    "lattice": False,
    "layer_scale": None,
    "head_width": None,
    "prefix": 0,
    "final_dropout": 0.0,
}


def _check(embedder: WaveformEmbedderConfig, encoder: TransformerConfig) -> None:
    wrong = [f"{name}={getattr(encoder, name)}" for name, value in _BLOCK.items() if getattr(encoder, name) != value]
    if wrong:
        raise Mismatch(f"export to wav2vec 2.0: encoder has {', '.join(wrong)}, which it cannot say")
    if embedder.norm is not ConvNorm.group or embedder.position_layers > 1:
        raise Mismatch("export to wav2vec 2.0: its convolutions have norm=group, its positions one layer")
    if embedder.eps != encoder.eps:
        raise Mismatch(
            f"export to wav2vec 2.0: it has one eps, the embedder has {embedder.eps}, the encoder {encoder.eps}"
        )
