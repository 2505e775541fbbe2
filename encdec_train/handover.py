"""`encdec-train export`: a run's model as other libraries read it, kept only if it gives equal outputs there."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from encdec_train.build import Wiring
from encdec_train.config import TrainConfig, publish
from encdec_train.data.transform import Transform
from encdec_train.export import encoder
from encdec_train.export.card import card
from encdec_train.export.held import Held, held
from encdec_train.export.hf import save as hf
from encdec_train.export.onnx import save as onnx
from encdec_train.export.timm import save as timm
from encdec_train.nn.pool import Pool
from encdec_train.registry import did_you_mean
from encdec_train.step import Parts
from encdec_train.train import checkpoint, rundir
from encdec_train.train.assembly import read_parts
from encdec_train.types import Mismatch

TARGETS = ("hf", "timm", "safetensors", "onnx")
USAGE = "export RUN --to hf|timm|safetensors|onnx DIR"


def export_command(arguments: Sequence[str]) -> int:
    """`encdec-train export RUN --to hf|timm|safetensors|onnx DIR`."""
    words = list(arguments)
    if len(words) != 4 or words[1] != "--to":
        raise Mismatch(f"usage: encdec-train {USAGE}; given: {' '.join(words) or 'nothing'}")
    run, target, folder = Path(words[0]), words[2], Path(words[3])
    if target not in TARGETS:
        raise Mismatch(f"export: unknown target '{target}'{did_you_mean(target, TARGETS)}; known: {', '.join(TARGETS)}")
    publish()
    print(f"{folder}: {export(run, target, folder)}, the same outputs when loaded back")
    return 0


def export(run: Path, target: str, folder: Path) -> str:
    """Write the model of a run's newest checkpoint to a new folder and say what it is.

    Raises:
        Mismatch: the run is none, the folder holds something, or the target cannot hold the model; nothing is left.
        BrokenCheckpoint: the run has no whole checkpoint.
    """
    config = rundir.load(rundir.require_run(run) / "config.yaml")
    found, _ = checkpoint.newest(run / "checkpoints")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise Mismatch(f"{folder}: there is something already; choose a new folder")
    parent = next(p for p in folder.absolute().parents if p.exists())
    if not parent.is_dir():
        raise Mismatch(f"{folder}: {parent} is a file; choose a new folder")
    opened = _reopen(config, run, found)
    with tempfile.TemporaryDirectory(dir=parent, prefix=".export-") as scratch:
        work = Path(scratch) / "model"
        work.mkdir()
        name = _write(work, target, run, opened)
        summary = rundir.read_json(run / "summary.json") if (run / "summary.json").is_file() else {}
        environment = rundir.read_json(run / "environment.json")
        text = card(target, name, str(folder), rundir.to_plain(config), summary, environment)
        (work / "README.md").write_text(text, encoding="utf-8")
        folder.parent.mkdir(parents=True, exist_ok=True)
        if folder.is_dir():
            folder.rmdir()
        work.rename(folder)
    return name


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A run as far as an export needs it."""

    config: TrainConfig
    wiring: Wiring
    transform: Transform
    parts: Parts
    kept: Held


def _reopen(config: TrainConfig, run: Path, found: Path) -> Opened:
    """Parts with the checkpoint's weights on the processor; no data are opened."""
    wiring, transform, parts = read_parts(config, run, found)
    kept = held(config, wiring, transform)
    return Opened(config=config, wiring=wiring, transform=transform, parts=parts, kept=kept)


def _write(work: Path, target: str, run: Path, opened: Opened) -> str:
    """Write it, check it, and say what it is called."""
    kept, parts, transform = opened.kept, opened.parts, opened.transform
    if target == "safetensors":
        return _own(work, run, opened)
    if target == "timm":
        return timm.save(work, kept, parts, transform)
    if target == "onnx":
        return onnx.save(work, kept, parts, transform, Pool(opened.config.evaluate.pool), _tokenizer(run, kept))
    return hf.save(work, kept, parts, transform, _tokenizer(run, kept))


def _tokenizer(run: Path, kept: Held) -> Path | None:
    """The file of the evaluated view's tokenizer: in the folder of its name where there are several views."""
    files = [run / "encoder" / kept.path.view / "tokenizer.json", run / "encoder" / "tokenizer.json"]
    return next((file for file in files if file.is_file()), None)


def _own(work: Path, run: Path, opened: Opened) -> str:
    """A folder as a finished run's `encoder/`, with its tokenizers; the name is that of the view that it reads."""
    config, kept, parts = opened.config, opened.kept, opened.parts
    encoder.save(work, config, opened.wiring, parts, opened.transform, rundir.to_plain(config))
    for file in (run / "encoder").glob("**/tokenizer.json"):
        own = work / file.relative_to(run / "encoder")
        own.parent.mkdir(exist_ok=True)
        shutil.copyfile(file, own)
    back = {name.removeprefix("student."): value for name, value in encoder.load(work).parts.state_dict().items()}
    weights = kept.state(parts)
    if not all(torch.equal(value, weights[name]) for name, value in back.items()):
        raise Mismatch(f"export: what was read back from {work} are not the weights of the run")
    return kept.path.view
