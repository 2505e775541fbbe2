"""RoBERTa under transformers' names (`RobertaForMaskedLM`), both ways. transformers itself is not needed.

Its blocks are named as BERT's. Its positions begin after the padding id: row 0 of ours is row pad + 1 of theirs. Token
types it has in name only: one row, which stays zero here where there is none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from encdec_train.embedders.ids import IdsConfig
from encdec_train.encoders.transformer import TransformerConfig
from encdec_train.export.hf import bert
from encdec_train.export.hf.pairs import Pairs, affine, depth, join, layers, split
from encdec_train.heads.tied import TiedConfig
from encdec_train.types import Mismatch, Vocabulary

BIAS = "lm_head.bias"
TABLE = "roberta.embeddings.word_embeddings.weight"
POSITIONS = "roberta.embeddings.position_embeddings.weight"
TYPES = "roberta.embeddings.token_type_embeddings.weight"
DECODER = "lm_head.decoder"  # transformers ties it to the table and to the bias
OURS = "embedder.main.positions.weight"


def to_hf(state: Mapping[str, Tensor], *, pad: int) -> dict[str, Tensor]:
    """The weights of a run's parts (`Parts.student.state_dict()`) under transformers' names.

    Args:
        state: our weights.
        pad: id of the padding token, after which their positions begin.
    """
    head = "head.main.bias" in state
    out = split(pairs(depth(state, "encoder.main.blocks."), head=head), state)
    out[POSITIONS] = F.pad(state[OURS], (0, 0, pad + 1, 0))
    out[TYPES] = torch.zeros_like(state[OURS][:1])
    if head:
        out[f"{DECODER}.weight"], out[f"{DECODER}.bias"] = out[TABLE], out[BIAS]
    return out


def from_hf(state: Mapping[str, Tensor], *, pad: int) -> dict[str, Tensor]:
    """The weights of a `RobertaForMaskedLM` as a run's parts name them; its token type goes into the positions."""
    out = join(pairs(depth(state, "roberta.encoder.layer."), head=BIAS in state), state)
    out[OURS] = state[POSITIONS][pad + 1 :] + state[TYPES][:1]
    return out


def pairs(blocks: int, *, head: bool) -> Pairs:
    """All weights but the positions and types of a model with so many blocks, with or without the head."""
    found: Pairs = {
        "embedder.main.table.weight": (TABLE,),
        **affine("embedder.main.norm", "roberta.embeddings.LayerNorm"),
    }
    for i in range(blocks):
        found.update(layers(f"encoder.main.blocks.{i}", f"roberta.encoder.layer.{i}", bert.BLOCK))
    if head:
        found["head.main.bias"] = (BIAS,)
        found.update(affine("head.main.transform.linear", "lm_head.dense"))
        found.update(affine("head.main.transform.norm", "lm_head.layer_norm"))
    return found


def config_to_hf(
    embedder: IdsConfig, encoder: TransformerConfig, head: TiedConfig, words: Vocabulary, positions: int
) -> dict[str, Any]:
    """Arguments of transformers' `RobertaConfig`, from the same as `bert.config_to_hf`.

    Raises:
        Mismatch: a part is not what RoBERTa can say.
    """
    if embedder.types:
        raise Mismatch(f"export to RoBERTa: the embedder has types={embedder.types}, RoBERTa has none")
    return {
        **bert.arguments("RoBERTa", embedder, encoder, head),
        "vocab_size": words.size,
        "pad_token_id": words.pad,
        "max_position_embeddings": positions + words.pad + 1,
        "type_vocab_size": 1,
        "bos_token_id": words.bos,
        "eos_token_id": words.eos,
    }
