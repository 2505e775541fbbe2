"""T5 under transformers' names (`T5ForConditionalGeneration`), both ways. transformers itself is not needed.

Here the queries, keys and values of self-attention are one matrix, and so are the keys and values of
cross-attention and the two halves of a gated feed-forward layer; there they are apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from encdec_train.decoders.seq2seq import Seq2SeqConfig
from encdec_train.encoders.transformer import TransformerConfig
from encdec_train.export.hf.pairs import Pairs, depth, join, split
from encdec_train.nn.mlp import Activation
from encdec_train.nn.norm import Norm
from encdec_train.nn.transformer import BlockConfig
from encdec_train.types import Mismatch, Vocabulary

STACKS = ("encoder", "decoder")
EMBEDDING = "embedder.main.table.weight"
HEAD = "head.main.weight"  # only if it is not tied to the embedding
COPIES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")  # of `shared.weight`


def to_hf(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a run's parts (`Parts.student.state_dict()`) under transformers' names."""
    up, down = (state[f"encoder.main.blocks.0.mlp.{name}.weight"] for name in ("up", "down"))
    depths = [depth(state, f"{stack}.main.blocks.") for stack in STACKS]
    out = split(pairs(*depths, gated=up.shape[0] != down.shape[1], tied=HEAD not in state), state)
    out.update({copy: out["shared.weight"] for copy in COPIES})
    out.setdefault("lm_head.weight", out["shared.weight"])
    return out


def from_hf(state: Mapping[str, Tensor], *, tied: bool = True) -> dict[str, Tensor]:
    """The weights of a `T5ForConditionalGeneration` as a run's parts name them.

    Args:
        state: its state dictionary.
        tied: the head is the embedding (T5 1.0); else it has weights of its own (T5 1.1).
    """
    gated = "encoder.block.0.layer.1.DenseReluDense.wi_0.weight" in state
    depths = [depth(state, f"{stack}.block.") for stack in STACKS]
    return join(pairs(*depths, gated=gated, tied=tied), state)


def pairs(encoder: int, decoder: int, *, gated: bool, tied: bool) -> Pairs:
    """All weights of a model with so many blocks on each side."""
    found: Pairs = {EMBEDDING: ("shared.weight",)}
    if not tied:
        found[HEAD] = ("lm_head.weight",)
    for stack, blocks in zip(STACKS, (encoder, decoder), strict=True):
        found[f"{stack}.main.norm.weight"] = (f"{stack}.final_layer_norm.weight",)
        first = f"{stack}.block.0.layer.0.SelfAttention"
        found[f"{stack}.main.bias.table.weight"] = (f"{first}.relative_attention_bias.weight",)
        for i in range(blocks):
            block = _block(f"{stack}.block.{i}.layer", cross=stack == "decoder", gated=gated)
            found.update({f"{stack}.main.blocks.{i}.{ours}.weight": theirs for ours, theirs in block.items()})
    return found


def _block(layer: str, *, cross: bool, gated: bool) -> Pairs:
    """One block, without the prefix and the suffix `.weight` of our names."""
    names: dict[str, tuple[str, ...]] = {
        "attention.qkv": tuple(f"0.SelfAttention.{part}" for part in "qkv"),
        "attention.out": ("0.SelfAttention.o",),
        "norm": ("0.layer_norm",),
    }
    if cross:
        names["cross.q"] = ("1.EncDecAttention.q",)
        names["cross.kv"] = ("1.EncDecAttention.k", "1.EncDecAttention.v")
        names["cross.out"] = ("1.EncDecAttention.o",)
        names["cross_norm"] = ("1.layer_norm",)
    last = 2 if cross else 1
    names["mlp.up"] = tuple(f"{last}.DenseReluDense.{part}" for part in (("wi_0", "wi_1") if gated else ("wi",)))
    names["mlp.down"] = (f"{last}.DenseReluDense.wo",)
    names["mlp_norm"] = (f"{last}.layer_norm",)
    return {ours: tuple(f"{layer}.{name}.weight" for name in theirs) for ours, theirs in names.items()}


def config_to_hf(encoder: TransformerConfig, decoder: Seq2SeqConfig, words: Vocabulary) -> dict[str, Any]:
    """Arguments of transformers' `T5Config`.

    Raises:
        Mismatch: a part is not what T5 can say.
    """
    for noun, part in (("encoder", encoder), ("decoder", decoder)):
        _check(noun, part)
    differ = [name for name in _SHARED if getattr(encoder, name) != getattr(decoder, name)]
    if differ:
        raise Mismatch(f"export to T5: encoder and decoder must agree, they differ in {', '.join(differ)}")
    return {
        "vocab_size": words.size,
        "d_model": encoder.width,
        "d_kv": encoder.head_width or encoder.width // encoder.heads,
        "d_ff": encoder.hidden or 4 * encoder.width,
        "num_layers": encoder.depth,
        "num_decoder_layers": decoder.depth,
        "num_heads": encoder.heads,
        "relative_attention_num_buckets": encoder.buckets,
        "relative_attention_max_distance": encoder.max_distance,
        "dropout_rate": encoder.dropout,
        "layer_norm_epsilon": encoder.eps,
        "feed_forward_proj": _projection(encoder),
        "pad_token_id": words.pad,
        "eos_token_id": words.eos,
        "decoder_start_token_id": words.pad,
    }


_SHARED = ("width", "heads", "head_width", "hidden", "buckets", "max_distance", "eps", "activation", "gated")
_T5 = {
    "norm": Norm.rms,
    "norm_first": True,
    "final_norm": True,
    "bias": False,
    "scale": False,
    "relative": True,
    "lattice": False,
    "layer_scale": None,
}


def _check(noun: str, part: BlockConfig) -> None:
    wrong = [f"{name}={getattr(part, name)}" for name, value in _T5.items() if getattr(part, name) != value]
    if wrong:
        raise Mismatch(f"export to T5: {noun} has {', '.join(wrong)}, which T5 cannot say")


def _projection(part: BlockConfig) -> str:
    """The feed-forward layer in T5's words."""
    kind = (part.gated, part.activation)
    known = {(False, Activation.relu): "relu", (True, Activation.gelu_tanh): "gated-gelu"}
    if kind not in known:
        gate = "gated " if part.gated else ""
        raise Mismatch(f"export to T5: a {gate}{part.activation.value} feed-forward layer is not T5's")
    return known[kind]
