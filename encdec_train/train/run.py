"""One run, from a configuration to a summary: check, open, train the stages, evaluate, write."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.plugins.environments import SLURMEnvironment
from lightning.pytorch.strategies import DDPStrategy
from torch.utils.data import DataLoader

from encdec_train.build import Dry, Wiring, check, count_parameters, dry_run, make_parts, make_transform
from encdec_train.config import Nonfinite, StageConfig, TrainConfig, override
from encdec_train.data.loader import Drawn, StepDataset, StepSampler, make_loader
from encdec_train.data.open import open_rows
from encdec_train.data.transform import Transform
from encdec_train.export import encoder as encoder_export
from encdec_train.export import initial
from encdec_train.kernels import backend
from encdec_train.nn import gather
from encdec_train.optim.schedule import Course, peak_rate
from encdec_train.registry import probes as probe_registry
from encdec_train.rng import Rng, key_of
from encdec_train.step import Parts, Step
from encdec_train.train import batchwise, checkpoint, ranks, rundir
from encdec_train.train.callbacks.budget import Budget, shares
from encdec_train.train.callbacks.metrics import Metrics, read_metrics
from encdec_train.train.callbacks.numbers import Numbers
from encdec_train.train.callbacks.progress import Progress
from encdec_train.train.callbacks.saver import Restorer, Saver
from encdec_train.train.callbacks.sinks import Sink, check_loggers, open_sinks
from encdec_train.train.callbacks.stopper import Stopper
from encdec_train.train.callbacks.unread import Unread
from encdec_train.train.callbacks.watch import Watch, write_event
from encdec_train.train.frozen import Frozen, to_device
from encdec_train.train.module import NotFinite, PretrainModule
from encdec_train.train.recompute import recompute
from encdec_train.train.samples import write_samples
from encdec_train.types import Halted, Mismatch

log = logging.getLogger("encdec_train")
Rows = Sequence[dict[str, Any]]
# of which the summary has the median over the lines
THROUGHPUT = ("samples_per_s", "tokens_per_s", "data_wait", "pad_fraction", "mfu")


@dataclass(kw_only=True)
class Run:
    """All that the stages of a run share."""

    config: TrainConfig
    transform: Transform
    wiring: Wiring
    dry: Dry
    rows: dict[str, Rows]  # by split, "train" and "test"
    folder: Path
    parts: Parts
    device: torch.device
    items: Sequence[Any] = ()
    sinks: tuple[Sink, ...] = ()  # take each line of metrics


def train(config: TrainConfig, *, scales: Sequence[str] = ()) -> dict[str, Any]:
    """Train a whole sentence in a new run directory and return its summary; nothing where another process writes it.

    Args:
        config: of the whole run.
        scales: lines that say what the scales of this sentence are.

    A job that SLURM requeued goes on with the run that it began before.

    Raises:
        Mismatch: the parts do not fit, or a path does not exist; nothing is written then.
    """
    ranks.check_world(config)
    place = ranks.outside()
    if place is not None and place.rank:
        follow(config)
        return {}
    begun = rundir.requeued(config)
    if begun is not None:
        return resume(begun)
    transform = make_transform(config)
    wiring = check(config, transform.specs())
    dry = dry_run(config, wiring)
    starts = initial.read(config, wiring, transform)
    check_loggers(config)
    rows = open_rows(config.data)
    folder = rundir.create(config)
    try:
        with _logging_to(folder):
            for line in scales:
                log.info(line)
            rundir.write_json(folder / "environment.json", rundir.environment())
            rundir.write_json(folder / "scales.json", list(scales))
            checkpoint.write_text(folder / "config.yaml", rundir.dump(config))  # last: with it the folder is a run
            return _start(assemble(config, transform, wiring, dry, rows, folder), starts)
    except BaseException:
        _discard(folder)
        raise


def _start(run: Run, starts: initial.Starts | None = None) -> dict[str, Any]:
    """From the first step, with published weights if an encoder asks for them."""
    starts = initial.read(run.config, run.wiring, run.transform) if starts is None else starts
    initial.load(starts, run.parts)
    rundir.write_json(run.folder / "untrained.json", evaluate(run))
    return _stages(run, None)


def resume(folder: Path, changes: Sequence[str] = ()) -> dict[str, Any]:
    """Go on where the newest whole checkpoint stands; a finished run is only summed up again.

    A run that died before its first checkpoint starts anew: its beginning depends on nothing but its configuration.

    Args:
        folder: the run's.
        changes: `key=value` of what may be another from now on: how it is trained, not what.

    Raises:
        Mismatch: the folder is no run, or a change would make another run of it.
    """
    config = rundir.changed(rundir.load(rundir.require_run(folder) / "config.yaml"), changes)
    ranks.check_world(config)
    place = ranks.outside()
    if place is not None and place.rank:
        follow(config)
        return {}
    begun = bool(checkpoint.names(folder / "checkpoints"))
    found, broken = checkpoint.newest(folder / "checkpoints") if begun else (None, [])
    with _logging_to(folder):
        for sentence in broken:
            log.warning("%s: the checkpoint before it is used", sentence)
        if changes:
            checkpoint.write_text(folder / "config.yaml", rundir.dump(config))
            log.info("changed: %s", " ".join(changes))
        run = reopen(config, folder)
        if found is None:
            log.info("%s: there is no checkpoint yet, from the start", folder)
            return _start(run)
        state = checkpoint.read_state(found)
        log.info("%s: on from step %d of stage %s", folder, state["step"], state["stage"])
        checkpoint.load_parts(found, run.parts)
        return _stages(run, found)


def reopen(config: TrainConfig, folder: Path) -> Run:
    """The parts and data of a run that exists, with fresh weights."""
    transform = make_transform(config)
    wiring = check(config, transform.specs())
    return assemble(config, transform, wiring, dry_run(config, wiring), open_rows(config.data), folder)


def probe(folder: Path, config: TrainConfig | None = None) -> dict[str, Any]:
    """Evaluate the newest checkpoint of a run; `config` may carry other probes than the run's own."""
    config = config or rundir.load(rundir.require_run(folder) / "config.yaml")
    found, _ = checkpoint.newest(folder / "checkpoints")
    run = reopen(config, folder)
    initial.load(initial.read(config, run.wiring, run.transform), run.parts)
    untrained = evaluate(run)
    checkpoint.load_parts(found, run.parts)
    return _beside(config, evaluate(run), untrained)


