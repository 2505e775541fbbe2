"""One training step: the memo, the randomness and the parts, as corruptions, targets and objectives see them.

Objectives share work by naming the same `Path`: each verb is computed once for each prefix of a path it depends on.
The memo keeps all activations until the one backward pass; that is the price of sharing.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from encdec_train.rng import Rng
from encdec_train.types import Batch, Path, Plan, Reading, Sites, Term, Tokens, Units

Result = TypeVar("Result")


class Parts(nn.Module):
    """All parts of a run: `student.<noun>.<name>`, and the copies that a teacher keeps under `teachers.<teacher>`."""

    def __init__(self, parts: dict[str, dict[str, nn.Module]]) -> None:
        super().__init__()
        self.student = nn.ModuleDict({noun: nn.ModuleDict(named) for noun, named in parts.items()})
        self.teachers = nn.ModuleDict()
        self.own_statistics: set[str] = set()  # teachers whose batch norms read their own batches

    def forward(self, work: Callable[[], Result]) -> Result:
        """What `work` gives, which may read any part: where processes hold shares of parts, they are whole meanwhile.

        A backward pass from a tensor that it gives has them whole too; `work` gives all of those.
        """
        return work()

    def get(self, noun: str, name: str, teacher: str | None = None) -> Any:
        """The part, or the teacher's copy of it; parts that the teacher does not copy fall through."""
        if teacher is not None:
            copies: Any = self.teachers[teacher]
            if noun in copies and name in copies[noun]:
                return copies[noun][name]
        named: Any = self.student[noun]
        return named[name]

    def add_teacher(self, teacher: str, names: Iterable[str], *, own_statistics: bool = False) -> None:
        """Copy the parts `noun.name` in one go (so that ties between them survive), frozen and in eval mode.

        With `own_statistics` its batch norms use, in training, the statistics of the batch that they are given, and
        keep running ones of their own; else they use the student's running ones. Its dropout is off either way.
        """
        chosen: dict[str, dict[str, nn.Module]] = {}
        for full in names:
            noun, name = full.split(".", 1)
            chosen.setdefault(noun, {})[name] = self.get(noun, name)
        copies = copy.deepcopy(chosen)
        self.teachers[teacher] = nn.ModuleDict({noun: nn.ModuleDict(named) for noun, named in copies.items()})
        self.teachers[teacher].requires_grad_(False).eval()
        if own_statistics:
            self.own_statistics.add(teacher)

    def refresh_teacher(self, teacher: str) -> None:
        """Teacher <- student, buffers too."""
        self._follow(teacher, 0.0, own_statistics=False)

    def train(self, mode: bool = True) -> Parts:
        """Teachers stay in eval mode but for batch norms with statistics of their own, and so do frozen parts."""
        super().train(mode)
        self.teachers.eval()
        for teacher in self.own_statistics:
            for module in self.teachers[teacher].modules():
                if isinstance(module, _BatchNorm):
                    module.train(mode)
        for named in self.student.values():
            for part in named.values():  # type: ignore[operator, union-attr]
                if getattr(part, "frozen", False):
                    part.eval()
        return self

    def update_teacher(self, teacher: str, momentum: float) -> None:
        """Teacher <- momentum * teacher + (1 - momentum) * student; buffers are copied, but statistics of its own."""
        self._follow(teacher, momentum, own_statistics=teacher in self.own_statistics)

    @torch.no_grad()
    def _follow(self, teacher: str, momentum: float, *, own_statistics: bool) -> None:
        copies: Any = self.teachers[teacher]
        for noun, named in copies.items():
            for name, part in named.items():
                student = self.get(noun, name)
                old, new = list(part.parameters()), list(student.parameters())
                if old:
                    torch._foreach_lerp_(old, new, 1.0 - momentum)
                for kept, current in zip(part.modules(), student.modules(), strict=True):
                    if not (own_statistics and isinstance(kept, _BatchNorm)):
                        for buffer, source in zip(kept.buffers(False), current.buffers(False), strict=True):
                            buffer.copy_(source)


