"""One run, from a configuration to a summary: check, open, train the stages, evaluate, write."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.plugins.environments import SLURMEnvironment

from encdec_train.build import Dry, Wiring, check, count_parameters, dry_run, make_parts, make_transform
from encdec_train.config import StageConfig, TrainConfig, override
from encdec_train.data.loader import StepDataset, StepSampler, make_loader
from encdec_train.data.open import open_rows
from encdec_train.data.transform import Transform
from encdec_train.export import encoder as encoder_export
from encdec_train.export import initial
from encdec_train.kernels import backend
from encdec_train.optim.schedule import Course
from encdec_train.registry import probes as probe_registry
from encdec_train.rng import Rng, key_of
from encdec_train.step import Parts, Step
from encdec_train.train import checkpoint, rundir
from encdec_train.train.callbacks.budget import Budget, shares
from encdec_train.train.callbacks.metrics import Metrics, read_metrics
from encdec_train.train.callbacks.numbers import Numbers
from encdec_train.train.callbacks.progress import Progress
from encdec_train.train.callbacks.saver import Saver
from encdec_train.train.callbacks.sinks import Sink, check_loggers, open_sinks
from encdec_train.train.callbacks.stopper import Stopper
from encdec_train.train.frozen import Frozen, to_device
from encdec_train.train.module import PretrainModule
from encdec_train.train.samples import write_samples
from encdec_train.types import Mismatch

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
    """Train a whole sentence in a new run directory and return its summary.

    Args:
        config: of the whole run.
        scales: lines that say what the scales of this sentence are.

    A job that SLURM requeued goes on with the run that it began before.

    Raises:
        Mismatch: the parts do not fit, or a path does not exist; nothing is written then.
    """
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
            (folder / "config.yaml").write_text(rundir.dump(config), encoding="utf-8")
            run = _assemble(config, transform, wiring, dry, rows, folder)
            initial.load(starts, run.parts)
            rundir.write_json(folder / "scales.json", list(scales))
            rundir.write_json(folder / "untrained.json", evaluate(run))
            return _stages(run, None)
    except BaseException:
        _discard(folder)
        raise


def resume(folder: Path) -> dict[str, Any]:
    """Go on where the newest whole checkpoint stands; a finished run is only summed up again.

    Raises:
        Mismatch: the folder is no run.
    """
    config = rundir.load(rundir.require_run(folder) / "config.yaml")
    found, broken = checkpoint.newest(folder / "checkpoints")
    with _logging_to(folder):
        for sentence in broken:
            log.warning("%s: the checkpoint before it is used", sentence)
        state = checkpoint.read_state(found)
        log.info("%s: on from step %d of stage %s", folder, state["step"], state["stage"])
        run = reopen(config, folder)
        checkpoint.load_parts(found, run.parts)
        return _stages(run, found)


def reopen(config: TrainConfig, folder: Path) -> Run:
    """The parts and data of a run that exists, with fresh weights."""
    transform = make_transform(config)
    wiring = check(config, transform.specs())
    return _assemble(config, transform, wiring, dry_run(config, wiring), open_rows(config.data), folder)


def probe(folder: Path, config: TrainConfig | None = None) -> dict[str, Any]:
    """Evaluate the newest checkpoint of a run; `config` may carry other probes than the run's own."""
    config = config or rundir.load(rundir.require_run(folder) / "config.yaml")
    found, _ = checkpoint.newest(folder / "checkpoints")
    run = reopen(config, folder)
    initial.load(initial.read(config, run.wiring, run.transform), run.parts)
    untrained = evaluate(run)
    checkpoint.load_parts(found, run.parts)
    return _beside(config, evaluate(run), untrained)


def _assemble(
    config: TrainConfig, transform: Transform, wiring: Wiring, dry: Dry, rows: dict[str, Rows], folder: Path
) -> Run:
    """Weights by the seed, the tokenizer if one is to be learned, the items of the training split."""
    device = _device(config)
    backend.configure(config.kernels, device)
    if config.trainer.threads:
        torch.set_num_threads(config.trainer.threads)
    transform.fit(rows["train"], folder / "encoder")
    with torch.random.fork_rng():
        torch.manual_seed(key_of(config.seed, "init") >> 1)
        parts = make_parts(config, wiring)
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


def _device(config: TrainConfig) -> torch.device:
    wanted = config.trainer.accelerator
    cuda = wanted in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    return torch.device("cuda" if cuda else "cpu")


def _stages(run: Run, restore: Path | None) -> dict[str, Any]:
    """Train what is left of the stages, then evaluate and write the summary."""
    config, steps = run.config, {}
    for name, stage in config.stage.items():
        steps[name] = min(stage.steps, config.trainer.max_steps or stage.steps)
    start_state: dict[str, Any] = {"stage_index": 0, "step": 0, "seconds": 0.0}
    at = checkpoint.read_state(restore) if restore else start_state
    times = shares(config.budget, list(steps.values()))
    steps.update(at.get("taken", {}))  # of stages that a budget ended early
    started = time.perf_counter() - at["seconds"]
    offset = 0
    before = sum(list(steps.values())[: at["stage_index"]]) + at["step"]
    run.sinks = open_sinks(config, run.folder, rundir.to_plain(config), before)
    for index, (name, stage) in enumerate(config.stage.items()):
        start = at["step"] if index == at["stage_index"] else 0
        if index >= at["stage_index"] and start < steps[name]:
            resumed = restore if index == at["stage_index"] else None
            time_span = times[index] if times else None
            steps[name] = _train_stage(run, name, stage, index, start, steps, offset, started, resumed, time_span)
        offset += steps[name]
    for sink in run.sinks:
        sink.close()
    return _finish(run, time.perf_counter() - started, offset)