def assemble(
    config: TrainConfig, transform: Transform, wiring: Wiring, dry: Dry, rows: dict[str, Rows], folder: Path
) -> Run:
    """Weights by the seed, the tokenizer if one is to be learned, the items of the training split."""
    device = ranks.device_of(config.trainer)
    backend.configure(config.kernels, device)
    if config.trainer.threads:
        torch.set_num_threads(config.trainer.threads)
    transform.fit(rows["train"], folder / "encoder")
    with torch.random.fork_rng():
        torch.manual_seed(key_of(config.seed, "init") >> 1)
        parts = make_parts(config, wiring)
    if config.trainer.world > 1:
        batchwise.check_norms(parts)
    if config.trainer.recompute:
        recompute(parts)
    if config.trainer.compile:
        for noun in ("encoder", "decoder"):
            for name in wiring.outputs:
                if name.startswith(f"{noun}."):
                    parts.get(*name.split(".", 1)).compile()
    return Run(
        config=config,
        transform=transform,
        wiring=wiring,
        dry=dry,
        rows=rows,
        folder=folder,
        parts=parts.to(device),
        device=device,
        items=transform.items(rows["train"], clean=False),
    )


def describe_batch(run: Run) -> list[str]:
    """What the configuration comes to: the batch of a process, the learning rate, what sees less than the batch."""
    config, trainer = run.config, run.config.trainer
    share = config.loader.batch // (trainer.world * trainer.accumulate)
    optims = [override(config.optim, stage.overrides, name) for name, stage in config.stage.items()]
    rates = dict.fromkeys(peak_rate(optim, config.loader.batch) for optim in optims)
    rule = f" (optim.lr {config.optim.lr:g} for {config.optim.lr_batch} rows)" if config.optim.lr_batch else ""
    cut = f" = {trainer.world} processes x {trainer.accumulate} micro batches x {share} rows"
    lines = [
        f"batch {config.loader.batch} rows{cut if share < config.loader.batch else ''}; "
        f"learning rate {', '.join(f'{rate:g}' for rate in rates)}{rule}"
    ]
    seen = batchwise.names(run.parts) if trainer.accumulate > 1 else []
    if seen:
        lines.append(f"{', '.join(seen)}: see micro batches of {share * trainer.world} rows, not the whole batch")
    return lines


