"""ModernBERT under transformers' names (`ModernBertForMaskedLM`), both ways. transformers itself is not needed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from encdec_train.embedders.ids import IdsConfig, IdsPosition
from encdec_train.encoders.transformer import TransformerConfig
from encdec_train.export.hf.bert import check
from encdec_train.export.hf.pairs import Pairs, depth, join, split
from encdec_train.heads.tied import TiedConfig
from encdec_train.nn.norm import Norm
from encdec_train.types import Mismatch, Vocabulary

TABLE = "model.embeddings.tok_embeddings.weight"
DECODER = "decoder.weight"  # transformers ties it to the table

_BLOCK = {
    "norm": "attn_norm",  # absent from the first block
    "attention.qkv": "attn.Wqkv",
    "attention.out": "attn.Wo",
    "mlp_norm": "mlp_norm",
    "mlp.up": "mlp.Wi",
    "mlp.down": "mlp.Wo",
}


def to_hf(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a run's parts (`Parts.student.state_dict()`) under transformers' names."""
    head = "head.main.bias" in state
    out = split(pairs(depth(state, "encoder.main.blocks."), head=head), state)
    if head:
        out[DECODER] = out[TABLE]
    return out


def from_hf(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a `ModernBertForMaskedLM` as a run's parts name them."""
    return join(pairs(depth(state, "model.layers."), head="decoder.bias" in state), state)


def pairs(blocks: int, *, head: bool) -> Pairs:
    """All weights of a model with so many blocks, with or without the head."""
    found: Pairs = {
        "embedder.main.table.weight": (TABLE,),
        "embedder.main.norm.weight": ("model.embeddings.norm.weight",),
        "encoder.main.norm.weight": ("model.final_norm.weight",),
    }
    for i in range(blocks):
        for ours, theirs in _BLOCK.items():
            if i or ours != "norm":
                found[f"encoder.main.blocks.{i}.{ours}.weight"] = (f"model.layers.{i}.{theirs}.weight",)
    if head:
        found["head.main.bias"] = ("decoder.bias",)
        found["head.main.transform.linear.weight"] = ("head.dense.weight",)
        found["head.main.transform.norm.weight"] = ("head.norm.weight",)
    return found


_PLAIN = {"norm": Norm.layer, "norm_bias": False}
_EMBEDDER = {**_PLAIN, "position": IdsPosition.none, "types": 0}
_ENCODER = {
    **_PLAIN,
    "norm_first": True,
    "first_norm": False,
    "final_norm": True,
    "gated": True,
    "bias": False,
    "scale": True,
    "slopes": False,
    "layer_scale": None,
    "relative": False,
    "lattice": False,
    "prefix": 0,
    "dropout": 0.0,
    "final_dropout": 0.0,
    "head_width": None,
}
_HEAD = {"transform": True, "transform_bias": False, "norm": Norm.layer, "bias": True, "scale": False}


def config_to_hf(
    embedder: IdsConfig, encoder: TransformerConfig, head: TiedConfig, words: Vocabulary
) -> dict[str, Any]:
    """Arguments of transformers' `ModernBertConfig`.

    Args:
        embedder: of the run, as are the other parts.
        encoder: the stack.
        head: the masked language model.
        words: the tokenizer's vocabulary.

    Raises:
        Mismatch: a part is not what ModernBERT can say.
    """
    check("ModernBERT", "embedder", embedder, {**_EMBEDDER, "width": encoder.width, "eps": encoder.eps})
    check("ModernBERT", "encoder", encoder, _ENCODER)
    check("ModernBERT", "head", head, {**_HEAD, "activation": encoder.activation, "eps": encoder.eps})
    return {
        "vocab_size": words.size,
        "hidden_size": encoder.width,
        "num_hidden_layers": encoder.depth,
        "num_attention_heads": encoder.heads,
        "intermediate_size": encoder.hidden or 4 * encoder.width,
        "hidden_activation": encoder.activation.value,
        "classifier_activation": encoder.activation.value,
        "embedding_dropout": embedder.dropout,
        "attention_dropout": encoder.attention_dropout,
        "mlp_dropout": encoder.hidden_dropout,
        "norm_eps": encoder.eps,
        "pad_token_id": words.pad,
        "bos_token_id": words.bos,
        "cls_token_id": words.bos,
        "eos_token_id": words.eos,
        "sep_token_id": words.eos,
        **_reach(encoder),
    }


def _reach(encoder: TransformerConfig) -> dict[str, Any]:
    """Who reads how far, and how far apart places are turned; theirs knows one local and one global kind of block."""
    kinds: dict[str, set[float | None]] = {"full_attention": set(), "sliding_attention": set()}
    types: list[str] = []
    windows: set[int] = set()
    for i in range(encoder.depth):
        window, base = encoder.turn(encoder.windows, i) or 0, encoder.turn(encoder.rotary, i)
        types.append("sliding_attention" if window else "full_attention")
        kinds[types[-1]].add(base)
        windows.update({window} - {0})
    if len(windows) > 1 or any(len(bases) > 1 or None in bases for bases in kinds.values()):
        raise Mismatch(
            f"export to ModernBERT: encoder has windows={encoder.windows}, rotary={encoder.rotary}; ModernBERT has one "
            "window, and one rotary base for blocks with it and one for blocks without"
        )
    ropes = {
        kind: {"rope_type": "default", "rope_theta": next(iter(bases or kinds[types[0]]))}
        for kind, bases in kinds.items()
    }
    return {"layer_types": types, "local_attention": 2 * max(windows, default=0), "rope_parameters": ropes}
