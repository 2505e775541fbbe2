"""From a configuration to parts: the integer check, the parts themselves, and one step on the meta device.

All mismatches are collected before anything is built, and named in the words of the recipe.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from encdec_train.config import PathConfig, TrainConfig
from encdec_train.data.transform import Transform
from encdec_train.registry import Registry, did_you_mean
from encdec_train.registry import transforms as transform_registry
from encdec_train.rng import Rng
from encdec_train.step import Parts, Step
from encdec_train.types import Batch, Mismatch, Path, Sites, Spec, Term, Units

OPTIONAL = ("corruption", "bottleneck", "decoder")  # `main` of these may be absent


@dataclass(kw_only=True)
class Wiring:
    """What the integer check found: who reads what, as specs by `noun.name`."""

    views: dict[str, Spec]
    paths: dict[str, Path]
    inputs: dict[str, tuple[Any, ...]] = field(default_factory=dict)  # constructor arguments after the config
    outputs: dict[str, Spec] = field(default_factory=dict)  # of parts and of paths (`path.<name>`)
    problems: list[str] = field(default_factory=list)

    def problem(self, where: str, text: object) -> None:
        line = f"{where}: {text}"
        if line not in self.problems:
            self.problems.append(line)


def make_transform(config: TrainConfig) -> Transform:
    """The configured transform, which knows its views without any data."""
    transform: Transform = transform_registry.part(config.transform)(config.transform, config.data)
    return transform


def resolve_paths(config: TrainConfig, views: dict[str, Spec]) -> dict[str, Path]:
    """Names of paths to paths: the first view, and `main` only where there is such a part."""
    first = next(iter(views))

    def optional(noun: str, name: str | None) -> str | None:
        return None if name == "main" and "main" not in getattr(config, noun) else name

    def resolve(path: PathConfig) -> Path:
        return Path(
            view=path.view or first,
            corruption=optional("corruption", path.corruption),
            reply=path.reply,
            draw=path.draw,
            embedder=path.embedder,
            encoder=path.encoder,
            bottleneck=optional("bottleneck", path.bottleneck),
            teacher=path.teacher,
        )

    return {name: resolve(path) for name, path in config.path.items()}


def check(config: TrainConfig, views: dict[str, Spec]) -> Wiring:
    """The integer check of a whole sentence.

    Raises:
        Mismatch: every fault, one line each.
    """
    wiring = Wiring(views=dict(views), paths=resolve_paths(config, views))
    for name, path in wiring.paths.items():
        _check_path(config, wiring, name, path)
    for name, objective in config.objective.items():
        _check_objective(config, wiring, name, objective)
    if not config.objective:
        wiring.problem("objective", "there is none to train")
    _check_stages(config, wiring)
    if wiring.problems:
        raise Mismatch("\n".join(wiring.problems))
    return wiring


def _find(config: TrainConfig, wiring: Wiring, where: str, noun: str, name: str) -> Any | None:
    """The config of a part, or None and a problem."""
    parts = getattr(config, noun)
    if name not in parts:
        have = ", ".join(parts) or "none"
        wiring.problem(where, f"there is no {noun} '{name}'{did_you_mean(name, parts)}; there is: {have}")
        return None
    return parts[name]


def _accept(wiring: Wiring, key: str, arguments: tuple[Any, ...], output: Spec) -> Spec:
    """Remember what a part is built from; one part that is given two different things does not fit."""
    if key in wiring.inputs and wiring.inputs[key] != arguments:
        for old, new in zip(wiring.inputs[key], arguments, strict=True):
            if isinstance(old, Spec) and isinstance(new, Spec) and old.width != new.width:
                wiring.problem(key, f"is given vectors of width {old.width} and of width {new.width}")
    wiring.inputs.setdefault(key, arguments)
    wiring.outputs.setdefault(key, output)
    return output


def _embedder_width(config: TrainConfig, embedder: str) -> int | None:
    """The width of the first encoder that reads this embedder, or the one whose table it shares."""
    for path in config.path.values():
        encoder = config.encoder.get(path.encoder or "")
        if path.embedder == embedder and encoder is not None:
            return getattr(encoder, "reads", None) or getattr(encoder, "width", None)
    shares = getattr(config.embedder[embedder], "shares", None)
    return _embedder_width(config, shares) if shares in config.embedder and shares != embedder else None


def _check_path(config: TrainConfig, wiring: Wiring, name: str, path: Path) -> None:
    """View -> embedder -> corruption -> encoder -> bottleneck, as specs."""
    where = f"path.{name}"
    view = _view(config, wiring, where, path.view)
    sites = _check_embedder(config, wiring, where, path, view) if view is not None else None
    if sites is None:
        return
    spec: Spec | None = sites
    for noun, part in (
        ("corruption", path.corruption),
        ("encoder", path.encoder),
        ("bottleneck", path.bottleneck),
    ):
        if part is not None and spec is not None:
            read = sites if noun == "corruption" else spec
            spec = _through(config, wiring, where, noun, part, (read,), read)
    if path.reply and not getattr(config.corruption.get(path.corruption or ""), "replies", False):
        wiring.problem(where, f"corruption '{path.corruption}' gives no reply for a decoder")
    if spec is not None:
        wiring.outputs[f"sites.{name}"], wiring.outputs[where] = sites, spec


def _through(
    config: TrainConfig,
    wiring: Wiring,
    where: str,
    noun: str,
    name: str,
    arguments: tuple[Spec | None, ...],
    fallback: Spec,
    others: tuple[_Part, ...] = (),
) -> Spec | None:
    """What a part makes of its inputs. One that does not fit is a problem, and the rest is checked all the same.

    `others` are built before the part, and given to it as well.
    """
    part = _find(config, wiring, where, noun, name)
    if part is None:
        return None
    key = f"{noun}.{name}"
    try:
        output = part.spec(*arguments)
    except Mismatch as mismatch:
        wiring.problem(key, mismatch)
        output = replace(fallback, width=getattr(part, "width", None) or fallback.width)
    return _accept(wiring, key, (*arguments, *others), output)


def _view(config: TrainConfig, wiring: Wiring, where: str, view: str) -> Spec | None:
    if view in config.derive and view not in wiring.views:
        source = wiring.outputs.get(f"path.{config.derive[view]}")
        if source is not None:
            wiring.views[view] = replace(source, kind="values", raw=None)
    if view not in wiring.views:
        have = ", ".join(wiring.views)
        wiring.problem(where, f"the data give no view '{view}'{did_you_mean(view, wiring.views)}; views: {have}")
        return None
    return wiring.views[view]


def _check_embedder(config: TrainConfig, wiring: Wiring, where: str, path: Path, view: Spec) -> Spec | None:
    embedder = _find(config, wiring, where, "embedder", path.embedder)
    if embedder is None:
        return None
    if getattr(embedder, "width", 0) is None:
        embedder = replace(embedder, width=_embedder_width(config, path.embedder))
        config.embedder[path.embedder] = embedder
    fallback = replace(view, kind="vectors", features=view.width, raw=view)
    shares = getattr(embedder, "shares", None)
    others: tuple[_Part, ...] = ()
    if shares is not None:
        wanted = f"embedder.{path.embedder}"
        if shares == path.embedder:
            wiring.problem(wanted, "shares its own table")
        elif _find(config, wiring, wanted, "embedder", shares) is not None:
            others = (_Part("embedder", shares),)
    return _through(config, wiring, where, "embedder", path.embedder, (view,), fallback, others)


def _check_objective(config: TrainConfig, wiring: Wiring, name: str, objective: Any) -> None:
    """Decoder -> head -> loss against the target; or heads and a loss on vectors."""
    where = f"objective.{name}"
    used = _paths_of(objective)
    missing = [path for path in used if path not in wiring.paths]
    for path in missing:
        have = ", ".join(wiring.paths)
        wiring.problem(where, f"there is no path '{path}'{did_you_mean(path, wiring.paths)}; there is: {have}")
    if not used:
        wiring.problem(where, "names no path to read")
    if missing or not used or any(f"path.{path}" not in wiring.outputs for path in used):
        return
    try:
        if hasattr(objective, "left"):
            _check_agree(config, wiring, where, objective)
        else:
            _check_predict(config, wiring, where, objective)
    except Mismatch as mismatch:
        wiring.problem(where, mismatch)


def _paths_of(objective: Any) -> list[str]:
    names = [getattr(objective, key, None) for key in ("memory", "inputs")]
    names += [*getattr(objective, "left", []), *getattr(objective, "right", [])]
    return [name for name in names if name]


def _check_predict(config: TrainConfig, wiring: Wiring, where: str, objective: Any) -> None:
    plan_path = objective.inputs or objective.memory
    sites = wiring.outputs[f"sites.{plan_path}"]
    path = wiring.paths[plan_path]
    spec = wiring.outputs[f"path.{objective.memory}"] if objective.memory else None
    if objective.decoder == "main" and "main" not in config.decoder:
        objective.decoder = None
    if objective.decoder is not None:
        given = wiring.outputs[f"path.{objective.inputs}"] if objective.inputs else None
        arguments = (spec, given, sites)
        fallback = replace(sites, rows="predicted")
        spec = _through(config, wiring, where, "decoder", objective.decoder, arguments, fallback)
    if spec is None:
        return
    if spec.rows in ("kept", "coarse") and path.corruption:
        wiring.problem(where, f"{spec.rows} sites come back, the corruption predicts others: a decoder is needed")
    assert sites.raw is not None
    goal = _through(config, wiring, where, "target", objective.target, (sites,), sites.raw)
    loss = _find(config, wiring, where, "loss", objective.loss)
    head = _find(config, wiring, where, "head", objective.head)
    if goal is None or head is None or loss is None:
        return
    tie = _Part("embedder", path.embedder)
    out = _accept(wiring, f"head.{objective.head}", (spec, goal, tie), head.spec(spec, goal))
    loss.check(out, goal)
    _accept(wiring, f"loss.{objective.loss}", (goal,), out)


def _check_agree(config: TrainConfig, wiring: Wiring, where: str, objective: Any) -> None:
    loss = _find(config, wiring, where, "loss", objective.loss)
    right = objective.right_head or objective.left_head
    sides = [(path, objective.left_head) for path in objective.left]
    sides += [(path, right) for path in objective.right]
    widths: set[int] = set()
    for name, head_name in sides:
        head = _find(config, wiring, where, "head", head_name)
        if head is None or loss is None:
            return
        spec = replace(wiring.outputs[f"path.{name}"], rows="one")
        tie = _Part("embedder", wiring.paths[name].embedder)
        out = _accept(wiring, f"head.{head_name}", (spec, None, tie), head.spec(spec, None))
        loss.check(out, None)
        _accept(wiring, f"loss.{objective.loss}", (None,), out)
        widths.add(out.width)
    if len(widths) > 1:
        wiring.problem(where, f"its two sides have widths {', '.join(map(str, sorted(widths)))}")


def _check_stages(config: TrainConfig, wiring: Wiring) -> None:
    for name, stage in config.stage.items():
        if stage.steps < 1:
            wiring.problem(f"stage.{name}", f"steps: {stage.steps} is below 1")
        for objective in stage.objectives:
            _find(config, wiring, f"stage.{name}", "objective", objective)
        for part in stage.freeze:
            noun, _, part_name = part.partition(".")
            if noun not in Registry.all or not hasattr(config, noun):
                wiring.problem(f"stage.{name}", f"freeze: '{part}' is not noun.name")
            else:
                _find(config, wiring, f"stage.{name}", noun, part_name)


@dataclass(frozen=True)
class _Part:
    """A constructor argument that is another part."""

    noun: str
    name: str


def make_parts(config: TrainConfig, wiring: Wiring) -> Parts:
    """Build every part that a path or an objective uses, embedders first. On the current default device."""
    built: dict[str, dict[str, nn.Module]] = {}
    replaced = _replaced_embedders(config, wiring.paths.values())
    for key, arguments in sorted(wiring.inputs.items(), key=_turn):
        noun, name = key.split(".", 1)
        part_config = getattr(config, noun)[name]
        part = Registry.all[noun].part(part_config)
        extra = {"mask": name in replaced} if noun == "embedder" else {}
        given = [built[a.noun][a.name] if isinstance(a, _Part) else a for a in arguments]
        built.setdefault(noun, {})[name] = part(part_config, *given, **extra)
    for name, objective in config.objective.items():
        part = Registry.all["objective"].part(objective)
        built.setdefault("objective", {})[name] = part(objective, name, wiring.paths)
    parts = Parts(built)
    for name, teacher in config.teacher.items():
        default = [f"{n}.{k}" for n in ("embedder", "encoder", "head") for k in built.get(n, {})]
        parts.add_teacher(name, teacher.parts or default)
    return parts


def _turn(item: tuple[str, tuple[Any, ...]]) -> int:
    """Embedders come first, those that stand alone before those that share; the order of the others stays."""
    key, arguments = item
    if not key.startswith("embedder."):
        return 2
    return int(any(isinstance(argument, _Part) for argument in arguments))


def _replaced_embedders(config: TrainConfig, paths: Iterable[Path]) -> set[str]:
    """Embedders through which some path replaces sites: only they carry a mask vector."""
    return {
        path.embedder
        for path in paths
        if path.corruption and getattr(config.corruption[path.corruption], "replaces", False)
    }


def compute_terms(step: Step, objectives: Iterable[str]) -> dict[str, Term]:
    """All losses of one step, undivided: the objectives', then what the parts brought themselves."""
    terms: dict[str, Term] = {}
    for name in objectives:
        terms.update(step.part("objective", name)(step))
    terms.update(step.aux)
    return terms