@dataclass(frozen=True)
class Mark:
    """Where a stage goes on."""

    step: int = 0
    shift: int = 0  # step t takes the data of step t + shift
    skipped: int = 0  # steps that changed nothing
    unread: int = 0  # rows that were skipped
    course: Course = field(default_factory=Course)  # on the schedule
    checkpoint: Path | None = None  # with the optimisers' state

    @classmethod
    def of(cls, found: Path) -> Mark:
        """The mark of a checkpoint."""
        state = checkpoint.read_state(found)
        counts = {key: state.get(key, 0) for key in ("step", "shift", "skipped", "unread")}
        return cls(**counts, course=Course(**state.get("course", {})), checkpoint=found)


def _stages(run: Run, restore: Path | None) -> dict[str, Any]:
    """Train what is left of the stages, then evaluate and write the summary."""
    at: dict[str, Any] = {"seconds": 0.0, "stage_index": 0, "step": 0}
    state = checkpoint.read_state(restore) if restore else at
    started = time.perf_counter() - state["seconds"]
    before = legs(run.config, state.get("taken", {}))[state["stage_index"]].offset + state["step"]
    with ranks.leading(run.config, run.folder, restore):
        run.sinks = open_sinks(run.config, run.folder, rundir.to_plain(run.config), before)
        steps = train_stages(run, restore, started)
        for sink in run.sinks:
            sink.close()
    return _finish(run, time.perf_counter() - started, steps)


def follow(config: TrainConfig) -> None:
    """Train along with the first process, and write nothing."""
    with ranks.following(config.trainer) as (folder, restore):
        run = reopen(rundir.load(folder / "config.yaml"), folder)
        if restore is not None:
            checkpoint.load_parts(restore, run.parts)
        train_stages(run, restore, time.perf_counter())


def legs(config: TrainConfig, taken: Mapping[str, int] | None = None) -> list[Leg]:
    """The stages, one after the other; some were ended early by the budget, after the steps in `taken`."""
    planned = [min(stage.steps, config.trainer.max_steps or stage.steps) for stage in config.stage.values()]
    spans = shares(config.budget, planned)
    found, offset = [], 0
    for index, (name, stage) in enumerate(config.stage.items()):
        steps = (taken or {}).get(name, planned[index])
        found.append(Leg(name, stage, index, steps, planned[index], offset, spans[index] if spans else None))
        offset += steps
    return found


def train_stages(run: Run, restore: Path | None, started: float) -> int:
    """The stages that are left; the same on every process. Gives the steps of all stages."""
    for line in describe_batch(run) if ranks.is_first() else []:
        log.info(line)
    state = checkpoint.read_state(restore) if restore else {}
    taken: dict[str, int] = dict(state.get("taken", {}))
    at = state.get("stage_index", 0)
    for index in range(at, len(run.config.stage)):
        leg = legs(run.config, taken)[index]
        mark = Mark.of(restore) if restore and index == at else Mark()
        if mark.step == leg.steps:
            continue
        if mark.step == 0:
            begin(run, leg)
        taken[leg.name] = _train_stage(run, leg, mark, taken, started)
    return sum(leg.steps for leg in legs(run.config, taken))


@dataclass(frozen=True)
class Leg:
    """One stage of a run."""

    name: str
    stage: StageConfig
    index: int
    steps: int
    horizon: int  # steps of its schedule, of which a budget may leave out some
    offset: int  # steps of the stages before
    span: tuple[float, float] | None = None  # seconds of the run in which it lies, where there is a budget


def _train_stage(run: Run, leg: Leg, mark: Mark, taken: Mapping[str, int], started: float) -> int:
    """To its end, going back as often as the guard allows; `started` is when, had the run never stopped.

    Gives its steps, fewer than planned where a budget ended it.

    Raises:
        Halted: by a signal, or because it cannot go on.
    """
    for _ in range(run.config.guard.limit + 1):
        module = make_module(run, leg, mark)
        try:
            _fit(run, leg, mark, module, taken, started)
            return module.steps
        except NotFinite as error:
            mark = _back(run, leg, module, error)
    raise Halted(f"stage {leg.name}: went back {run.config.guard.limit} times (guard.limit), which did not help")