class Step:
    """What one global step knows.

    Args:
        batch: the views, on the training device.
        parts: all parts of the run.
        rng: keyed by the run's seed and this step.
        derive: views that a frozen path makes of another view (latents of a first stage).
    """

    def __init__(self, batch: Batch, parts: Parts, rng: Rng, derive: dict[str, Path] | None = None) -> None:
        self.batch, self.parts, self.rng, self.derive = dict(batch), parts, rng, derive or {}
        self.aux: dict[str, Term] = {}  # losses that parts brought themselves
        self._memo: dict[Hashable, Any] = {}

    def part(self, noun: str, name: str, teacher: str | None = None) -> Any:
        return self.parts.get(noun, name, teacher)

    def once(self, verb: str, key: Hashable, make: Callable[[], Any]) -> Any:
        """`make()`, once for this verb and key (and gradient mode) in this step."""
        full = (verb, key, torch.is_grad_enabled())
        if full not in self._memo:
            self._memo[full] = make()
        return self._memo[full]

    def trained(self) -> dict[Path, Tokens]:
        """What encoders made with gradient, with the codes of a bottleneck; the paths stand without theirs."""
        found: dict[Path, Tokens] = {}
        for full, value in self._memo.items():
            verb, key, gradient = cast(tuple[str, Any, bool], full)
            if gradient and verb == "encode":
                found[key] = value
            elif gradient and verb == "tokens" and replace(key, bottleneck=None) in found:
                key = replace(key, bottleneck=None)
                found[key] = replace(found[key], codes=value.codes)
        return found

    def add(self, name: str, term: Term) -> None:
        """A part's own loss. Counted once, and only where gradients flow."""
        if torch.is_grad_enabled():
            self.aux[name] = term

    def take_aux(self) -> dict[str, Term]:
        """The parts' own losses so far; each is handed out once."""
        taken, self.aux = self.aux, {}
        return taken

    def fork(self, views: Batch) -> Step:
        """The same step with other contents of some views, and a memo of its own."""
        return Step({**self.batch, **views}, self.parts, self.rng, self.derive)

    def project(self, x: Tensor, heads: Sequence[str], teacher: str | None = None) -> Tensor:
        """Rows through a chain of heads."""
        for name in heads:
            x = self.part("head", name, teacher)(x)
        return x

    @torch.no_grad()
    def read(self, reading: Reading) -> Tokens:
        """The end of a path that a target reads: what is learned from, and gets no gradient."""
        return self.tokens(reading.path)

    def units(self, view: str) -> Units:
        """The view as the data gave it, or as a frozen path derives it."""
        if view not in self.batch:
            with torch.no_grad():
                tokens = self.tokens(self.derive[view])
            self.batch[view] = Units(values=tokens.body.detach(), sites=tokens.sites)
        return self.batch[view]

    def sites(self, path: Path) -> Sites:
        """Where the tokens of this view stand, before any corruption."""
        key = Path(view=path.view, embedder=path.embedder)
        return self.once("sites", key, lambda: self.part("embedder", path.embedder).sites(self.units(path.view)))

    def plan(self, path: Path) -> Plan:
        """What the path's corruption decided; the decoder's side of it for a reply path."""
        key = _planned(path)

        def make() -> Plan:
            units, sites = self.units(path.view), self.sites(path)
            if path.corruption is None:
                return Plan(inputs=units, sites=sites)
            return self.part("corruption", path.corruption)(units, sites, self, key)

        plan: Plan = self.once("plan", key, make)
        if not path.reply:
            return plan
        if plan.reply is None:
            raise ValueError(f"corruption '{path.corruption}' gives no reply for the decoder")
        return plan.reply

    def settle(self, path: Path, plan: Plan) -> None:
        """The plan of a path, in place of what its corruption would decide; before anything reads it."""
        for gradient in (True, False):
            self._memo["plan", _planned(path), gradient] = plan

    def features(self, path: Path) -> Tensor:
        """(B,K or N,F): content of the sites before masks and positions.

        Shared by all paths whose inputs were neither rewritten nor dropped. An embedder may return a pair:
        the content, and its own losses by name.
        """
        plan = self.plan(path)
        whole = plan.inputs is self.units(path.view) and plan.keep is None
        key = (
            Path(view=path.view, embedder=path.embedder, teacher=path.teacher)
            if whole
            else replace(path, encoder=None, bottleneck=None)
        )
        embedder = self.part("embedder", path.embedder, path.teacher)

        def make() -> Tensor:
            found = embedder.features(plan.inputs, plan.sites, plan.keep)
            if isinstance(found, Tensor):
                return found
            features, aux = found
            for name, term in aux.items():
                self.add(f"{path.embedder}.{name}", term)
            return features

        return self.once("features", key, make)

    def embed(self, path: Path) -> Tokens:
        embedder = self.part("embedder", path.embedder, path.teacher)
        key = replace(path, encoder=None, bottleneck=None)
        return self.once("embed", key, lambda: embedder.place(self.features(path), self.plan(path)))

    def encode(self, path: Path) -> Tokens:
        with self._gradient(path):
            if path.encoder is None:
                return self.embed(path)
            encoder = self.part("encoder", path.encoder, path.teacher)

            def make() -> Tokens:
                return self._take_aux(path.encoder, encoder(self.embed(path), self.plan(path).attend))

            return self.once("encode", replace(path, bottleneck=None), make)

    def tokens(self, path: Path) -> Tokens:
        """The end of the path: encoded, and through the bottleneck if it has one."""
        with self._gradient(path):
            if path.bottleneck is None:
                return self.encode(path)
            bottleneck = self.part("bottleneck", path.bottleneck, path.teacher)

            def make() -> Tokens:
                return self._take_aux(path.bottleneck, bottleneck(self.encode(path), self.rng))

            return self.once("tokens", path, make)

    def _gradient(self, path: Path) -> Any:
        return torch.no_grad() if path.teacher else nullcontext()

    def _take_aux(self, name: str | None, tokens: Tokens) -> Tokens:
        if tokens.aux is None:
            return tokens
        for key, term in tokens.aux.items():
            self.add(f"{name}.{key}", term)
        return replace(tokens, aux=None)


def _planned(path: Path) -> Path:
    """What a plan depends on."""
    return Path(view=path.view, corruption=path.corruption, draw=path.draw, embedder=path.embedder)
