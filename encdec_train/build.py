"""From a configuration to parts: the integer check, the parts themselves, and one step on the meta device.

All mismatches are collected before anything is built, and named in the words of the recipe.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from encdec_train.config import PathConfig, TrainConfig, override
from encdec_train.data.mixture import facts
from encdec_train.data.transform import Transform
from encdec_train.registry import Registry, did_you_mean
from encdec_train.registry import transforms as transform_registry
from encdec_train.rng import Rng
from encdec_train.step import Parts, Step
from encdec_train.types import Batch, Mismatch, Path, Sites, Spec, Term, Units
from encdec_train.wiring import PartOf, Wiring

OPTIONAL = ("corruption", "bottleneck", "decoder")  # `main` of these may be absent


def make_transform(config: TrainConfig) -> Transform:
    """The configured transform, which knows its views without any data; it tells what corruptions ask for."""
    for corruption in config.corruption.values():
        for field in getattr(corruption, "asks", ()):
            if hasattr(config.transform, field):
                setattr(config.transform, field, True)
    transform: Transform = transform_registry.part(config.transform)(config.transform, facts(config.data))
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
    wiring = Wiring(config=config, views=dict(views), paths=resolve_paths(config, views))
    for name, path in sorted(wiring.paths.items(), key=lambda item: item[1].view in config.derive):
        _check_path(config, wiring, name, path)  # what a path derives is known before it is read
    for name, objective in config.objective.items():
        try:
            objective.check(wiring, f"objective.{name}")
        except Mismatch as mismatch:
            wiring.problem(f"objective.{name}", mismatch)
    if not config.objective:
        wiring.problem("objective", "there is none to train")
    for name, teacher in config.teacher.items():
        _check_parts(config, wiring, f"teacher.{name}.parts", teacher.parts)
        if teacher.stage is not None and teacher.stage not in config.stage:
            have = ", ".join(config.stage)
            wiring.problem(f"teacher.{name}", f"there is no stage '{teacher.stage}'; there is: {have}")
    for name, encoder in config.encoder.items():
        layers = wiring.outputs[f"encoder.{name}"].layers if f"encoder.{name}" in wiring.outputs else None
        beyond = [layer for layer in getattr(encoder, "emit", []) if layers is not None and layer >= len(layers)]
        if beyond:
            wiring.problem(f"encoder.{name}.emit", f"{beyond} is outside of {len(layers or ())} layers")
    _check_stages(config, wiring)
    if config.checkpoint.best not in (None, "loss", *config.probe):
        have = ", ".join(["loss", *config.probe])
        wiring.problem("checkpoint.best", f"there is no probe '{config.checkpoint.best}'; there is: {have}")
    for name, values in config.phase.items():
        _check_optim(config, wiring, f"phase.{name}", values)
    if wiring.problems:
        raise Mismatch("\n".join(wiring.problems))
    return wiring


def _embedder_width(config: TrainConfig, embedder: str) -> int | None:
    """The width of the first encoder that reads this embedder, or the one whose table it shares."""
    for path in config.path.values():
        encoder = config.encoder.get(path.encoder or "")
        if path.embedder == embedder and encoder is not None:
            return getattr(encoder, "reads", None) or getattr(encoder, "width", None)
    owner = getattr(config.embedder[embedder], "shares", None)
    if owner is None or owner not in config.embedder or getattr(config.embedder[owner], "shares", None) is not None:
        return None
    return _embedder_width(config, owner)


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
            spec = wiring.through(where, noun, part, (read,), read)
    if path.reply and not getattr(config.corruption.get(path.corruption or ""), "replies", False):
        wiring.problem(where, f"corruption '{path.corruption}' gives no reply for a decoder")
    if path.teacher is not None and path.teacher not in config.teacher:
        have = ", ".join(config.teacher) or "none"
        wiring.problem(where, f"there is no teacher '{path.teacher}'; there is: {have}")
    if spec is not None:
        wiring.outputs[f"sites.{name}"], wiring.outputs[where] = sites, spec


def _view(config: TrainConfig, wiring: Wiring, where: str, view: str) -> Spec | None:
    if view in config.derive and view not in wiring.views:
        source = wiring.outputs.get(f"path.{config.derive[view]}")
        if source is not None:
            wiring.views[view] = replace(source, kind="values", raw=None, layers=(), prefix=0, rows="all", codes=0)
    if view not in wiring.views:
        have = ", ".join(wiring.views)
        wiring.problem(where, f"the data give no view '{view}'{did_you_mean(view, wiring.views)}; views: {have}")
        return None
    return wiring.views[view]


def _check_embedder(config: TrainConfig, wiring: Wiring, where: str, path: Path, view: Spec) -> Spec | None:
    embedder = wiring.find(where, "embedder", path.embedder)
    if embedder is None:
        return None
    if getattr(embedder, "width", 0) is None:
        embedder = replace(embedder, width=_embedder_width(config, path.embedder))
        config.embedder[path.embedder] = embedder
    fallback = replace(view, kind="vectors", features=view.width, raw=view)
    others: tuple[PartOf, ...] = ()
    owner = getattr(embedder, "shares", None)
    if owner in config.embedder:
        if getattr(config.embedder[owner], "shares", None) is not None:
            wiring.problem(f"embedder.{path.embedder}.shares", f"'{owner}' has no table of its own")
        else:
            _check_embedder(config, wiring, where, replace(path, embedder=owner), view)
            others = (PartOf("embedder", owner),)
    return wiring.through(where, "embedder", path.embedder, (view,), fallback, *others)


def _check_stages(config: TrainConfig, wiring: Wiring) -> None:
    for name, stage in config.stage.items():
        where = f"stage.{name}"
        if stage.steps < 1:
            wiring.problem(where, f"steps: {stage.steps} is below 1")
        _check_optim(config, wiring, f"{where}.overrides", stage.overrides)
        for objective in stage.objectives:
            wiring.find(where, "objective", objective)
        for key in ("freeze", "reset", "fit"):
            _check_parts(config, wiring, f"{where}.{key}", getattr(stage, key))
        for full in stage.fit:
            noun, _, part = full.partition(".")
            found = getattr(config, noun, {}).get(part)
            if found is not None and not hasattr(Registry.all[noun].part(found), "fit"):
                wiring.problem(f"{where}.fit", f"'{full}' has nothing that is fitted to data")

    fitted = {full for stage in config.stage.values() for full in stage.fit}
    for key in wiring.inputs:
        noun, _, part = key.partition(".")
        if key not in fitted and hasattr(Registry.all[noun].part(getattr(config, noun)[part]), "fit"):
            wiring.problem(key, "is fitted to data before a stage: name it in stage.<name>.fit")


def _check_optim(config: TrainConfig, wiring: Wiring, where: str, values: dict[str, Any]) -> None:
    try:
        override(config.optim, values, where)
    except Mismatch as mismatch:
        wiring.problem(where, str(mismatch).removeprefix(f"{where}: "))


def _check_parts(config: TrainConfig, wiring: Wiring, where: str, names: Iterable[str]) -> None:
    """Full names of parts, `noun.name`."""
    for full in names:
        noun, _, part = full.partition(".")
        if not part or noun not in Registry.all or not hasattr(config, noun):
            wiring.problem(where, f"'{full}' is not noun.name")
        else:
            wiring.find(where, noun, part)


def make_parts(config: TrainConfig, wiring: Wiring) -> Parts:
    """Build every part that a path or an objective uses, embedders first. On the current default device."""
    built: dict[str, dict[str, nn.Module]] = {}
    replaced = _replaced_embedders(config, wiring.paths.values())
    for key, arguments in sorted(wiring.inputs.items(), key=_turn):
        noun, name = key.split(".", 1)
        part_config = getattr(config, noun)[name]
        part = Registry.all[noun].part(part_config)
        extra = {"mask": name in replaced} if noun == "embedder" else {}
        given = [built[a.noun][a.name] if isinstance(a, PartOf) else a for a in arguments]
        built.setdefault(noun, {})[name] = part(part_config, *given, **extra)
    for name, objective in config.objective.items():
        part = Registry.all["objective"].part(objective)
        built.setdefault("objective", {})[name] = part(objective, name, wiring.paths)
    for name in _shared(config):
        built["objective"][name].shared = True  # type: ignore[assignment]
    parts = Parts(built)
    for name, teacher in config.teacher.items():
        default = [f"{n}.{k}" for n in ("embedder", "encoder", "head") for k in built.get(n, {})]
        parts.add_teacher(name, teacher.parts or default, own_statistics=teacher.own_statistics)
    return parts


def _shared(config: TrainConfig) -> set[str]:
    """Objectives that corruptions or other objectives refer to, because they read what these predict."""
    readers = [*config.corruption.values(), *config.objective.values()]
    return {
        getattr(reader, key)
        for reader in readers
        for key, noun in getattr(reader, "refers", {}).items()
        if noun == "objective"
    }


def _turn(item: tuple[str, tuple[Any, ...]]) -> int:
    """Embedders come first, those that stand alone before those that share; the order of the others stays."""
    key, arguments = item
    if not key.startswith("embedder."):
        return 2
    return int(any(isinstance(argument, PartOf) for argument in arguments))


def _replaced_embedders(config: TrainConfig, paths: Iterable[Path]) -> set[str]:
    """Embedders through which some path replaces sites: only they carry a mask vector."""
    return {
        path.embedder
        for path in paths
        if path.corruption and getattr(config.corruption[path.corruption], "replaces", False)
    }


def compute_terms(step: Step, objectives: Iterable[str]) -> dict[str, Term]:
    """All losses of one phase, undivided: the objectives', then what the parts brought themselves."""
    terms: dict[str, Term] = {}
    for name in objectives:
        terms.update(step.part("objective", name)(step))
    terms.update(step.take_aux())
    return terms


