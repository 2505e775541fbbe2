"""Gap sentences: whole sentences become one mask token each, and the decoder writes them one after the other.

Zhang et al. 2020 (PEGASUS, arXiv:1912.08777), section 3.1: lead, random or principal sentences. Principal are those
that say most of what the rest says: ROUGE-1 F1 between a sentence and the rest of the document, each sentence by
itself ("Ind"), equal words counted as often as they occur ("Orig"). Here the words are the tokens of the view.

With c tokens that both sides hold, the sentence of n tokens has precision c / n and recall c / (L - n), so F1 is
2c / L: it ranks the sentences of a document as c does.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encdec_train.kernels import masking
from encdec_train.nn.blanks import noise_of
from encdec_train.nn.rewrite import begin, documents, reply, rewrite
from encdec_train.registry import corruptions
from encdec_train.rng import Rng
from encdec_train.step import Step
from encdec_train.types import Mismatch, Path, Plan, Sites, Spec, Units


class Choice(Enum):
    """Which sentences are taken out."""

    principal = "principal"  # those that have most in common with the rest
    random = "random"  # any
    lead = "lead"  # the first


@dataclass(kw_only=True)
class GapSentencesConfig:
    ratio: float = 0.3  # share of the sentences, at least one; one is always left
    choice: Choice = Choice.principal
    length: int | None = None  # tokens that the decoder writes at most; none: as many as a row has

    replies = True  # the plan says what the decoder is given

    def spec(self, sites: Spec) -> Spec:
        raw = sites.raw or sites
        words = raw.vocabulary
        if not 0 < self.ratio < 1:
            raise Mismatch(f"corruption 'gap_sentences'.ratio: {self.ratio} is not between 0 and 1")
        if self.length is not None and self.length < 2:
            raise Mismatch(f"corruption 'gap_sentences'.length: {self.length} is below 2")
        if raw.kind != "ids" or words is None:
            raise Mismatch(f"corruption 'gap_sentences' rewrites ids, the view gives {raw.kind}")
        if words.mask < 0 or words.eos < 0:
            lacks = "mask token" if words.mask < 0 else "end-of-sequence id"
            raise Mismatch(f"corruption 'gap_sentences': the vocabulary of the view has no {lacks}")
        if not raw.groups:
            raise Mismatch("corruption 'gap_sentences': the view does not tell sentences (transform.sentences=true)")
        return sites


@corruptions.register("gap_sentences", GapSentencesConfig)
class GapSentences(nn.Module):
    """Rows of one document each -> rows with masks for the encoder, the sentences and an end for the decoder."""

    def __init__(self, config: GapSentencesConfig, sites: Spec) -> None:
        super().__init__()
        config.spec(sites)
        words = (sites.raw or sites).vocabulary
        assert words is not None, "spec refuses a view without a vocabulary"
        self.config, self.words = config, words

    def forward(self, units: Units, sites: Sites, step: Step, path: Path) -> Plan:
        if sites.doc is not None or sites.group is None:
            raise Mismatch("corruption 'gap_sentences' needs one document in a row, and its sentences")
        ids, free = units.values, sites.open()
        group = torch.where(free, sites.group, -1)
        chosen = self.choose(ids, sites, group, step.rng, f"gap.{path.draw}")  # (B,N) by sentence
        hidden = chosen.gather(1, group.clamp_min(0)) & free
        first = hidden & (group != F.pad(group[:, :-1], (1, 0), value=-1))
        last = free & ~F.pad(free[:, 1:].flip(1).cummax(1).values.flip(1), (0, 1)) & chosen.any(1, keepdim=True)
        docs, bare = documents(sites, 1), replace(sites, fixed=None)
        sides = (
            (sites.n, [(~hidden | first, torch.where(first, self.words.mask, ids))]),
            (self.config.length or sites.n, [(hidden, ids), (last, torch.full_like(ids, self.words.eos))]),
        )
        source, target = (
            rewrite(writes, docs, bare, None, room=room, longest=room, full=False, pad=self.words.pad)
            for room, writes in sides
        )
        return Plan(inputs=source, sites=source.sites, reply=reply(target, self.words.pad))

    def prompt(self, units: Units, sites: Sites) -> Plan:
        """Texts with mask tokens for sentences; the decoder begins as in training."""
        bare = replace(units, sites=replace(sites, fixed=None, group=None))
        return Plan(inputs=bare, sites=bare.sites, reply=begin(units, self.words.pad))

    def choose(self, ids: Tensor, sites: Sites, group: Tensor, rng: Rng, tag: str) -> Tensor:
        """(B,N) bool: is the sentence of this number taken out?"""
        number = torch.arange(sites.n, device=ids.device)
        count = group.max(1, keepdim=True).values + 1
        if self.config.choice is Choice.principal:
            score = -common(ids, group)
        elif self.config.choice is Choice.random:
            score = (rng.bits(tag, sites.sample[:, :1], number) >> 2) & (2**61 - 1)
        else:
            score = number.expand_as(group)
        taken = torch.minimum(noise_of(count, self.config.ratio).clamp_min(1), count - 1)
        return masking.lowest(score.masked_fill(number >= count, 2**62), taken)


def common(ids: Tensor, group: Tensor) -> Tensor:
    """(B,N) int64: tokens that a sentence shares with the rest of its document, by the number of the sentence.

    Args:
        ids: (B,N).
        group: (B,N) the sentence of each token; -1 = belongs to none.
    """
    text = group >= 0
    equal = (ids[:, :, None] == ids[:, None, :]) & text[:, :, None] & text[:, None, :]  # (B,N,N)
    same = group[:, :, None] == group[:, None, :]
    elsewhere = (equal & ~same).sum(2)
    before = (equal & same).tril(-1).sum(2)  # equal tokens earlier in the sentence
    return torch.zeros_like(group).scatter_add_(1, group.clamp_min(0), (text & (before < elsewhere)).long())
