"""Which tokens make a word, told from token ids alone.

Word pieces that continue a word say so (Devlin et al. 2019, google-research/bert: `create_pretraining_data.py`,
"whole word masking"). Where pieces carry spaces, a word goes from one space to the next, with the signs that stand
beside it (facebookresearch/fairseq: `get_whole_word_mask`).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from tokenizers import Tokenizer
from torch import Tensor

from encdec_train.data.sentences import INSIDE, pieces
from encdec_train.types import Vocabulary


class Openings(NamedTuple):
    """What the pieces of a vocabulary can be."""

    opens: Tensor  # (V,) bool, the first of a word
    alone: Tensor  # (V,) bool, special: no word goes on behind it

    @staticmethod
    def of(tokenizer: Tokenizer, known: Vocabulary) -> Openings:
        """Of a tokenizer that is ready."""
        plain = pieces(tokenizer, known)
        spaced = any(text[:1].isspace() for text in plain)
        opens = [text[:1].isspace() if spaced else not text.startswith(INSIDE) for text in plain]
        ids = torch.arange(known.size)
        alone = ids < known.specials
        for special in (known.pad, known.mask, known.bos, known.eos):
            alone = alone | (ids == special)
        return Openings(torch.tensor(opens) | alone, alone)


def word_of(ids: Tensor, openings: Openings) -> Tensor:
    """(n,) int64: where the word of each token of a document (n,) begins."""
    opens = openings.opens[ids]
    opens[1:] |= openings.alone[ids[:-1]]
    here = torch.arange(len(ids))
    return torch.where(opens, here, 0).cummax(0).values if len(ids) else here
