"""Language modelling: every token says which one comes next, and nothing is hidden.

Radford et al. 2019 (GPT-2), section 2, equation 1. The plan says that nobody reads what follows; an encoder that is to
be causal without a corruption says so itself. As the input of a decoder the rows are its target shifted by one (Vaswani
et al. 2017, section 3.1): they begin with a token of their own, or, where all of a row is to be written, behind padding
(Raffel et al. 2020; their code begins so).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encdec_train.nn.rewrite import reply
from encdec_train.registry import corruptions
from encdec_train.step import Step
from encdec_train.types import Attend, Mismatch, Path, Plan, Sites, Spec, Units


@dataclass(kw_only=True)
class NextTokenConfig:
    shift: bool = False  # what is given begins with padding, and the first id of a row is predicted too
    prefix: bool = False  # a beginning of each row, of 1 to all but 1 of its sites, is read by all and not predicted

    def spec(self, sites: Spec) -> Spec:
        raw = sites.raw or sites
        if raw.kind != "ids" and not (raw.length and raw.length == sites.length):
            raise Mismatch("corruption 'next_token' predicts ids, or values that every site of rows of one length has")
        if self.shift and (raw.kind != "ids" or raw.vocabulary is None or self.prefix):
            raise Mismatch("corruption 'next_token'.shift is for ids with a vocabulary, without prefix")
        if self.prefix and (sites.docs or 0 < sites.max_len < sites.length):
            raise Mismatch("corruption 'next_token'.prefix is one of a row, the view puts several documents into one")
        return sites


@corruptions.register("next_token", NextTokenConfig)
class NextToken(nn.Module):
    """The rows as they are; the targets are their successors. The last token of a document has none."""

    def __init__(self, config: NextTokenConfig, sites: Spec) -> None:
        super().__init__()
        self.config, self.words = config, (sites.raw or sites).vocabulary

    def forward(self, units: Units, sites: Sites, step: Step, path: Path) -> Plan:
        if self.words is not None and self.config.shift:
            return reply(units, self.words.pad)
        following = F.pad(units.values[:, 1:], (0, 0) * (units.values.dim() - 2) + (0, 1))
        real = sites.real()
        counted = F.pad(real[:, 1:] & real[:, :-1], (0, 1))
        if sites.doc is not None:
            counted = counted & F.pad(sites.doc[:, 1:] == sites.doc[:, :-1], (0, 1))
        prefix = self.prefix(sites, step, path) if self.config.prefix else None
        if prefix is not None:  # its last site predicts the first one beyond it
            counted = counted & (sites.place >= prefix[:, None] - 1)
        return Plan(
            inputs=units,
            sites=sites,
            weight=counted.flatten().float(),
            targets=replace(units, values=following),
            attend=Attend(causal=True, prefix=prefix),
        )

    def prompt(self, units: Units, sites: Sites) -> Plan:
        """Texts that go on."""
        real = sites.real()
        if self.words is not None and self.config.shift:
            start = torch.full_like(sites.sample[:, :1], self.words.pad)
            units = replace(units, values=torch.cat([start, units.values], 1))
            real = F.pad(real, (1, 0), value=True)
        elif not bool(real.any(1).all()):
            raise Mismatch("corruption 'next_token' goes on with a text, there is none, and no id that begins one")
        place = torch.arange(real.shape[1], device=real.device).expand_as(real)
        new = Sites(sample=sites.sample[:, :1].expand_as(real), place=place, valid=real, max_len=real.shape[1])
        prefix = real.sum(1) if self.config.prefix else None
        return Plan(inputs=replace(units, sites=new), sites=new, attend=Attend(causal=True, prefix=prefix))

    def prefix(self, sites: Sites, step: Step, path: Path) -> Tensor:
        """(B,) int64: how many sites begin each row, uniform from 1 to all but 1."""
        choices = (sites.real().sum(1) - 1).clamp_min(1)
        return 1 + step.rng.integers(f"next_token.{path.draw}", choices, sites.sample[:, 0])
