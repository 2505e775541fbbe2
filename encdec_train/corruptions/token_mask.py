"""BERT's corruption: some tokens are predicted; most of them are hidden, a few replaced, a few left alone.

Devlin et al. 2019 (arXiv:1810.04805), section 3.1, task 1, and appendix A.1. The paper's data code picks a fixed number
of tokens per sequence; here, as in RoBERTa's code, every token is picked by itself, so that a document gets the same
masks alone, packed or padded.

With `whole_words` a word is drawn or left with all of its tokens, as in the authors' later models
(google-research/bert, README, "whole word masking"); what becomes of each of its tokens is drawn by itself, as there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from torch import nn

from encdec_train.kernels import masking
from encdec_train.registry import corruptions
from encdec_train.step import Step
from encdec_train.types import Mismatch, Path, Plan, Sites, Spec, Units, Vocabulary

WORD = 4  # tokens of the word that a token stands in, on average over tokens, are taken to be no more


@dataclass(kw_only=True)
class TokenShares:
    """How much is predicted, and what becomes of it."""

    ratio: float = 0.15  # of the open tokens that are predicted
    hide: float = 0.8  # share of the predicted that become the mask token
    random: float = 0.1  # share that become any ordinary token; the rest stays

    def check(self, noun: str, sites: Spec) -> None:
        if not 0 < self.ratio < 1:
            raise Mismatch(f"{noun}.ratio: {self.ratio} is not between 0 and 1")
        if min(self.hide, self.random) < 0 or self.hide + self.random > 1:
            raise Mismatch(f"{noun}: hide={self.hide} and random={self.random} are not shares of one whole")
        raw = sites.raw
        if raw is None or raw.kind != "ids":
            raise Mismatch(f"{noun} needs ids, the view gives {raw.kind if raw else sites.kind}")
        known = raw.vocabulary
        if self.hide and (known is None or known.mask < 0):
            raise Mismatch(f"{noun} needs a mask token, the view's vocabulary has none")

    def rewriting(self, words: Vocabulary) -> masking.Rewriting:
        return masking.Rewriting(
            ratio=self.ratio,
            hide=self.hide,
            random=self.random,
            mask=words.mask,
            first=words.specials,
            size=words.size,
        )


@dataclass(kw_only=True)
class TokenMaskConfig(TokenShares):
    margin: float = 5.0  # room for more predicted tokens than expected, in standard deviations
    whole_words: bool = False  # the tokens of a word are predicted together or not at all

    @property
    def asks(self) -> tuple[str, ...]:
        """What the transform is to tell of the sites."""
        return ("words",) if self.whole_words else ()

    def capacity(self, sites: int) -> int:
        """Rows that are predicted in a batch of so many sites; what is unused has weight zero.

        The count is binomial. At 5 standard deviations one batch in three million has more; its last tokens are then
        neither hidden nor predicted. Whole words come and go together, so that the count varies more.
        """
        together = WORD if self.whole_words else 1
        spread = math.sqrt(sites * together * self.ratio * (1 - self.ratio))
        return min(sites, math.ceil(sites * self.ratio + self.margin * spread))

    def spec(self, sites: Spec) -> Spec:
        self.check("corruption 'token_mask'", sites)
        if self.whole_words and not (sites.raw or sites).words:
            raise Mismatch("corruption 'token_mask'.whole_words: the view does not tell words (transform.words=true)")
        return sites


@corruptions.register("token_mask", TokenMaskConfig)
class TokenMask(nn.Module):
    """Rewrites the ids; `where` has a fixed capacity, so nothing depends on how many were picked."""

    def __init__(self, config: TokenMaskConfig, sites: Spec) -> None:
        super().__init__()
        self.config = config
        assert sites.raw is not None and sites.raw.vocabulary is not None, "spec() comes first"
        self.vocabulary = sites.raw.vocabulary

    def forward(self, units: Units, sites: Sites, step: Step, path: Path) -> Plan:
        config, known = self.config, self.vocabulary
        room = config.capacity(units.values.numel())
        tag, key = f"token_mask.{path.draw}", (sites.sample, sites.place)
        how = config.rewriting(known)
        unit = sites.word if config.whole_words else sites.place
        assert unit is not None, "spec refuses a view without words"
        ids, mask, where, weight = masking.pick(units.values, *key, unit, sites.open(), step.rng, tag, how, room)
        return Plan(inputs=replace(units, values=ids), sites=sites, mask=mask, where=where, weight=weight)
