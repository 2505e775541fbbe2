"""What an objective that writes is given at first: a text of the user's, or test rows with what should follow."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from encdec_train.step import Step
from encdec_train.types import Batch, Mismatch, Plan, Sites, Units, gather_rows


@dataclass(frozen=True, eq=False, kw_only=True)
class Task:
    """Test rows: what is given, and what should be written."""

    begin: Plan  # what the written path begins with
    sources: list[str]  # what is read, as text; empty where it is none
    references: list[str | None]  # none: the row asks for nothing


def rows_of(ids: Sequence[Tensor], device: torch.device, keys: Tensor | None = None) -> Units:
    """Rows of ids, padded at their ends; one of none is all padding. `keys` (B,) are their random keys: 0, 1, ..."""
    n = max([1, *map(len, ids)])
    values = torch.zeros(len(ids), n, dtype=torch.int64)
    for row, own in zip(values, ids, strict=True):
        row[: len(own)] = own
    length = torch.tensor([len(own) for own in ids])[:, None]
    place = torch.arange(n).expand(len(ids), -1)
    keys = torch.arange(len(ids), device=device) if keys is None else keys
    sites = Sites(
        sample=keys[:, None].expand(-1, n), place=place.to(device), valid=(place < length).to(device), max_len=n
    )
    return Units(values=values.to(device), sites=sites)


def batch_of(objective: Any, transform: Any, texts: Sequence[str], device: torch.device, first: int = 0) -> Batch:
    """Texts of a user as the view that the objective reads; their random keys are `first`, `first` + 1, ...

    Raises:
        Mismatch: it reads no text.
    """
    view = objective.memory.view
    part = transform.of(view)
    if not hasattr(part, "prompt"):
        raise Mismatch(f"objective '{objective.name}' reads the view '{view}', which is no text")
    goes_on = objective.inputs is None
    keys = first + torch.arange(len(texts), device=device)
    return {view: rows_of([part.prompt(text, ended=not goes_on) for text in texts], device, keys)}


def prompt(step: Step, objective: Any, transform: Any) -> Plan:
    """What is given at first where the batch holds texts of a user; one that is read is read as it is."""
    path = objective.path
    if objective.inputs is not None and not path.reply:
        return _start(step, objective, transform, step.units(objective.memory.view))
    corruption = step.part("corruption", path.corruption)
    asked: Plan = corruption.prompt(step.units(path.view), step.sites(path))
    if objective.inputs is None:
        return asked
    step.settle(objective.memory, asked)
    assert asked.reply is not None, "the path is a reply"
    return asked.reply


def _start(step: Step, objective: Any, transform: Any, read: Units) -> Plan:
    """The beginning of rows of another view, written as a whole; they have the keys of those that are read."""
    path, device = objective.path, read.values.device
    part, keys = transform.of(path.view), read.sites.sample[:, 0]
    start = rows_of([part.start()] * len(keys), device, keys)
    plan: Plan = step.part("corruption", path.corruption).prompt(start, start.sites)
    return plan


def task(step: Step, objective: Any, transform: Any, texts: Sequence[str], share: float) -> Task:
    """Test rows of a step as something to be written.

    A reply is to be what the corruption took away, under the step's draws; a text goes on after a share of its tokens;
    another view is to be written as a whole.

    Args:
        step: holds the rows, clean.
        objective: that writes.
        transform: of the data.
        texts: of each row, what the column of the written view holds.
        share: of the tokens of a row that goes on, which are given.
    """
    path, words = objective.path, transform.of(objective.path.view)
    if objective.inputs is None:
        return _continued(step, objective, words, share)
    if not path.reply:
        memory = transform.of(objective.memory.view)
        read = step.units(objective.memory.view)
        sources = _said(memory, read) if hasattr(memory, "text") else [""] * read.sites.rows
        return Task(begin=_start(step, objective, transform, read), sources=sources, references=list(texts))
    plan, read = step.plan(path), step.plan(objective.memory).inputs
    assert plan.targets is not None, "a reply is to be written"
    asked = [
        text if real else None for text, real in zip(_said(words, plan.targets), _filled(plan.targets), strict=True)
    ]
    return Task(begin=_first(plan), sources=_said(words, read, special=True), references=asked)


def _continued(step: Step, objective: Any, words: Any, share: float) -> Task:
    units = step.units(objective.path.view)
    real, rows = units.sites.open(), units.values.tolist()
    heads, tails = [], []
    for row, here in zip(rows, real.tolist(), strict=True):
        body = [i for i, open_ in zip(row, here, strict=True) if open_]
        cut = math.ceil(share * len(body))
        heads.append(torch.tensor([*words.start().tolist(), *body[:cut]], dtype=torch.int64))
        tails.append(body[cut:])
    given = rows_of(heads, units.values.device, units.sites.sample[:, 0])
    return Task(
        begin=step.part("corruption", objective.path.corruption).prompt(given, given.sites),
        sources=[words.text(head.tolist()) for head in heads],
        references=[words.text(tail) if tail else None for tail in tails],
    )


def _said(words: Any, units: Units, *, special: bool = False) -> list[str]:
    rows = zip(units.values.tolist(), units.sites.real().tolist(), strict=True)
    return [words.text([i for i, real in zip(*row, strict=True) if real], special=special) for row in rows]


def _filled(units: Units) -> list[bool]:
    found: list[bool] = units.sites.real().any(1).tolist()
    return found


def _first(plan: Plan) -> Plan:
    """What a decoder is given of a reply before it has written anything: its first site."""
    start = torch.zeros(plan.sites.rows, 1, dtype=torch.int64, device=plan.sites.sample.device)
    sites = replace(plan.sites.take(start), valid=None, doc=None, fixed=None, group=None)
    values = gather_rows(plan.inputs.values, start)
    return Plan(inputs=Units(values=values, sites=sites), sites=sites, attend=plan.attend)


def room(objective: Any, transform: Any, begin: Plan) -> int:
    """How many ids may follow what is given: as many as a row of the view has, or a reply of the plan.

    Raises:
        Mismatch: there is no place left.
    """
    path = objective.path
    if path.reply and begin.sites.max_len:
        return begin.sites.max_len
    spec = transform.specs()[path.view]
    bound = (spec.max_len or spec.length) - (0 if path.reply else begin.sites.n)
    if bound < 1:
        raise Mismatch(f"{begin.sites.n} tokens fill a row of the view '{path.view}': nothing can follow")
    return bound