def make_module(run: Run, leg: Leg, mark: Mark) -> PretrainModule:
    """The stage's module, ready for the step after the mark."""
    module = PretrainModule(
        run.config,
        run.wiring,
        run.parts,
        run.transform,
        dry=run.dry,
        stage=leg.stage,
        optim=override(run.config.optim, leg.stage.overrides, f"stage.{leg.name}.overrides"),
        index=leg.index,
        steps=leg.steps,
        shift=mark.shift,
    )
    module.done, module.skipped = mark.step, mark.skipped
    module.horizon, module.course = leg.horizon, mark.course
    return module


def make_rows(run: Run, module: PretrainModule, stop: int) -> DataLoader[Drawn]:
    """This process's rows of the steps from where the module stands."""
    config, (rank, world) = run.config, gather.world()
    dataset = StepDataset(run.items, run.transform, module.key, clean=False, label=None)
    sampler = StepSampler(
        len(run.items),
        config.loader.batch,
        module.key,
        start=module.done + module.shift,
        stop=stop + module.shift,
        accumulate=config.trainer.accumulate,
        rank=rank,
        world=world,
    )
    return make_loader(dataset, sampler, workers=config.loader.workers)


def _fit(run: Run, leg: Leg, mark: Mark, module: PretrainModule, taken: Mapping[str, int], started: float) -> None:
    config, batch = run.config, run.config.loader.batch
    watch = Watch(run.folder, config.guard, leg.name, offset=leg.offset, skipped=mark.skipped)
    unread = Unread(batch, config.data.max_skipped, mark.unread)

    def elapsed() -> float:
        return time.perf_counter() - started

    def state(module: PretrainModule) -> dict[str, Any]:
        return {
            "stage": leg.name,
            "stage_index": leg.index,
            "step": module.done,
            "seconds": elapsed(),
            "shift": module.shift,
            "skipped": module.skipped,
            "unread": unread.skipped,
            "course": asdict(module.course),
            "taken": {**taken, leg.name: module.steps},
        }

    best = config.checkpoint.best
    saver = Saver(
        run.folder / "checkpoints",
        config.checkpoint,
        state=state,
        first=config.guard.nonfinite is Nonfinite.rollback and mark.checkpoint is None,
        score=None if best in (None, "loss") else lambda: _score(run, best),
    )
    callbacks: list[Any] = [watch, unread, saver, Stopper(saver, run.folder)]
    if mark.checkpoint is not None:
        callbacks.append(Restorer(mark.checkpoint))
    if ranks.is_first():
        callbacks = [*_metrics(run, leg, mark, watch), *callbacks, Progress(leg.steps, batch)]
    if leg.span is not None:  # first: others find the steps set where it ends the stage
        begin, end = leg.span
        callbacks.insert(0, Budget(saver, begin=begin, end=end, elapsed=elapsed))
    trainer = make_trainer(config, run, callbacks)
    try:
        trainer.fit(module, make_rows(run, module, leg.steps))
    except SystemExit as ended:
        if isinstance(ended.__context__, KeyboardInterrupt):  # before the first step; Lightning makes it exit code 1
            raise KeyboardInterrupt from None
        raise


