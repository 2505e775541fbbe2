"""An objective that predicts ids, as something that goes on with rows of them.

Decoders that read a memory, language models and prefix language models are one thing here: the path that is written
along is embedded, encoded and decoded id by id, each part with a cache of what it has read.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from encdec_train.decoding.search import SearchConfig, search
from encdec_train.nn.cache import Cache
from encdec_train.step import Parts, Step
from encdec_train.types import Mismatch, Plan, Sites, Tokens, Units, gather_rows, map_tensors


def check_writer(parts: Parts, name: str, transform: Any) -> None:
    """Raise `Mismatch` unless an objective can go on with ids.

    Args:
        parts: of the run.
        name: of the objective.
        transform: of the data.
    """
    said = f"objective '{name}' writes no text"
    objective = parts.get("objective", name)
    if not hasattr(objective, "predict"):
        raise Mismatch(f"{said}: it compares")
    path, config = objective.path, objective.config
    if path.view not in transform.specs() or not hasattr(transform.of(path.view), "text"):
        raise Mismatch(f"{said}: the view '{path.view}' is none")
    corruption = None if path.corruption is None else parts.get("corruption", path.corruption)
    if not hasattr(corruption, "prompt"):
        given = "there is none" if corruption is None else f"it is a {type(corruption).__name__}"
        raise Mismatch(f"{said}: its path needs a corruption that goes on with rows, {given}")
    if path.bottleneck is not None:
        raise Mismatch(f"{said}: what is predicted stands behind bottleneck '{path.bottleneck}'")
    for noun, part in (("encoder", path.encoder), ("decoder", config.decoder)):
        if part is not None and not getattr(parts.get(noun, part), "keeps", False):
            raise Mismatch(f"{said}: {noun} '{part}' reads whole rows, it keeps nothing from one id to the next")


class Going:
    """Rows that go on; see `search.Rows`.

    Args:
        step: with the memory's views, if the objective reads a memory besides the path that is written along.
        name: of the objective.
        begin: what is given at first. Padding stands at the end of its rows.
        length: most ids that follow.
    """

    def __init__(self, step: Step, name: str, begin: Plan, length: int) -> None:
        self.step, self.objective, self.cache = step, step.part("objective", name), Cache()
        objective = self.objective
        self.memory = _bare(step.tokens(objective.memory)) if objective.inputs is not None else None
        total = begin.sites.n + length - 1  # the last id is not read
        self._fits(total)
        sites = replace(begin.sites, max_len=total, fixed=None)
        self.plan = replace(begin, sites=sites, inputs=replace(begin.inputs, sites=sites))
        self.last = (sites.real().sum(1, keepdim=True) - 1).clamp_min(0)  # (R,1) where the next id is read off
        self.logits = self._read()

    def _fits(self, total: int) -> None:
        places = getattr(self.step.part("embedder", self.objective.path.embedder), "places", None)
        if places is not None and total > places:
            raise Mismatch(f"embedder '{self.objective.path.embedder}' has {places} places, {total} are asked for")

    def scores(self) -> Tensor:
        """(R,V) logits of the next id."""
        return self.logits

    def append(self, ids: Tensor) -> None:
        """Go on with the ids (R,), one place behind the last, and along the last coordinate if there are any."""
        old = self.plan.sites
        after = Sites(
            sample=old.sample[:, :1],
            place=gather_rows(old.place, self.last) + 1,
            coords=None if old.coords is None else _next(gather_rows(old.coords, self.last)),
            max_len=old.max_len,
            whole=False,
        )
        self.plan = replace(self.plan, sites=after, inputs=Units(values=ids[:, None], sites=after))
        self.last = torch.zeros_like(self.last)
        self.logits = self._read()

    def reorder(self, rows: Tensor) -> None:
        """Row i becomes what row `rows[i]` was."""
        self.cache.reorder(rows)
        self.plan, self.last, self.logits, self.memory = map_tensors(
            (self.plan, self.last, self.logits, self.memory), lambda held: held.index_select(0, rows)
        )

    def _read(self) -> Tensor:
        """(R,V): the given ids through all parts."""
        path, config, plan = self.objective.path, self.objective.config, self.plan
        embedder = self.step.part("embedder", path.embedder, path.teacher)
        tokens: Tokens = embedder.place(embedder.features(plan.inputs, plan.sites, None), plan)
        if path.encoder is not None:
            tokens = self.step.part("encoder", path.encoder, path.teacher)(tokens, plan.attend, cache=self.cache)
        if config.decoder is not None:
            tokens = self.step.part("decoder", config.decoder)(self.memory, tokens, plan, cache=self.cache)
        rows = gather_rows(tokens.body, self.last)[:, 0]
        scores: Tensor = self.step.project(rows, [*config.before, config.head])
        return scores


def _bare(memory: Tokens) -> Tokens:
    """What a decoder reads of a memory, one entry for every row."""
    return replace(memory, layers=None, qkv=None, sites=replace(memory.sites, edges=None, cu_seqlens=None))


def _next(coords: Tensor) -> Tensor:
    """(R,1,P): one step along the last coordinate."""
    return torch.cat([coords[..., :-1], coords[..., -1:] + 1], -1)


@torch.no_grad()
def write(step: Step, name: str, begin: Plan, config: SearchConfig, *, end: int, length: int) -> list[list[int]]:
    """The ids that an objective writes behind what is given, one list for each row, without the end.

    Args:
        step: as `Going` has it; parts in eval mode.
        name: of the objective.
        begin: what is given at first.
        config: of the search.
        end: id that ends a row.
        length: most ids that are written.
    """
    with torch.compiler.set_stance("force_eager"):  # a row that grows would be compiled anew at every id
        going = Going(step, name, begin, length)
        return search(going, config, end=end, length=length, rng=step.rng, key=begin.sites.sample[:, 0])
