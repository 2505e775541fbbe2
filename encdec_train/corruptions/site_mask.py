"""Masked sites: a fixed share of each document's sites gets the mask vector and is predicted.

Nie et al. 2023, "A Time Series is Worth 64 Words" (PatchTST, arXiv:2211.14730), section 3.2: patches are chosen
uniformly at random, in every channel on its own. A channel is a document of its row.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from encdec_train.corruptions.drop import flat
from encdec_train.kernels import masking
from encdec_train.registry import corruptions
from encdec_train.step import Step
from encdec_train.types import Mismatch, Path, Plan, Sites, Spec, Units


@dataclass(kw_only=True)
class SiteMaskConfig:
    ratio: float = 0.4  # share of the sites that is hidden and predicted

    replaces = True

    def hidden(self, length: int) -> int:
        """How many of `length` sites; what is kept is rounded down, as in the authors' code."""
        return length - int(length * (1 - self.ratio))

    def spec(self, sites: Spec) -> Spec:
        if not 0 < self.ratio < 1:
            raise Mismatch(f"corruption 'site_mask'.ratio: {self.ratio} is not between 0 and 1")
        if not sites.length:
            raise Mismatch("corruption 'site_mask' needs rows of one length, the view's vary")
        document = sites.max_len or sites.length
        if sites.length % document:
            raise Mismatch(f"corruption 'site_mask': rows of {sites.length} are no whole documents of {document}")
        if self.hidden(document) == document:
            raise Mismatch(f"corruption 'site_mask'.ratio: {self.ratio} of {document} sites hides all")
        return sites


@corruptions.register("site_mask", SiteMaskConfig)
class SiteMask(nn.Module):
    """Hides M of the N sites of every document; documents of a row are of one length and follow each other."""

    def __init__(self, config: SiteMaskConfig, sites: Spec) -> None:
        super().__init__()
        self.config, self.document = config, sites.max_len or sites.length

    def forward(self, units: Units, sites: Sites, step: Step, path: Path) -> Plan:
        bits = step.rng.bits(f"site_mask.{path.draw}", sites.sample, sites.place)  # (B,N)
        mask, chosen = self.choose(bits)
        weight = None if sites.valid is None else sites.valid.gather(1, chosen).flatten().float()
        where = flat(chosen, sites.n)
        return Plan(inputs=units, sites=sites, replace=mask, mask=mask, where=where, weight=weight)

    def choose(self, bits: Tensor) -> tuple[Tensor, Tensor]:
        """(B,N) random bits -> (B,N) bool and (B,M) sites in their order: the lowest of every document."""
        documents = bits.unflatten(1, (-1, self.document))  # (B,documents,length)
        mask = masking.lowest(documents, self.config.hidden(self.document)).flatten(1)
        return mask, masking.places(mask, self.config.hidden(self.document) * documents.shape[1])
