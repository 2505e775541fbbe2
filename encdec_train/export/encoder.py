"""The encoder alone: what a user takes away from a run.

`encoder/` holds `model.safetensors`, `config.json` (the parts, with what they were built from) and `preprocess.json`.
A decoder, head or target that only pretraining needed is left out.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import nn

from encdec_train.build import Wiring
from encdec_train.config import TrainConfig
from encdec_train.data.transform import Transform
from encdec_train.registry import Registry, discover
from encdec_train.rng import Rng
from encdec_train.step import Parts, Step
from encdec_train.types import Batch, Mismatch, Spec, Tokens, Vocabulary
from encdec_train.types import Path as PartsPath


def save(
    folder: Path, config: TrainConfig, wiring: Wiring, parts: Parts, transform: Transform, plain: dict[str, Any]
) -> None:
    """Write the embedder and the encoder of the evaluated path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = wiring.paths[config.evaluate.path]
    chosen = {"embedder": path.embedder, "encoder": path.encoder}
    weights: dict[str, Any] = {}
    described: dict[str, Any] = {"view": path.view, "pool": config.evaluate.pool}
    for noun, name in chosen.items():
        if name is None:
            continue
        part = parts.get(noun, name, path.teacher)
        weights.update({f"{noun}.{k}": v.detach().contiguous() for k, v in part.state_dict().items()})
        upstream = wiring.inputs[f"{noun}.{name}"][0]
        own = part.portable() if hasattr(part, "portable") else {}  # in place of names that mean nothing elsewhere
        described[noun] = {"config": {**plain[noun][name], **own}, "upstream": asdict(upstream)}
    if "embedder" in described:
        described["embedder"]["mask"] = any(k.startswith("embedder.mask.") for k in weights)
    save_file(weights, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(described, indent=1) + "\n")
    (folder / "preprocess.json").write_text(json.dumps(transform.preprocess(), indent=1) + "\n")


class Encoder(nn.Module):
    """A loaded embedder and encoder: units in, tokens out."""

    def __init__(self, embedder: nn.Module, encoder: nn.Module | None, view: str) -> None:
        super().__init__()
        self.parts = Parts({"embedder": {"main": embedder}, "encoder": {} if encoder is None else {"main": encoder}})
        self.path = PartsPath(view=view, encoder="main" if encoder is not None else None)

    def forward(self, batch: Batch) -> Tokens:
        tokens: Tokens = Step(batch, self.parts, Rng(0, 0)).encode(self.path)
        return tokens


def load(folder: Path) -> Encoder:
    """Read an exported encoder back, in eval mode.

    Raises:
        Mismatch: the folder holds none.
    """
    discover()
    if not (folder / "config.json").is_file():
        raise Mismatch(f"{folder}: not an exported encoder (it has no config.json)")
    described = json.loads((folder / "config.json").read_text())
    embedder = _part("embedder", described["embedder"], mask=described["embedder"]["mask"])
    encoder = _part("encoder", described["encoder"]) if "encoder" in described else None
    model = Encoder(embedder, encoder, described["view"])
    weights = load_file(folder / "model.safetensors")
    names = {noun: f"{noun}.main" for noun in ("embedder", "encoder")}
    state = {
        f"student.{names[noun]}.{rest}": value
        for (noun, _, rest), value in ((key.partition("."), value) for key, value in weights.items())
    }
    model.parts.load_state_dict(state)
    return model.eval()


def configured(noun: str, described: dict[str, Any]) -> Any:
    """The configuration of a part that `config.json` describes."""
    from omegaconf import OmegaConf

    values = dict(described["config"])
    schema, _ = Registry.all[noun].parts[values.pop("part")]
    return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), values))


def _part(noun: str, described: dict[str, Any], **extra: Any) -> nn.Module:
    config = configured(noun, described)
    built: nn.Module = Registry.all[noun].part(config)(config, _spec(described["upstream"]), **extra)
    return built


def _spec(plain: dict[str, Any] | None) -> Spec | None:
    if plain is None:
        return None
    vocabulary = plain["vocabulary"] and Vocabulary(**plain["vocabulary"])
    grid = tuple(plain["grid"]) if plain["grid"] is not None else None
    return Spec(**{**plain, "vocabulary": vocabulary, "grid": grid, "raw": _spec(plain["raw"])})
