"""One step of a run again: from the nearest whole checkpoint before it, with the same rows and the same draws."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from encdec_train.build import total_loss
from encdec_train.train import checkpoint, rundir
from encdec_train.train.assembly import reopen
from encdec_train.train.callbacks.metrics import read_metrics
from encdec_train.train.callbacks.saver import Restorer
from encdec_train.train.module import NotFinite
from encdec_train.train.stages import Leg, Mark, begin, legs, make_module, make_rows
from encdec_train.train.trainer import make_trainer
from encdec_train.types import Mismatch, Term


@dataclass(frozen=True)
class Replayed:
    """What the step gave."""

    loss: float
    terms: dict[str, Term]
    compared: str  # with the run's own line about this step, if it wrote one


def replay(folder: Path, step: int) -> Replayed:
    """In one process; writes nothing.

    Args:
        folder: the run's.
        step: of the whole run, from 1, as in metrics.jsonl.

    Raises:
        Mismatch: the folder is no run, it has no such step, or no checkpoint leads there.
    """
    path = rundir.require_run(folder) / "config.yaml"
    config = rundir.changed(rundir.load(path), ["trainer.devices=1", "trainer.num_nodes=1"])
    run = reopen(config, folder)
    stages = legs(config, _taken(folder))
    leg = next((leg for leg in stages if leg.offset < step <= leg.offset + leg.steps), None)
    if leg is None:
        raise Mismatch(f"{folder}: there is no step {step}; the run has {sum(leg.steps for leg in stages)}")
    found = _before(folder, leg, step - leg.offset)
    mark = Mark()
    if found is not None:
        checkpoint.load_parts(found, run.parts)
        if checkpoint.read_state(found)["stage_index"] == leg.index:
            mark = Mark.of(found)
    if mark.step == 0:
        begin(run, leg)
    module = make_module(run, leg, mark)
    trainer = make_trainer(config, run, [Restorer(mark.checkpoint)] if mark.checkpoint else [])
    with suppress(NotFinite):  # as the run itself, maybe at the step that is asked for
        trainer.fit(module, make_rows(run, module, step - leg.offset))
    if module.seen < step - leg.offset:
        raise Mismatch(f"{folder}: step {leg.offset + module.seen} has no finite loss, so step {step} has no meaning")
    loss = float(total_loss(module.seen_terms))
    written = folder / "metrics.jsonl"
    lines = [line for line in read_metrics(written) if line["step"] == step] if written.is_file() else []
    compared = f" (metrics.jsonl: {lines[-1]['loss']:.9g})" if lines else ""
    return Replayed(loss, module.seen_terms, compared)


def _taken(folder: Path) -> dict[str, int]:
    """Steps of the stages so far, of which a budget may have ended some early."""
    saved = checkpoint.names(folder / "checkpoints")
    taken: dict[str, int] = checkpoint.read_state(folder / "checkpoints" / saved[-1]).get("taken", {}) if saved else {}
    return taken


def _before(folder: Path, leg: Leg, step: int) -> Path | None:
    """The last whole checkpoint before this step of a stage, or at the end of the stage before; none: the start."""
    for name in reversed(checkpoint.names(folder / "checkpoints")):
        found = folder / "checkpoints" / name
        try:
            checkpoint.verify(found)
        except checkpoint.BrokenCheckpoint:
            continue
        state = checkpoint.read_state(found)
        if state["stage_index"] == leg.index and state["step"] < step:
            return found
        if state["stage_index"] == leg.index - 1:
            return found
    if leg.index:
        raise Mismatch(f"{folder}: no whole checkpoint leads to step {step} of stage {leg.name}")
    return None
