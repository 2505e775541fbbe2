"""The integer check of a sentence: who reads what, as specs, before any part is built.

Objectives check themselves through a `Wiring`: it finds parts by name, follows specs through them, and collects every
problem in the words of the recipe. It knows neither Hydra nor a method.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from encdec_train.registry import did_you_mean
from encdec_train.types import Mismatch, Path, Reading, Spec


@dataclass(frozen=True)
class PartOf:
    """A constructor argument that is another part."""

    noun: str
    name: str


@dataclass(kw_only=True)
class Wiring:
    """What the check found: specs by `noun.name`, of paths by `path.<name>`, of their sites by `sites.<name>`."""

    config: Any  # the whole configuration: a dict of part configurations for each noun
    views: dict[str, Spec]
    paths: dict[str, Path]
    inputs: dict[str, tuple[Any, ...]] = field(default_factory=dict)  # constructor arguments after the config
    outputs: dict[str, Spec] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def problem(self, where: str, text: object) -> None:
        line = f"{where}: {text}"
        if line not in self.problems:
            self.problems.append(line)

    def find(self, where: str, noun: str, name: str) -> Any | None:
        """The config of a part, or None and a problem. What it refers to by name is looked up as well."""
        parts = getattr(self.config, noun)
        if name not in parts:
            have = ", ".join(parts) or "none"
            self.problem(where, f"there is no {noun} '{name}'{did_you_mean(name, parts)}; there is: {have}")
            return None
        for key, other in getattr(parts[name], "refers", {}).items():
            wanted = getattr(parts[name], key)
            for one in [wanted] if isinstance(wanted, str) else wanted or []:
                if one not in getattr(self.config, other):
                    known = getattr(self.config, other)
                    have = ", ".join(known) or "none"
                    self.problem(f"{noun}.{name}.{key}", f"there is no {other} '{one}'; there is: {have}")
        return parts[name]

    def accept(self, key: str, arguments: tuple[Any, ...], output: Spec) -> Spec:
        """Remember what a part is built from; one part that is given two different things does not fit."""
        if key in self.inputs and self.inputs[key] != arguments:
            for old, new in zip(self.inputs[key], arguments, strict=False):
                if isinstance(old, Spec) and isinstance(new, Spec) and old.width != new.width:
                    self.problem(key, f"is given vectors of width {old.width} and of width {new.width}")
        self.inputs.setdefault(key, arguments)
        self.outputs.setdefault(key, output)
        return output

    def through(
        self, where: str, noun: str, name: str, arguments: tuple[Any, ...], fallback: Spec, *extra: Any
    ) -> Spec | None:
        """What a part makes of its inputs. One that does not fit is a problem; `fallback` goes on in its place.

        `extra` are further constructor arguments that its spec does not read.
        """
        part = self.find(where, noun, name)
        if part is None:
            return None
        key = f"{noun}.{name}"
        try:
            output = part.spec(*arguments)
        except Mismatch as mismatch:
            self.problem(key, mismatch)
            output = replace(fallback, width=getattr(part, "width", None) or fallback.width)
        return self.accept(key, (*arguments, *extra), output)

    def has_paths(self, where: str, names: Sequence[str]) -> bool:
        """Whether all of these paths exist and came through their own check."""
        for name in names:
            if name not in self.paths:
                have = ", ".join(self.paths)
                self.problem(where, f"there is no path '{name}'{did_you_mean(name, self.paths)}; there is: {have}")
        if not names:
            self.problem(where, "names no path to read")
        return bool(names) and all(f"path.{name}" in self.outputs for name in names)

    def heads(self, where: str, path: str, names: Sequence[str], spec: Spec, goal: Spec | None) -> Spec | None:
        """Through a chain of heads; the goal is that of the last one."""
        tie = PartOf("embedder", self.paths[path].embedder)
        found: Spec | None = spec
        for name in names:
            if found is not None:
                found = self.through(where, "head", name, (found, goal if name == names[-1] else None), found, tie)
        return found

    def reading(self, where: str, part: Any) -> tuple[Reading, ...]:
        """What a target reads besides the plan: nothing, or the path that its configuration names."""
        name = getattr(part, "path", None)
        if name is None or not self.has_paths(where, [name]):
            return ()
        heads = tuple(getattr(part, "heads", ()))
        spec = self.heads(where, name, heads, self.outputs[f"path.{name}"], None)
        return (Reading(path=self.paths[name], heads=heads, spec=spec),) if spec is not None else ()

    def emit(self, path: str, layers: Iterable[int], field: str = "emit") -> None:
        """Ask the encoder of a path to hand out hidden states; negative numbers count from its last layer.

        `field` of its configuration takes them: `emit` for outputs, `emit_qkv` for queries, keys and values.
        """
        encoder = self.paths[path].encoder
        wanted = list(layers)
        if not wanted or encoder is None:
            return
        config = self.config.encoder[encoder]
        depth = len(self.outputs[f"encoder.{encoder}"].layers)
        beyond = [layer for layer in wanted if not -depth <= layer < depth]
        if beyond or not hasattr(config, field):
            self.problem(f"encoder.{encoder}", f"has {depth} layers to hand out, {beyond or wanted} are asked for")
            return
        together = sorted({*getattr(config, field), *(layer % depth for layer in wanted)})
        self.config.encoder[encoder] = replace(config, **{field: together})
