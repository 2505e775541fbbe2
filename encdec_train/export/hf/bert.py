"""BERT under transformers' names (`BertForMaskedLM`), both ways. transformers itself is not needed.

Here queries, keys and values are one matrix; there they are apart, and the token table is written twice more: as the
decoder of the head and, for its bias, under two names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from encdec_train.embedders.ids import IdsConfig, IdsPosition
from encdec_train.encoders.transformer import TransformerConfig
from encdec_train.export.hf.pairs import Pairs, affine, depth, join, layers, split
from encdec_train.heads.tied import TiedConfig
from encdec_train.nn.norm import Norm
from encdec_train.types import Mismatch, Vocabulary

BIAS = "cls.predictions.bias"
TABLE = "bert.embeddings.word_embeddings.weight"
DECODER = "cls.predictions.decoder"  # transformers ties it to the table and to the bias

BLOCK = {
    "attention.qkv": ("attention.self.query", "attention.self.key", "attention.self.value"),
    "attention.out": ("attention.output.dense",),
    "norm": ("attention.output.LayerNorm",),
    "mlp.up": ("intermediate.dense",),
    "mlp.down": ("output.dense",),
    "mlp_norm": ("output.LayerNorm",),
}


def to_hf(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a run's parts (`Parts.student.state_dict()`) under transformers' names."""
    head = "head.main.bias" in state
    out = split(pairs(depth(state, "encoder.main.blocks."), head=head), state)
    if head:
        out[f"{DECODER}.weight"], out[f"{DECODER}.bias"] = out[TABLE], out[BIAS]
    return out


def from_hf(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a `BertForMaskedLM` as a run's parts name them. A pooler has no place here and is left out."""
    return join(pairs(depth(state, "bert.encoder.layer."), head=BIAS in state), state)


def pairs(blocks: int, *, head: bool) -> Pairs:
    """All weights of a model with so many blocks, with or without the head."""
    found: Pairs = {
        "embedder.main.table.weight": (TABLE,),
        "embedder.main.positions.weight": ("bert.embeddings.position_embeddings.weight",),
        "embedder.main.types.weight": ("bert.embeddings.token_type_embeddings.weight",),
        **affine("embedder.main.norm", "bert.embeddings.LayerNorm"),
    }
    for i in range(blocks):
        found.update(layers(f"encoder.main.blocks.{i}", f"bert.encoder.layer.{i}", BLOCK))
    if head:
        found["head.main.bias"] = (BIAS,)
        found.update(affine("head.main.transform.linear", "cls.predictions.transform.dense"))
        found.update(affine("head.main.transform.norm", "cls.predictions.transform.LayerNorm"))
    return found


_EMBEDDER = {"position": IdsPosition.learned, "norm": Norm.layer, "norm_bias": True}
_ENCODER = {
    "norm": Norm.layer,
    "norm_bias": True,
    "norm_first": False,
    "final_norm": False,
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
    "prefix": 0,
    "hidden_dropout": 0.0,
    "final_dropout": 0.0,
    "head_width": None,
}
_HEAD = {"transform": True, "transform_bias": True, "norm": Norm.layer, "bias": True, "scale": False}


def config_to_hf(
    embedder: IdsConfig, encoder: TransformerConfig, head: TiedConfig, words: Vocabulary, positions: int
) -> dict[str, Any]:
    """Arguments of transformers' `BertConfig`.

    Args:
        embedder: of the run, as are the other parts.
        encoder: the stack.
        head: the masked language model.
        words: the tokenizer's vocabulary.
        positions: rows of the position table.

    Raises:
        Mismatch: a part is not what BERT can say.
    """
    if not embedder.types:
        raise Mismatch("export to BERT: the embedder has no token types, BERT has at least one")
    return {
        **arguments("BERT", embedder, encoder, head),
        "vocab_size": words.size,
        "max_position_embeddings": positions,
        "type_vocab_size": embedder.types,
        "pad_token_id": words.pad,
    }


def arguments(model: str, embedder: IdsConfig, encoder: TransformerConfig, head: TiedConfig) -> dict[str, Any]:
    """What `BertConfig` and those of its offspring `model` say of the parts, their tables excepted."""
    check(model, "embedder", embedder, {**_EMBEDDER, "width": encoder.width, "eps": encoder.eps})
    check(model, "encoder", encoder, _ENCODER)
    check(model, "head", head, {**_HEAD, "activation": encoder.activation, "eps": encoder.eps})
    return {
        "hidden_size": encoder.width,
        "num_hidden_layers": encoder.depth,
        "num_attention_heads": encoder.heads,
        "intermediate_size": encoder.hidden or 4 * encoder.width,
        "hidden_act": {"gelu": "gelu", "gelu_tanh": "gelu_new"}.get(encoder.activation.value, encoder.activation.value),
        "hidden_dropout_prob": encoder.dropout,
        "attention_probs_dropout_prob": encoder.attention_dropout,
        "layer_norm_eps": encoder.eps,
    }


def check(model: str, noun: str, part: Any, wanted: Mapping[str, Any]) -> None:
    """Raises Mismatch where a part is not as `model` has it."""
    wrong = [f"{name}={getattr(part, name)}" for name, value in wanted.items() if getattr(part, name) != value]
    if wrong:
        raise Mismatch(f"{model} as transformers has it: {noun} has {', '.join(wrong)}, which {model} cannot say")
