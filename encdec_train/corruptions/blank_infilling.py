"""Autoregressive blank infilling: spans become one mask token each and are written out behind the text.

Du et al. 2022 (GLM, arXiv:2103.10360), section 2.1 and figure 2. The row is part A, the text with its masks, and part
B, the spans in random order, each behind a start token; A reads A, B reads A and what comes before it in B:

    text      x1 x2 x3 x4 x5 x6
    row       x1 x2 [M] x4 [M] | [S] x5 x6 [S] x3
    targets                    | x5 x6 [E] x3 [E]
    in text    0  1  2  3  4   |  4  4  4   2  2     first coordinate: of a span, the place of its mask
    in span    0  0  0  0  0   |  1  2  3   1  2     second coordinate

The vocabulary's begin and end of sequence are [S] and [E].
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encdec_train.nn.blanks import Blanks, capacity, draw_blanks, offsets
from encdec_train.registry import corruptions
from encdec_train.step import Step
from encdec_train.types import Attend, Mismatch, Path, Plan, Sites, Spec, Units


@dataclass(kw_only=True)
class BlankInfillingConfig:
    ratio: float = 0.15  # share of the tokens in spans
    mean_length: float = 3.0  # of the spans

    def spec(self, sites: Spec) -> Spec:
        raw = sites.raw or sites
        words = raw.vocabulary
        if not 0 < self.ratio < 1:
            raise Mismatch(f"corruption 'blank_infilling'.ratio: {self.ratio} is not between 0 and 1")
        if self.mean_length <= 0:
            raise Mismatch(f"corruption 'blank_infilling'.mean_length: {self.mean_length} is not above 0")
        if raw.kind != "ids" or words is None:
            raise Mismatch(f"corruption 'blank_infilling' rewrites ids, the view gives {raw.kind}")
        if min(words.mask, words.bos, words.eos) < 0:
            raise Mismatch("corruption 'blank_infilling': the vocabulary lacks a mask, a begin or an end of sequence")
        return replace(sites, length=0, max_len=0, coords=2)

    def room(self, n: int) -> tuple[int, int]:
        """Most sites of a row of `n` tokens, and of its part B."""
        spans = capacity(n, self.ratio, self.mean_length)
        return n + 2 * spans, round(n * self.ratio) + spans


class Row(NamedTuple):
    """The new rows."""

    ids: Tensor  # (B,R)
    targets: Tensor  # (B,R)
    coords: Tensor  # (B,R,2) int64
    text: Tensor  # (B,1) int64 sites of part A
    spans: Tensor  # (B,1) int64 sites of part B


@corruptions.register("blank_infilling", BlankInfillingConfig)
class BlankInfilling(nn.Module):
    """Rows of one bare text each -> rows of parts A and B, of which B is predicted."""

    def __init__(self, config: BlankInfillingConfig, sites: Spec) -> None:
        super().__init__()
        config.spec(sites)
        words = (sites.raw or sites).vocabulary
        assert words is not None, "spec refuses a view without a vocabulary"
        self.config, self.words = config, words

    def forward(self, units: Units, sites: Sites, step: Step, path: Path) -> Plan:
        if sites.doc is not None or sites.fixed is not None:
            raise Mismatch("corruption 'blank_infilling' needs one document in a row, without special tokens")
        config, key = self.config, sites.sample[:, :1]
        length = sites.real().sum(1, keepdim=True)
        blanks = draw_blanks(
            length, sites.n, step.rng, f"blank.{path.draw}", key, share=config.ratio, mean=config.mean_length, least=1
        )
        room, most = config.room(sites.n)
        row = self.write(units.values, length, blanks, room)
        place = torch.arange(room, device=key.device).expand(len(key), -1)
        new = Sites(
            sample=key.expand(-1, room),
            place=place,
            valid=place < row.text + row.spans,
            coords=row.coords.float(),
            max_len=room,
        )
        slot = torch.arange(most, device=key.device)
        start = torch.arange(len(key), device=key.device)[:, None] * room + row.text
        return Plan(
            inputs=Units(values=row.ids, sites=new),
            sites=new,
            where=(start + slot).clamp_max(len(key) * room - 1).flatten(),
            weight=(slot < row.spans).flatten().float(),
            targets=Units(values=row.targets, sites=new),
            attend=Attend(causal=True, prefix=row.text[:, 0]),
        )

    def prompt(self, units: Units, sites: Sites) -> Plan:
        """Texts with masks, of which the last is written out; without one the text goes on."""
        words, ids = self.words, units.values
        length = sites.real().sum(1, keepdim=True)
        real = torch.arange(ids.shape[1], device=ids.device) < length
        masked = ((ids == words.mask) & real).any(1, keepdim=True)
        text = length + (~masked).long()  # (B,1) sites of part A
        row = F.pad(ids, (0, 2)).scatter(1, length, words.mask).scatter(1, text, words.bos)
        place = torch.arange(row.shape[1], device=ids.device).expand_as(row)
        blank = torch.where((row == words.mask) & (place < text), place, -1).amax(1, keepdim=True)
        coords = torch.stack([torch.where(place < text, place, blank), (place >= text).long()], -1)
        new = Sites(
            sample=sites.sample[:, :1].expand_as(row),
            place=place,
            valid=place <= text,
            coords=coords.float(),
            max_len=row.shape[1],
        )
        return Plan(inputs=Units(values=row, sites=new), sites=new, attend=Attend(causal=True, prefix=text[:, 0]))

    def write(self, ids: Tensor, length: Tensor, blanks: Blanks, room: int) -> Row:
        """Every token, mask, start and end to its place. Slot `room` takes what is not written."""
        words, n = self.words, ids.shape[1]
        item = torch.arange(n, device=ids.device).expand_as(ids)
        left = (item < length) & ~blanks.covered
        inner = (item < length) & blanks.covered
        filled = blanks.span >= 0  # (B,N+1) by gap
        masks = filled.long().cumsum(1)
        mask_at = torch.arange(n + 1, device=ids.device) + masks - 1  # (B,N+1) in part A
        text = left.sum(1, keepdim=True) + masks[:, -1:]
        piece = torch.where(blanks.length > 0, blanks.length + 1, 0)  # (B,C) of part B
        begin = text + offsets(piece)  # (B,C)
        of_gap = blanks.span.clamp(0, begin.shape[1] - 1)
        start_at = begin.gather(1, of_gap)  # (B,N+1)
        gap = blanks.gap  # (B,N)
        within = item - blanks.start.gather(1, gap)  # (B,N) place in the span
        token_at = start_at.gather(1, gap) + within
        end_at = start_at + blanks.length.gather(1, of_gap)
        text_at = gap + masks.gather(1, gap)

        def put(row: Tensor, flag: Tensor, at: Tensor, what: Tensor | int) -> Tensor:
            value = what if isinstance(what, Tensor) else torch.full_like(at, what)
            return row.scatter(1, torch.where(flag, at, room).clamp_max(room), value)

        blank = ids.new_full((len(ids), room + 1), words.pad)
        new = put(put(blank, left, text_at, ids), filled, mask_at, words.mask)
        new = put(put(new, filled, start_at, words.bos), inner, token_at + 1, ids)
        targets = put(put(blank, inner, token_at, ids), filled, end_at, words.eos)
        first = torch.arange(room + 1, device=ids.device).expand_as(blank)
        first = put(first, filled, start_at, mask_at)
        first = put(first, inner, token_at + 1, mask_at.gather(1, gap))
        first = torch.where(first < text, first, 0)  # the padding
        second = put(put(torch.zeros_like(blank), filled, start_at, 1), inner, token_at + 1, within + 2)
        coords = torch.stack([first, second], 2)[:, :room]
        return Row(new[:, :room], targets[:, :room], coords, text, piece.sum(1, keepdim=True))
