"""The contract: the nouns that travel between parts, with their shapes.

Legend, used in every comment and docstring of the package:

    B rows, N sites, K kept sites, M predicted rows, C raw width, D model width, P coordinate dimensions,
    G units of a group, E edges, Q codes or negatives, H attention heads.

Polarity is fixed once: `valid` True = real, `mask` True = predict, `fixed` True = never corrupt.
A `None` field means the simple case: all valid, nothing fixed, one document per row, everyone reads everyone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False, kw_only=True)
class Sites:
    """Where things stand. One class for the sites of `Units`, of a `Plan` and of `Tokens`."""

    sample: Tensor  # (B,N) int64 random key: sample id mixed with crop; the same in any batch or packing
    place: Tensor  # (B,N) int64 position within its own document or lattice
    valid: Tensor | None = None  # (B,N) bool, True = real, as the collate or a drop decided; None = all real
    coords: Tensor | None = None  # (B,N,P) float
    fixed: Tensor | None = None  # (B,N) bool, True = never corrupt ([CLS], [SEP], padding is not fixed)
    doc: Tensor | None = None  # (B,N) int64 document within the row; None = one document per row
    group: Tensor | None = None  # (B,N) int64 sentence of its document: 0, 1, ...; None = not told
    word: Tensor | None = None  # (B,N) int64 place where its word begins; None = not told
    cu_seqlens: Tensor | None = None  # (S+1,) int32 bounds over the flat B*N sites; padding is a segment
    edges: Tensor | None = None  # (2,E) int64 source and destination over the flat B*N sites
    members: Tensor | None = None  # (B,N,G) int64 units that belong to a site (point groups)
    grid: tuple[int, ...] | None = None  # the full lattice; None once sites were dropped
    max_len: int = 0  # static bound on the length of one document; 0 = N
    whole: bool = True  # the places of a document are 0, 1, ... in this order; False once sites were taken out

    @property
    def rows(self) -> int:
        return self.sample.shape[0]

    @property
    def n(self) -> int:
        return self.sample.shape[1]

    def real(self) -> Tensor:
        """(B,N) bool: `valid`, made if everything is real."""
        return self.valid if self.valid is not None else torch.ones_like(self.sample, dtype=torch.bool)

    def open(self) -> Tensor:
        """(B,N) bool: sites that a corruption may touch: real and not fixed."""
        return self.real() if self.fixed is None else self.real() & ~self.fixed

    def take(self, keep: Tensor) -> Sites:
        """The sites at `keep` (B,K), in that order. Lattice, edges and document bounds do not survive."""

        def gather(field: Tensor | None) -> Tensor | None:
            return None if field is None else gather_rows(field, keep)

        return replace(
            self,
            sample=gather_rows(self.sample, keep),
            place=gather_rows(self.place, keep),
            valid=gather(self.valid),
            coords=gather(self.coords),
            fixed=gather(self.fixed),
            doc=gather(self.doc),
            group=gather(self.group),
            word=gather(self.word),
            members=gather(self.members),
            cu_seqlens=None,
            edges=None,
            grid=None,
            max_len=self.max_len or self.n,
            whole=False,
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class Units:
    """What the transform made of raw rows, collated. Crops are rows, crop-major: (crops * B, N)."""

    values: Tensor  # (B,N,C) float, or (B,N) int64 ids: the dtype says which
    sites: Sites
    crops: int = 1
    kept: Tensor | None = None  # (B,K,C) values at a plan's `keep`, where they were taken along with the draw

    def at(self, keep: Tensor | None) -> Tensor:
        """(B,K or N,...): the values at `keep` (B,K), or all."""
        if keep is None:
            return self.values
        return gather_rows(self.values, keep) if self.kept is None else self.kept


Batch = dict[str, Units]  # view name -> units: {"image"}, {"image", "text"}, {"source", "target"}


@dataclass(frozen=True, eq=False, kw_only=True)
class Attend:
    """Who reads whom, on top of `valid` and `doc`. Data only; `nn.attention` is its one reader."""

    causal: bool = False
    window: int = 0  # read at most this many places to either side; 0 = no limit
    prefix: Tensor | None = None  # (B,) with causal: the first n places are read by all
    rank: Tensor | None = None  # (B,N) int64 order of generation (permuted language models); 0 = given to all
    query: Tensor | None = None  # (B,N) bool, with rank: reads lower ranks, is read by nobody
    hole: Tensor | None = None  # (B,N) bool, with rank: stands for content of that rank to all who do not read it
    seen: Tensor | None = None  # (B,Nq,Nk) bool: what each site reads at most, of itself or of a memory

    @property
    def only_causal(self) -> bool:
        """Each reads what stands before it and itself, without exceptions."""
        others = (self.prefix, self.rank, self.query, self.seen, self.hole)
        return self.causal and not self.window and all(other is None for other in others)


@dataclass(frozen=True, eq=False, kw_only=True)
class Plan:
    """All that a corruption decided about one view."""

    inputs: Units  # what the encoder may see
    sites: Sites  # where its tokens stand (rewriting and reordering change them)
    keep: Tensor | None = None  # (B,K) int64: embed only these sites
    replace: Tensor | None = None  # (B,N) bool: the embedder puts its mask vector here
    mask: Tensor | None = None  # (B,N) bool, True = predict
    where: Tensor | None = None  # (M,) int64 into the flat B*N, fixed capacity; None = every row
    weight: Tensor | None = None  # (M,) float, 0 = filler; None = all ones
    targets: Units | None = None  # what is to be predicted, if not the view's own values at `where`
    attend: Attend | None = None  # None = all read all (never a default instance: dynamo breaks on it)
    time: Tensor | None = None  # (B,) noise level in [0, 1]
    reply: Plan | None = None  # what the decoder itself is given (shifted targets)


@dataclass(frozen=True, eq=False, kw_only=True)
class Tokens:
    """The one currency between parts."""

    x: Tensor  # (B,prefix+N,D)
    sites: Sites  # of the N, not of the prefix
    prefix: int = 0  # leading class and register tokens
    position: Tensor | None = None  # (B,N,D) is in `x`, and every block after the first adds it again
    cond: Tensor | None = None  # (B,D) time or class, for adaptive norms
    layers: dict[int, Tensor] | None = None  # hidden states that the build asked for (`emit`)
    qkv: dict[int, Tensor] | None = None  # (B,3,prefix+N,H*d) queries, keys, values of blocks it asked for (`emit_qkv`)
    codes: Tensor | None = None  # (B,N,Q) int64, from a quantiser
    aux: dict[str, Term] | None = None  # a part's own losses; the step takes them once
    index: Tensor | None = None  # (M,) `x` holds only these flat rows of the plan, in this order

    @property
    def body(self) -> Tensor:
        """(B,N,D): the tokens without the prefix."""
        return self.x[:, self.prefix :] if self.prefix else self.x

    def at(self, where: Tensor | None) -> Tensor:
        """(M,D): the predicted rows, whether the part returned all sites or only those."""
        rows = self.body.flatten(0, 1)
        return rows if where is None or self.index is where else rows.index_select(0, where)


@dataclass(frozen=True, eq=False, kw_only=True)
class Goal:
    """What a prediction is held against."""

    values: Tensor  # (M,C) float or (M,) int64
    weight: Tensor | None = None  # (M,) float; None = all ones
    negatives: Tensor | None = None  # (M,Q) int64 into the M rows; a row's own index = none


def shares(goal: Goal) -> Tensor:
    """(M,) float64: the share of each row in a weighted mean."""
    weight = torch.ones(len(goal.values), device=goal.values.device) if goal.weight is None else goal.weight
    return weight.double() / weight.double().sum()


def join_goals(goals: Sequence[Goal]) -> Goal:
    """The rows of several goals in one; negatives keep pointing at their own."""
    ends = [0]
    for goal in goals:
        ends.append(ends[-1] + len(goal.values))
    weights = [torch.ones(len(g.values), device=g.values.device) if g.weight is None else g.weight for g in goals]
    negatives = [g.negatives + start for g, start in zip(goals, ends, strict=False) if g.negatives is not None]
    return Goal(
        values=torch.cat([goal.values for goal in goals]),
        weight=torch.cat(weights),
        negatives=torch.cat(negatives) if negatives else None,
    )


@dataclass(frozen=True, eq=False)
class Term:
    """A mean that is not divided yet, so that ranks with different counts agree on the global mean."""

    sum: Tensor  # ()
    count: Tensor  # ()
    weight: float | Tensor = 1.0

    @property
    def mean(self) -> Tensor:
        """(): the local mean; 0 where nothing was counted."""
        return self.sum / self.count.clamp_min(1e-12)


@dataclass(frozen=True, kw_only=True)
class Path:
    """A way through the parts. All fields are names, so a path is its own memo key."""

    view: str = "main"
    corruption: str | None = None
    reply: bool = False  # the decoder's side of the plan
    draw: int = 0  # another draw of the same view (dropout twins, several masks)
    embedder: str = "main"
    encoder: str | None = "main"
    bottleneck: str | None = None
    teacher: str | None = None  # read the parts of this teacher, without gradient


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """The special ids of a tokenizer; -1 = it has none."""

    size: int
    pad: int = 0
    mask: int = -1
    bos: int = -1  # [CLS] where the tokenizer has one
    eos: int = -1  # [SEP] or </s>
    sentinel: int = -1  # the highest sentinel id; further ones count down
    sentinels: int = 0
    specials: int = 0  # ids below this are special and never drawn as random replacements
    learned: bool = field(default=False, compare=False)  # what ids mean is learned from the rows of the run


@dataclass(frozen=True)
class Layer:
    """One hidden state of an encoder, as integers."""

    width: int
    grid: tuple[int, ...] | None = None  # None = as in what it read
    inner: int = 0  # H*d of its queries, keys and values; 0 = it hands out none


@dataclass(frozen=True, kw_only=True)
class Spec:
    """What flows between two parts, as integers: checked before any data is touched."""

    kind: Literal["values", "ids", "vectors", "chances"]  # raw values, raw ids, model vectors, or probabilities
    width: int  # C for values, vocabulary size for ids, D for vectors
    length: int = 0  # N; 0 = varies
    max_len: int = 0  # static bound on the length of one document; 0 = `length`
    coords: int = 0  # P; 0 = none
    grid: tuple[int, ...] | None = None
    edges: bool = False
    groups: bool = False  # sites are told which sentence they belong to
    words: bool = False  # sites are told where their word begins
    docs: bool = False  # several documents stand in a row
    fixed: bool = False  # some sites are never corrupted
    ahead: int = 0  # sites are asked for so many that follow them, so none may read those; 0: they are not
    prefix: int = 0
    features: int = 0  # width of the embedder's content before projection
    layers: tuple[Layer, ...] = ()  # hidden states that the encoder can hand out, first to last
    negatives: int = 0  # distractors that a target gives with each row
    codes: int = 0  # entries of the quantiser that gave `Tokens.codes`; 0 = none
    rows: Literal["all", "kept", "coarse", "one", "predicted"] = "all"  # which sites come back
    crops: int = 1
    vocabulary: Vocabulary | None = None
    raw: Spec | None = None  # the view that an embedder read


@dataclass(frozen=True, kw_only=True)
class Reading:
    """A path that a target reads besides the plan, and the heads that its rows go through."""

    path: Path
    spec: Spec  # of what comes out
    heads: tuple[str, ...] = ()


class Mismatch(ValueError):
    """Two parts that do not fit, or a value out of range. Names both sides; shown to the user as is."""


class Halted(Exception):
    """A run ends before its time, on purpose, and can go on from its last checkpoint. Shown to the user as is.

    Args:
        code: exit code of the process.
    """

    def __init__(self, text: str, code: int = 1) -> None:
        super().__init__(text)
        self.code = code


def gather_rows(field: Tensor, keep: Tensor) -> Tensor:
    """Rows of `field` (B,N,...) at `keep` (B,K) -> (B,K,...)."""
    index = keep.view(*keep.shape, *[1] * (field.dim() - 2))
    return field.gather(1, index.expand(*keep.shape, *field.shape[2:]))


def map_tensors(value: Any, fn: Callable[[Tensor], Tensor]) -> Any:
    """Apply `fn` to every tensor in nested nouns, dicts, lists and tuples."""
    if isinstance(value, Tensor):
        return fn(value)  # type: ignore[return-value]
    if is_dataclass(value) and not isinstance(value, type):
        changes: dict[str, Any] = {}
        for field in fields(value):
            old = getattr(value, field.name)
            new = map_tensors(old, fn)
            if new is not old:
                changes[field.name] = new
        return replace(value, **changes) if changes else value  # type: ignore[type-var]
    if isinstance(value, dict):
        return {key: map_tensors(item, fn) for key, item in value.items()}  # type: ignore[return-value]
    if isinstance(value, list | tuple):
        return type(value)(map_tensors(item, fn) for item in value)  # type: ignore[return-value]
    return value
