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
from encdec_train.data.open import open_rows
from encdec_train.data.transform import Transform
from encdec_train.kernels import backend
from encdec_train.registry import probes as probe_registry
from encdec_train.rng import key_of
from encdec_train.step import Parts
from encdec_train.train import batchwise, ranks, shards
from encdec_train.train.callbacks.sinks import Sink
from encdec_train.train.frozen import Frozen
from encdec_train.train.recompute import recompute
from encdec_train.types import Mismatch

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
    items: Sequence[Any] = ()
    sinks: tuple[Sink, ...] = ()  # take each line of metrics


def reopen(config: TrainConfig, folder: Path) -> Run:
    """The parts and data of a run that exists, with fresh weights."""
    transform = make_transform(config)
    wiring = check(config, transform.specs())
    return assemble(config, transform, wiring, dry_run(config, wiring), open_rows(config.data), folder)


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
        items=transform.items(rows["train"], clean=False),
    )


def frozen(run: Run) -> Frozen:
    """The parts of a run as probes see them."""
    config = run.config
    path = run.wiring.paths.get(config.evaluate.path)
    if path is None:
        raise Mismatch(f"evaluate.path: there is no path '{config.evaluate.path}'")
    run.parts.to(run.device)
    return Frozen(config, run.parts, run.transform, path, run.wiring.paths, run.rows, run.device)


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
