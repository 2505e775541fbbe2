"""Rewriting rows of documents into rows of another, fixed capacity: no size depends on data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from encdec_train.kernels import spans
from encdec_train.types import Attend, Plan, Sites, Units


class Documents(NamedTuple):
    """The documents of rows, told at every site. The padding of a row counts as one more, of length 0."""

    number: Tensor  # (B,N) int64 which document of the row: 0, 1, ...
    item: Tensor  # (B,N) int64 place within the document
    length: Tensor  # (B,N) int64 sites of the document; 0 for padding and for documents that are left out

    @property
    def real(self) -> Tensor:
        """(B,N) bool: sites of documents that are not left out."""
        return self.length > 0

    @property
    def last(self) -> Tensor:
        """(B,N) bool: the last site of each document."""
        return self.real & (self.item == self.length - 1)


def documents(sites: Sites, shortest: int) -> Documents:
    """Which site belongs to which document. Those with fewer than `shortest` sites are left out: length 0."""
    doc = sites.doc if sites.doc is not None else torch.where(sites.real(), 0, -1)
    return Documents(*spans.documents(doc, shortest))


def rewrite(
    writes: Sequence[tuple[Tensor, Tensor]],
    docs: Documents,
    sites: Sites,
    lengths: Tensor | None,
    *,
    room: int,
    longest: int,
    full: bool,
    pad: int,
) -> Units:
    """Write the new rows from left to right.

    Args:
        writes: pairs of (B,N) bool and (B,N) ids. Each site writes those of its ids whose flag is True, in
            this order.
        docs: the documents of the old rows; the new ones hold the same, in the same order.
        sites: the old sites.
        lengths: (L+1,) int64, what a document of 0, 1, ... sites becomes; must agree with `writes`. None: rows hold
            one document each.
        room: capacity of the new rows. What does not fit is cut off.
        longest: static bound on the new documents.
        full: it is known that nothing of the new rows is padding.
        pad: id that fills the rest.

    Returns:
        Units of (B,room) ids. Rows that held packed documents are packed again.
    """
    real, packed = docs.real, sites.doc is not None
    ids, sample, place, number, used = spans.write(
        [(flag & real, values) for flag, values in writes],
        *(sites.sample, docs.number, docs.item),
        packed=packed,
        room=room,
        longest=longest,
        pad=pad,
    )
    new = Sites(
        sample=sample,
        place=place,
        valid=None if full else torch.arange(room, device=used.device) < used,
        doc=number if packed else None,
        cu_seqlens=None if lengths is None else _bounds(sites, lengths, room, used),
        max_len=longest,
    )
    return Units(values=ids, sites=new)


def _bounds(sites: Sites, lengths: Tensor, room: int, used: Tensor) -> Tensor | None:
    """(S+1,) int32: bounds of the new documents; the last segment of each row is its padding, maybe empty."""
    if sites.cu_seqlens is None:
        return None
    ends, old = sites.cu_seqlens[1:].long(), sites.cu_seqlens.diff().long()
    following = F.pad(ends[1:], (0, 1), value=-1)
    padding = (ends % sites.n == 0) & (following != ends)
    left = room - used[(ends - 1).div(sites.n, rounding_mode="floor"), 0]
    new = torch.where(padding, left, lengths[torch.where(padding, 0, old)])
    return F.pad(new.cumsum(0), (1, 0)).int()


def reply(target: Units, begin: int) -> Plan:
    """What a decoder is given that writes `target`: each document shifted right, behind `begin` (T5: padding)."""
    shifted = F.pad(target.values, (1, 0), value=begin)[:, :-1]
    shifted = torch.where(target.sites.place == 0, begin, shifted)
    real = target.sites.valid
    return Plan(
        inputs=replace(target, values=shifted),
        sites=target.sites,
        weight=None if real is None else real.flatten().float(),
        targets=target,
        attend=Attend(causal=True),
    )


def begin(units: Units, first: int) -> Plan:
    """What a decoder is given that has written nothing yet: `first` at one site of each row."""
    sample = units.sites.sample[:, :1]
    sites = Sites(sample=sample, place=torch.zeros_like(sample))
    start = Units(values=torch.full_like(sample, first), sites=sites)
    return Plan(inputs=start, sites=sites, attend=Attend(causal=True))


def ended(units: Units, end: int) -> Units:
    """Rows of one text each, with `end` behind it: (B,N+1) ids."""
    old = units.sites
    length = old.real().sum(1, keepdim=True)
    place = torch.arange(old.n + 1, device=length.device).expand(old.rows, -1)
    sites = Sites(sample=old.sample[:, :1].expand_as(place), place=place, valid=place <= length, max_len=old.n + 1)
    return Units(values=F.pad(units.values, (0, 1)).scatter(1, length, end), sites=sites)