@dataclass(kw_only=True)
class Dry:
    """What one step on the meta device tells."""

    parameters: dict[str, int]  # by `noun.name`
    flops: int  # forward and backward, of `rows` rows
    rows: int
    unused: list[str]  # trainable parameters without a gradient


def dry_run(config: TrainConfig, wiring: Wiring, *, rows: int = 2) -> Dry:
    """One objective step on the meta device: no memory, no data.

    Raises:
        Mismatch: a parameter gets no gradient and no stage declares it unused.
    """
    with torch.device("meta"):
        parts = make_parts(config, wiring)
        for name in config.derive.values():
            _freeze_path(parts, wiring.paths[name])
        derive = {view: wiring.paths[name] for view, name in config.derive.items()}
        step = Step(meta_batch(wiring.views, config.derive, rows), parts, Rng(0, 0), derive)
        with FlopCounterMode(display=False) as counter:
            terms = compute_terms(step, config.objective)
            total: Any = sum(term.weight * term.mean for term in terms.values())
            total.backward()
    unused = [
        name.removeprefix("student.")
        for name, parameter in parts.student.named_parameters()
        if parameter.requires_grad and parameter.grad is None
    ]
    declared = [name for stage in config.stage.values() for name in stage.unused]
    stray = [name for name in unused if not any(name.startswith(prefix) for prefix in declared)]
    if stray:
        raise Mismatch(
            f"{len(stray)} parameters get no gradient: {', '.join(stray[:5])}"
            f"{' ...' if len(stray) > 5 else ''} (declare them in stage.unused if that is meant)"
        )
    return Dry(parameters=count_parameters(parts), flops=counter.get_total_flops(), rows=rows, unused=unused)


