"""Where sentences end, told from token ids alone.

A tokenizer's pieces are looked at once: which can end a sentence, and which can follow such an end. What is found in a
row then costs a few look-ups for each token, in any language that ends sentences with a sign.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from tokenizers import Tokenizer
from torch import Tensor

from encdec_train.types import Vocabulary

SIGNS = ".!?\u2026\u3002\uff01\uff1f"  # the last three are Chinese
CLOSING = "\"'\u201d\u2019)]}\u00bb"  # may stand behind the sign
SPACES = {"Ġ": " ", "▁": " ", "Ċ": "\n"}  # how pieces of bytes and of SentencePiece write them
INSIDE = "##"  # begins a word piece that continues a word


class Ends(NamedTuple):
    """What the pieces of a vocabulary can be."""

    closes: Tensor  # (V,) bool, can be the last of a sentence
    wraps: Tensor  # (V,) bool, closing quotes and brackets: the sentence ends behind them
    follows: Tensor  # (V,) bool, can come after it: "1.5" and "os.path" hold no end
    always: Tensor  # (V,) bool, ends a sentence whatever follows: the end of a document

    @staticmethod
    def of(tokenizer: Tokenizer, known: Vocabulary) -> Ends:
        """Of a tokenizer that is ready."""
        plain = pieces(tokenizer, known)
        spaced = any(text[:1].isspace() for text in plain)  # else spaces are lost, as between word pieces
        ordinary = torch.arange(known.size) >= known.specials
        closes = [text.rstrip().rstrip(CLOSING).endswith(tuple(SIGNS)) for text in plain]
        wraps = [bool(text) and not text.strip(CLOSING) for text in plain]
        follows = [text[:1].isspace() if spaced else not text.startswith(INSIDE) for text in plain]
        always = torch.arange(known.size) == known.eos
        closing, wrapping, following = (torch.tensor(flags) & ordinary for flags in (closes, wraps, follows))
        return Ends(closing, wrapping, following, always)


def pieces(tokenizer: Tokenizer, known: Vocabulary) -> list[str]:
    """What each id stands for, with its spaces as spaces; nothing for an id that the tokenizer does not use."""
    written = [tokenizer.id_to_token(i) or "" for i in range(known.size)]
    return ["".join(SPACES.get(char, char) for char in piece) for piece in written]


def sentence_of(ids: Tensor, ends: Ends) -> Tensor:
    """(n,) int64: the sentence that each token of a document (n,) belongs to."""
    if not len(ids):
        return torch.zeros(0, dtype=torch.int64)
    last, following = ids[:-1], ids[1:]
    word = torch.where(ends.wraps[last], 0, torch.arange(len(last))).cummax(0).values  # the last that wraps nothing
    over = (ends.closes[ids[word]] & ends.follows[following]) | ends.always[last]
    return torch.cat([torch.zeros(1, dtype=torch.int64), over.long().cumsum(0)])