def _train_stage(
    run: Run,
    name: str,
    stage: StageConfig,
    index: int,
    start: int,
    steps: dict[str, int],
    offset: int,
    started: float,
    restore: Path | None,
    span: tuple[float, float] | None,
) -> int:
    """Train one stage and give its steps, which are fewer than planned where the time in `span` is short."""
    config, stop = run.config, steps[name]
    if start == 0:
        _begin(run, name, stage, index)
    optim = override(config.optim, stage.overrides, f"stage.{name}.overrides")
    module = PretrainModule(
        config, run.wiring, run.parts, run.transform, dry=run.dry, stage=stage, optim=optim, index=index, steps=stop
    )
    module.done = start
    dataset = StepDataset(run.items, run.transform, module.key, clean=False, label=None)
    sampler = StepSampler(len(run.items), config.loader.batch, module.key, start=start, stop=stop)
    numbers = Numbers(run.transform.specs(), run.dry.flops // run.dry.rows, config.trainer.precision)
    metrics = Metrics(
        run.folder / "metrics.jsonl",
        name,
        offset=offset,
        every=config.trainer.log_every,
        samples=config.loader.batch,
        sinks=run.sinks,
        numbers=numbers,
    )
    metrics.cut(offset + start)

    def state(step: int) -> dict[str, Any]:
        seconds = time.perf_counter() - started
        found = {"stage": name, "stage_index": index, "step": step, "seconds": seconds}
        if span is not None:
            found.update(course=asdict(module.course), taken={**steps, name: module.steps})
        return found

    saver = Saver(
        run.folder / "checkpoints",
        every=config.checkpoint.every,
        keep=config.checkpoint.keep,
        state=state,
        restore=restore,
    )
    budget = []
    if span is not None:
        module.course = Course(**checkpoint.read_state(restore)["course"]) if restore else Course()
        budget = [Budget(saver, begin=span[0], end=span[1], elapsed=lambda: time.perf_counter() - started)]
    callbacks = [*budget, numbers, metrics, saver, Stopper(saver, run.folder), Progress(stop, config.loader.batch)]
    trainer = make_trainer(config, run.folder, callbacks)
    try:
        trainer.fit(module, make_loader(dataset, sampler, workers=config.loader.workers))
    except SystemExit as ended:
        if isinstance(ended.__context__, KeyboardInterrupt):  # before the first step; Lightning makes it exit code 1
            raise KeyboardInterrupt from None
        raise
    return module.steps


def _begin(run: Run, name: str, stage: StageConfig, index: int) -> None:
    """What a stage asks for before its first step: new copies for teachers, fresh weights, parts fitted to data."""
    for teacher, config in run.config.teacher.items():
        if config.stage == name:
            run.parts.refresh_teacher(teacher)
    if stage.reset:
        with torch.random.fork_rng():
            torch.manual_seed(key_of(run.config.seed, "reset", index) >> 1)
            fresh = make_parts(run.config, run.wiring).to(run.device)
        for full in stage.reset:
            noun, part = full.split(".", 1)
            run.parts.get(noun, part).load_state_dict(fresh.get(noun, part).state_dict())
    for full in stage.fit:
        log.info("stage %s: %s is fitted to the training rows", name, full)
        run.parts.get(*full.split(".", 1)).fit(step for step, _ in frozen(run).steps("train"))


def frozen(run: Run) -> Frozen:
    """The parts of a run as probes see them."""
    config = run.config
    path = run.wiring.paths.get(config.evaluate.path)
    if path is None:
        raise Mismatch(f"evaluate.path: there is no path '{config.evaluate.path}'")
    run.parts.to(run.device)
    return Frozen(config, run.parts, run.transform, path, run.wiring.paths, run.rows, run.device)


def make_trainer(config: TrainConfig, folder: Path, callbacks: list[Any]) -> Trainer:
    """Lightning's loop with nothing of its own switched on: we keep metrics, checkpoints and progress."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*in eval mode at the start of training.*")  # teachers are
    warnings.filterwarnings("ignore", message=".*`srun` command is available.*")  # a login node is no fault
    warnings.filterwarnings("ignore", message=".*LeafSpec.*is deprecated.*")
    return Trainer(
        max_epochs=1,
        accelerator=config.trainer.accelerator,
        devices=config.trainer.devices,
        precision=config.trainer.precision.value,
        deterministic=config.trainer.deterministic,
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=folder,
        plugins=[SLURMEnvironment(auto_requeue=False)] if SLURMEnvironment.detect() else None,  # ours is exact
    )


def evaluate(run: Run) -> dict[str, float]:
    """Every configured probe on the encoder as it is."""
    config = run.config
    if not config.probe:
        return {}
    eyes = frozen(run)
    found: dict[str, float] = {}
    for name, part in config.probe.items():
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
    for number, batch in make_loader(dataset, sampler, workers=0):
        rng = Rng(key, number)
        yield Step(run.transform.finish(to_device(batch, run.device), rng, clean=False), run.parts, rng, derive)


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
            if parent.is_dir() and not any(parent.iterdir()):
                parent.rmdir()