def _freeze_path(parts: Parts, path: Path) -> None:
    for noun, name in (("embedder", path.embedder), ("encoder", path.encoder), ("bottleneck", path.bottleneck)):
        if name is not None:
            parts.get(noun, name).requires_grad_(False)


def count_parameters(parts: Parts) -> dict[str, int]:
    """Parameters by `noun.name`; parts without any are left out."""
    counts: dict[str, int] = {}
    for noun, named in parts.student.items():
        for name, part in named.items():  # type: ignore[operator, union-attr]
            total = sum(parameter.numel() for parameter in part.parameters())
            if total:
                counts[f"{noun}.{name}"] = total
    return counts


def meta_batch(views: dict[str, Spec], derived: Iterable[str], rows: int) -> Batch:
    """A batch of the right shapes on the meta device."""
    return {name: _meta_units(spec, rows) for name, spec in views.items() if name not in set(derived)}


def _meta_units(spec: Spec, rows: int) -> Units:
    n = spec.length or 64
    if spec.grid is not None:
        n = math.prod(spec.grid)
    total = rows * spec.crops

    def whole(*shape: int, kind: torch.dtype = torch.int64) -> Tensor:
        return torch.zeros(*shape, dtype=kind)

    sites = Sites(
        sample=whole(total, n),
        place=whole(total, n),
        coords=whole(total, n, spec.coords, kind=torch.float32) if spec.coords else None,
        edges=whole(2, 4 * total * n) if spec.edges else None,
        group=whole(total, n) if spec.groups else None,
        grid=spec.grid,
        max_len=n,
    )
    if spec.kind == "ids":
        return Units(values=whole(total, n), sites=sites, crops=spec.crops)
    return Units(values=whole(total, n, spec.width, kind=torch.float32), sites=sites, crops=spec.crops)