def total_loss(terms: dict[str, Term]) -> Tensor:
    """(): the weighted sum of means."""
    return torch.stack([term.weight * term.mean for term in terms.values()]).sum()


def phases(parts: Parts, objectives: Iterable[str]) -> dict[str, list[str]]:
    """Objectives by the phase that they belong to, `main` first; every phase has an optimiser of its own."""
    found: dict[str, list[str]] = {"main": []}
    for name in objectives:
        found.setdefault(parts.get("objective", name).phase, []).append(name)
    return found if found["main"] else {phase: names for phase, names in found.items() if names}


@dataclass(kw_only=True)
class Dry:
    """What one step on the meta device tells."""

    parameters: dict[str, int]  # by `noun.name`
    flops: int  # forward and backward, of `rows` rows, in the longest stage
    rows: int
    unused: list[str]  # trainable parameters that get a gradient in no stage
    owned: dict[str, list[str]]  # phases besides `main`: the parameters that they train


def dry_run(config: TrainConfig, wiring: Wiring, *, rows: int = 2) -> Dry:
    """One step of every stage on the meta device: no memory, no data.

    Raises:
        Mismatch: a parameter gets no gradient in any stage and none declares it unused.
    """
    trained: set[str] = set()
    owned: dict[str, set[str]] = {}
    flops: dict[int, int] = {}
    with torch.device("meta"):
        parts = make_parts(config, wiring)
        for stage in config.stage.values():
            freeze(parts, stage.freeze)
            derive = {view: wiring.paths[name] for view, name in config.derive.items()}
            step = Step(meta_batch(wiring.views, config.derive, rows), parts, Rng(0, 0), derive)
            with FlopCounterMode(display=False) as counter:
                groups = phases(parts, stage.objectives or config.objective)
                for phase in sorted(groups, key=lambda name: name == "main"):  # who owns what is known before `main`
                    got = _trained(step.fork({}), groups[phase])
                    if phase != "main":
                        owned.setdefault(phase, set()).update(got)
                        _freeze_names(parts, got)
                    trained |= got
            flops[stage.steps] = counter.get_total_flops()
    stray_phases = [name for name in config.phase if name not in owned]
    if stray_phases:
        raise Mismatch(f"phase.{stray_phases[0]}: no objective has this phase; there is: {', '.join(owned) or 'none'}")
    freeze(parts, [])
    names = [name.removeprefix("student.") for name, _ in parts.student.named_parameters()]
    unused = [name for name in names if name not in trained]
    declared = [name for stage in config.stage.values() for name in stage.unused]
    stray = [name for name in unused if not any(name.startswith(prefix) for prefix in declared)]
    if stray:
        raise Mismatch(
            f"{len(stray)} parameters get no gradient: {', '.join(stray[:5])}"
            f"{' ...' if len(stray) > 5 else ''} (declare them in stage.unused if that is meant)"
        )
    return Dry(
        parameters=count_parameters(parts),
        flops=flops[max(flops)],
        rows=rows,
        unused=unused,
        owned={phase: sorted(found) for phase, found in owned.items()},
    )


