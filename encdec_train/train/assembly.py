"""What a run is made of: its parts and data, put together from a configuration, and the probes that look at them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from encdec_train.build import Dry, Wiring, check, dry_run, make_parts, make_transform
from encdec_train.config import TrainConfig
from encdec_train.data.draws import training_items
from encdec_train.data.mixture import facts, probed
from encdec_train.data.open import open_rows, row_name
from encdec_train.data.tokens import BrokenText
from encdec_train.data.transform import Transform
from encdec_train.kernels import backend
from encdec_train.probes.probe import Measured
from encdec_train.registry import probes as probe_registry
from encdec_train.rng import key_of
from encdec_train.step import Parts
from encdec_train.train import batchwise, checkpoint, ranks, shards
from encdec_train.train.callbacks.sinks import Sink
from encdec_train.train.frozen import Frozen
from encdec_train.train.recompute import recompute

log = logging.getLogger("encdec_train")
Rows = Sequence[dict[str, Any]]


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
    items: Any = ()  # of `training_items`
    sinks: tuple[Sink, ...] = ()  # take each line of metrics


def reopen(config: TrainConfig, folder: Path) -> Run:
    """The parts and data of a run that exists, with fresh weights."""
    transform = make_transform(config)
    wiring = check(config, transform.specs())
    return assemble(config, transform, wiring, dry_run(config, wiring), open_rows(config.data), folder)


def read_parts(config: TrainConfig, folder: Path, found: Path) -> tuple[Wiring, Transform, Parts]:
    """The parts of a run with the weights of a checkpoint, in eval mode on the processor; no data are opened."""
    transform = make_transform(config)
    wiring = check(config, transform.specs())
    transform.fit((), folder / "encoder")  # what was learned lies there
    parts = make_parts(config, wiring)
    checkpoint.load_parts(found, parts)
    return wiring, transform, parts.eval()


def assemble(
    config: TrainConfig, transform: Transform, wiring: Wiring, dry: Dry, rows: dict[str, Rows], folder: Path
) -> Run:
    """Weights by the seed, the tokenizer if one is to be learned, the items of the training split."""
    device = ranks.device_of(config.trainer)
    backend.configure(config.kernels, device)
    if config.trainer.threads:
        torch.set_num_threads(config.trainer.threads)
    try:
        transform.fit(rows["train"], folder / "encoder")
        items = training_items(transform, rows["train"], config.data.path or "the data")
    except BrokenText as error:
        raise ValueError(f"{row_name(config.data, error.rows, error.row)}: {error.why}") from error
    parts = fresh_parts(config, wiring)
    if config.trainer.world > 1:
        batchwise.check_norms(parts)
    if config.trainer.sharded:
        shards.check_parts(parts)
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
        parts=parts if config.trainer.sharded else parts.to(device),  # as a whole they may be too large for it
        device=device,
        items=items,
    )


def fresh_parts(config: TrainConfig, wiring: Wiring) -> Parts:
    """The parts with the weights that the run's seed gives them."""
    with torch.random.fork_rng():
        torch.manual_seed(key_of(config.seed, "init") >> 1)
        return make_parts(config, wiring)


def frozen(run: Run, *, limit: int | None = None) -> Frozen:
    """The parts of a run as probes see them.

    Args:
        run: its parts are read as they are.
        limit: rows of each split that are read; none: `evaluate.rows`.
    """
    config = run.config
    run.parts.to(run.device)
    return Frozen(
        config,
        run.parts,
        run.transform,
        run.wiring,
        {split: probed(rows) for split, rows in run.rows.items()},
        run.device,
        folder=run.folder,
        fresh=lambda: fresh_parts(config, run.wiring),
        limit=config.evaluate.rows if limit is None else limit,
    )


def lower_is_better(part: Any) -> bool:
    """Of a probe's configuration."""
    return bool(getattr(probe_registry.part(part)(part), "lower", False))


def evaluate(run: Run, only: str | None = None, eyes: Frozen | None = None) -> dict[str, Measured]:
    """Every configured probe, or one, on the encoder as it is.

    Args:
        run: whose parts are looked at.
        only: the name of one probe.
        eyes: what it is looked at with; none: on `evaluate.rows` rows, however long it takes.
    """
    config = run.config
    if not config.probe:
        return {}
    eyes = eyes or frozen(run)
    found: dict[str, Measured] = {}
    for name, part in config.probe.items():
        if only not in (None, name):
            continue
        probe, seen = probe_registry.part(part)(part), eyes.of(part)
        if probe.labelled and seen.label is None:
            label = facts(seen.transform.data).label
            log.warning("probe %s is left out: the data have no column '%s' with classes", name, label)
        else:
            value = probe(seen)
            found[name] = value if isinstance(value, Measured) else Measured(value)
    return found
