"""Learned discrete targets: a product quantiser over the clean features, trained with the model.

Baevski et al. 2020, "wav2vec 2.0" (arXiv:2006.11477), section 2 "Quantization module", section 3.2 and
section 4.2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import Enum

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encdec_train.kernels import masking
from encdec_train.nn.documents import documents
from encdec_train.nn.gather import sum_ranks
from encdec_train.registry import targets
from encdec_train.rng import Rng
from encdec_train.step import Step
from encdec_train.types import Goal, Mismatch, Path, Plan, Spec, Term


class Diversity(Enum):
    """What keeps all entries in use. Both are least where they are used equally."""

    perplexity = "perplexity"  # (GV - sum_g exp H(p_g)) / GV: what the authors' code and transformers compute
    entropy = "entropy"  # (1 / GV) sum_g -H(p_g): equation 4 as it is printed


@dataclass(kw_only=True)
class QuantizedConfig:
    width: int = 256  # of the projected target
    groups: int = 2  # G codebooks
    entries: int = 320  # V of each
    code_width: int = 256  # of a code: the entries of all groups side by side
    temperature: float = 2.0  # of the Gumbel softmax, at the first step
    temperature_min: float = 0.5
    temperature_decay: float = 0.999995  # factor for each step
    negatives: int = 100  # K distractors
    diversity: Diversity = Diversity.perplexity
    diversity_weight: float = 0.1  # alpha of equation 2
    dropout: float = 0.1  # of the features that are quantised

    def spec(self, sites: Spec) -> Spec:
        name = "target 'quantized'"
        if sites.kind != "vectors" or not sites.features:
            raise Mismatch(f"{name} quantises the features of an embedder, it is given {sites.kind}")
        if self.code_width % self.groups:
            raise Mismatch(f"{name}: code_width {self.code_width} does not divide into {self.groups} groups")
        for field in ("width", "groups", "entries", "negatives"):
            if getattr(self, field) < 1:
                raise Mismatch(f"{name}.{field}: {getattr(self, field)} is below 1")
        if not 0 < self.temperature_min <= self.temperature:
            raise Mismatch(f"{name}.temperature_min: {self.temperature_min} is not in (0, {self.temperature}]")
        if not 0 < self.temperature_decay <= 1:
            raise Mismatch(f"{name}.temperature_decay: {self.temperature_decay} is not in (0, 1]")
        if not 0 <= self.dropout < 1:
            raise Mismatch(f"{name}.dropout: {self.dropout} is not in [0, 1)")
        return replace(sites, kind="values", width=self.width, negatives=self.negatives, raw=None)


@targets.register("quantized", QuantizedConfig)
class Quantized(nn.Module):
    """(M,width) projected codes of the predicted frames, and for each the K others it must be told from.

    In training a code is drawn with Gumbel noise and passes gradients straight through; in eval mode it is
    the likeliest.
    """

    batchwise = True

    def __init__(self, config: QuantizedConfig, sites: Spec) -> None:
        super().__init__()
        config.spec(sites)
        self.config = config
        self.logits = nn.Linear(sites.features, config.groups * config.entries)
        nn.init.normal_(self.logits.weight)
        nn.init.zeros_(self.logits.bias)
        size = config.code_width // config.groups
        self.codebook = nn.Parameter(torch.empty(config.groups, config.entries, size))
        nn.init.uniform_(self.codebook)
        self.project = nn.Linear(config.code_width, config.width)

    def forward(self, step: Step, path: Path, plan: Plan) -> Goal:
        if plan.keep is not None:
            raise Mismatch("target 'quantized' reads all sites: use a corruption that replaces, not drops")
        features = step.features(path).flatten(0, 1)
        where = torch.arange(len(features), device=features.device) if plan.where is None else plan.where
        weight = torch.ones_like(where, dtype=torch.float32) if plan.weight is None else plan.weight
        sample, place = plan.sites.sample.flatten()[where], plan.sites.place.flatten()[where]
        tag = f"quantized.{path.draw}"

        rows = F.dropout(features.index_select(0, where), self.config.dropout, self.training)
        logits = self.logits(rows).float().unflatten(-1, (self.config.groups, -1))  # (M,G,V)
        choice = self.choose(logits, step.rng, tag, sample, place)
        self.add_usage(step, logits, choice, weight)
        codes = torch.einsum("mgv,gvd->mgd", choice, self.codebook.float()).flatten(1)  # (M,code_width)

        negatives = masking.negatives(
            documents(plan.sites, where), weight > 0, self.config.negatives, step.rng, tag, sample, place
        )
        own = torch.arange(len(where), device=where.device)[:, None]
        ids = self.ids(choice)
        negatives = torch.where(ids[negatives] == ids[:, None], own, negatives)
        return Goal(values=self.project(codes.to(rows.dtype)), weight=plan.weight, negatives=negatives)

    def choose(self, logits: Tensor, rng: Rng, tag: str, sample: Tensor, place: Tensor) -> Tensor:
        """(M,G,V) one-hot; in training equation 1 with noise, its gradient that of the soft choice."""
        if not self.training:
            return F.one_hot(logits.argmax(-1), logits.shape[-1]).to(logits.dtype)
        group = torch.arange(logits.shape[1], device=logits.device)[:, None]
        entry = torch.arange(logits.shape[2], device=logits.device)
        noise = rng.gumbel(tag + ".gumbel", sample[:, None, None], place[:, None, None], group, entry)
        soft = ((logits + noise) / self.temperature(rng)).softmax(-1)
        hard = F.one_hot(soft.argmax(-1), soft.shape[-1]).to(soft.dtype)
        return hard + (soft - soft.detach())

    def temperature(self, rng: Rng) -> Tensor | float:
        """Annealed from `temperature` to `temperature_min` by the global step."""
        config = self.config
        if isinstance(rng.step, Tensor):
            now = config.temperature * (rng.step.float() * math.log(config.temperature_decay)).exp()
            return now.clamp_min(config.temperature_min)
        return max(config.temperature * config.temperature_decay**rng.step, config.temperature_min)

    def ids(self, choice: Tensor) -> Tensor:
        """(M,) int64: one number for each combination of entries."""
        found = choice.argmax(-1)  # (M,G)
        total = found[:, 0]
        for group in range(1, found.shape[1]):
            total = total * self.config.entries + found[:, group]
        return total

    def add_usage(self, step: Step, logits: Tensor, choice: Tensor, weight: Tensor) -> None:
        """Equation 4 over the predicted rows of all ranks, and the perplexity to be watched."""
        chance = logits.softmax(-1) if self.training else choice
        count = weight.sum()
        mean = sum_ranks((chance * weight[:, None, None]).sum(0)) / sum_ranks(count).clamp_min(1)  # (G,V)
        entropy = -(mean * mean.clamp_min(1e-10).log()).sum(-1)  # (G,)
        perplexity, total = entropy.exp().sum(), mean.numel()
        if self.config.diversity is Diversity.perplexity:
            loss = (total - perplexity) / total
        else:
            loss = -entropy.sum() / total
        step.add("quantized.diversity", Term(loss * count, count, self.config.diversity_weight))
        step.add("quantized.perplexity", Term(perplexity.detach() * count, count, 0.0))