def _trained(step: Step, objectives: Iterable[str]) -> set[str]:
    """Names of the parameters that the gradient of these objectives reaches."""
    loss = total_loss(compute_terms(step, objectives))
    if not loss.requires_grad:
        raise Mismatch(f"objective {', '.join(objectives)}: nothing that is trained is read (all its parts are frozen)")
    loss.backward()
    found = {name for name, parameter in step.parts.student.named_parameters() if parameter.grad is not None}
    step.parts.zero_grad(set_to_none=True)
    return found


def _freeze_names(parts: Parts, names: set[str]) -> None:
    for name, parameter in parts.student.named_parameters():
        if name in names:
            parameter.requires_grad_(False)


def freeze(parts: Parts, names: Iterable[str]) -> None:
    """Parts `noun.name` without gradient and in eval mode; all others train."""
    frozen = set(names)
    for noun, named in parts.student.items():
        for name, part in named.items():  # type: ignore[operator, union-attr]
            part.frozen = f"{noun}.{name}" in frozen
            part.requires_grad_(not part.frozen)


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
    n = spec.length or min(64, spec.max_len or 64)
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
        word=whole(total, n) if spec.words else None,
        doc=whole(total, n) if spec.docs else None,
        fixed=whole(total, n, kind=torch.bool) if spec.fixed else None,
        grid=spec.grid,
        max_len=n,
    )
    if spec.kind == "ids":
        return Units(values=whole(total, n), sites=sites, crops=spec.crops)
    return Units(values=whole(total, n, spec.width, kind=torch.float32), sites=sites, crops=spec.crops)