def _metrics(run: Run, leg: Leg, mark: Mark, watch: Watch) -> list[Any]:
    """What writes metrics.jsonl, cut back to where the stage goes on."""
    config = run.config
    numbers = Numbers(run.transform.specs(), run.dry.flops // run.dry.rows, config.trainer.precision, gather.world()[1])
    metrics = Metrics(
        run.folder / "metrics.jsonl",
        leg.name,
        offset=leg.offset,
        every=config.trainer.log_every,
        samples=config.loader.batch,
        sinks=[watch, *run.sinks],
        numbers=numbers,
    )
    metrics.cut(leg.offset + mark.step)
    return [numbers, metrics]


def _score(run: Run, probe: str) -> float:
    found = evaluate(run, probe)
    if probe not in found:
        raise Halted(f"checkpoint.best: probe '{probe}' needs classes, and the data have none")
    return found[probe]


def _back(run: Run, leg: Leg, module: PretrainModule, error: NotFinite) -> Mark:
    """The newest checkpoint of this stage, with the data that led from there to the bad step left out.

    As Chowdhery et al. 2022 (PaLM, arXiv:2204.02311, section 5.1) did by hand.

    Raises:
        Halted: the run is not to go back.
    """
    rollback = run.config.guard.nonfinite is Nonfinite.rollback
    step = leg.offset + (module.done + 1 if rollback else module.bad)
    if ranks.is_first():
        write_event(run.folder, "nonfinite", step, str(error))
    if not rollback:
        raise Halted(f"step {step}: {error}; nothing was saved since then (guard.nonfinite=skip or rollback goes on)")
    found, _ = checkpoint.newest(run.folder / "checkpoints")
    mark = Mark.of(found)
    log.warning("step %d: %s; back to %s, with other data", step, error, found.name)
    checkpoint.load_parts(found, run.parts)
    return replace(mark, shift=module.done + module.shift + 1 - mark.step)


def begin(run: Run, leg: Leg) -> None:
    """What a stage asks for before its first step: new copies for teachers, fresh weights, parts fitted to data."""
    for teacher, config in run.config.teacher.items():
        if config.stage == leg.name:
            run.parts.refresh_teacher(teacher)
    if leg.stage.reset:
        with torch.random.fork_rng():
            torch.manual_seed(key_of(run.config.seed, "reset", leg.index) >> 1)
            fresh = make_parts(run.config, run.wiring).to(run.device)
        for full in leg.stage.reset:
            noun, part = full.split(".", 1)
            run.parts.get(noun, part).load_state_dict(fresh.get(noun, part).state_dict())
    for full in leg.stage.fit:
        log.info("stage %s: %s is fitted to the training rows", leg.name, full)
        run.parts.get(*full.split(".", 1)).fit(step for step, _ in frozen(run).steps("train"))


def frozen(run: Run) -> Frozen:
    """The parts of a run as probes see them."""
    config = run.config
    path = run.wiring.paths.get(config.evaluate.path)
    if path is None:
        raise Mismatch(f"evaluate.path: there is no path '{config.evaluate.path}'")
    run.parts.to(run.device)
    return Frozen(config, run.parts, run.transform, path, run.wiring.paths, run.rows, run.device)


def make_trainer(config: TrainConfig, run: Run, callbacks: list[Any]) -> Trainer:
    """Lightning's loop with nothing of its own switched on: we keep metrics, checkpoints and progress."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*in eval mode at the start of training.*")  # teachers are
    warnings.filterwarnings("ignore", message=".*`srun` command is available.*")  # a login node is no fault
    warnings.filterwarnings("ignore", message=".*`broadcast_buffers` is deprecated.*")
    warnings.filterwarnings("ignore", message=".*LeafSpec.*is deprecated.*")
    return Trainer(
        max_epochs=1,
        accelerator=config.trainer.accelerator,
        devices=config.trainer.devices,
        num_nodes=config.trainer.num_nodes,
        strategy=_strategy(run),
        precision=config.trainer.precision.value,
        deterministic=config.trainer.deterministic,
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=run.folder,
        plugins=[SLURMEnvironment(auto_requeue=False)] if _in_slurm_alone() else None,  # ours is exact
    )


def _in_slurm_alone() -> bool:
    return gather.world()[1] == 1 and SLURMEnvironment.detect()


def _strategy(run: Run) -> Any:
    """One process needs none. Of several, parameters that a stage or a phase leaves alone are searched for."""
    rank, size = gather.world()
    if size == 1:
        return "auto"
    local = (ranks.outside() or ranks.Place()).local
    return DDPStrategy(
        cluster_environment=ranks.Environment(ranks.Place(rank, local, size)),
        broadcast_buffers=False,  # they are the same on all ranks already
        find_unused_parameters=bool(run.dry.unused or run.dry.owned or len(run.config.stage) > 1),
    )


def evaluate(run: Run, only: str | None = None) -> dict[str, float]:
    """Every configured probe, or one, on the encoder as it is."""
    config = run.config
    if not config.probe:
        return {}
    eyes = frozen(run)
    found: dict[str, float] = {}
    for name, part in config.probe.items():
        if only not in (None, name):
            continue
        probe = probe_registry.part(part)(part)
        if probe.labelled and eyes.label is None:
            log.warning("probe %s is left out: the data have no column '%s' with classes", name, config.data.label)
        else:
            found[name] = probe(eyes)
    return found


@torch.no_grad()
def trivial_losses(run: Run, batches: int = 4) -> dict[str, dict[str, Any]]:
    """What each objective's loss would be without reading anything, on a few batches as training sees them."""
    found: dict[str, dict[str, Any]] = {}
    steps = list(_training_steps(run, batches))
    for name in run.config.objective:
        objective: Any = run.parts.get("objective", name)
        trivial = objective.trivial(steps, run.config.loader.batch) if hasattr(objective, "trivial") else None
        if trivial is not None:
            found[name] = {"predictor": trivial[0], "loss": round(trivial[1], 6)}
    run.parts.train()
    return found


def _training_steps(run: Run, batches: int) -> Iterator[Step]:
    """Steps with augmented training rows, parts in eval mode."""
    run.parts.eval()
    key = key_of(run.config.seed, "trivial") >> 1
    sampler = StepSampler(len(run.items), run.config.loader.batch, key, start=0, stop=batches)
    dataset = StepDataset(run.items, run.transform, key, clean=False, label=None)
    derive = {view: run.wiring.paths[name] for view, name in run.config.derive.items()}
    for drawn in make_loader(dataset, sampler, workers=0):
        rng = Rng(key, drawn.step)
        views = to_device(drawn.micro[0], run.device)
        yield Step(run.transform.finish(views, rng, clean=False), run.parts, rng, derive)


def _beside(config: TrainConfig, values: dict[str, float], untrained: dict[str, float]) -> dict[str, Any]:
    found = {}
    for name, part in config.probe.items():
        if name not in values:
            continue
        built = probe_registry.part(part)(part)
        found[name] = {
            "value": values[name],
            "untrained": untrained.get(name),
            "metric": built.metric,
            "protocol": built.protocol,
        }
    return found


def _finish(run: Run, seconds: float, steps: int) -> dict[str, Any]:
    """Probes, the exported encoder, samples, the summary and the report."""
    from encdec_train.report.page import write_report

    config, folder = run.config, run.folder
    lines = read_metrics(folder / "metrics.jsonl")
    plain = rundir.to_plain(config)
    encoder_export.save(folder / "encoder", config, run.wiring, run.parts, run.transform, plain)
    write_samples(run.config, run.wiring, run.parts, run.transform, run.rows["test"], folder / "samples", run.device)
    summary: dict[str, Any] = {
        "recipe": config.name,
        "scale": config.scale.name,
        "status": "finished",
        "run": str(folder),
        "seed": config.seed,
        "steps": steps,
        "samples": steps * config.loader.batch,
        "rows": {split: len(rows) for split, rows in run.rows.items()},
        "seconds": round(seconds, 1),
        "loss": {"first": lines[0]["loss"], "last": lines[-1]["loss"], "terms": lines[-1]["terms"]},
        "trivial": trivial_losses(run),
        "parameters": count_parameters(run.parts),
        "probes": _beside(config, evaluate(run), rundir.read_json(folder / "untrained.json")),
        "throughput": {
            **{name: _median(lines, name) for name in THROUGHPUT},
            "memory_mib": lines[-1].get("memory_mib"),
            "flops_per_sample": run.dry.flops // run.dry.rows,
        },
        "contract": {"paper": plain["paper"], "rung": plain["rung"]},
        "verdict": None,
        "scales": rundir.read_json(folder / "scales.json"),
    }
    rundir.write_json(folder / "summary.json", summary)
    write_report(folder)
    return summary


def _median(lines: list[dict[str, Any]], name: str) -> float | None:
    """Over the lines but the first, which warms up; none where it is not known."""
    values = sorted(line[name] for line in lines[1:] or lines if line.get(name) is not None)
    return values[len(values) // 2] if values else None


class _logging_to:
    """Also write what is said to the run's log.txt."""

    def __init__(self, folder: Path) -> None:
        self.handler = logging.FileHandler(folder / "log.txt", encoding="utf-8")
        self.handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))

    def __enter__(self) -> None:
        log.addHandler(self.handler)

    def __exit__(self, *_: object) -> None:
        log.removeHandler(self.handler)
        self.handler.close()


def _discard(folder: Path) -> None:
    """Leave nothing half-made: a run that failed before its first checkpoint is removed."""
    import shutil

    if not checkpoint.names(folder / "checkpoints"):
        shutil.rmtree(folder, ignore_errors=True)
        for parent in list(folder.parents)[:2]:  # the recipe's folder and the root, if this run made them
            if parent.is_dir() and not any(parent.iterdir()) and not parent.is_mount():
                parent.rmdir()
