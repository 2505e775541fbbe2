"""`encoder.init`: an encoder and its embedder that begin with weights that exist.

A published model is read through transformers, from a folder or by its name on the hub; one of our own from the folder
`encoder/` of a run, or from the run. Its configuration must be that of the parts, as far as it changes outputs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from encdec_train import hub
from encdec_train.build import Wiring
from encdec_train.config import TrainConfig
from encdec_train.data.transform import Transform
from encdec_train.decoders.seq2seq import Seq2SeqConfig
from encdec_train.export.encoder import configured
from encdec_train.export.hf.families import FAMILIES, Family, Ours
from encdec_train.export.hf.save import MISSING
from encdec_train.library import need
from encdec_train.nn.borrowed import line
from encdec_train.step import Parts
from encdec_train.types import Mismatch

# Ends of names of transformers' values that change nothing here: chances, ids of tokens, the other side of T5.
FREE = ("dropout", "_prob", "_rate", "layerdrop", "_token_id", "tie_word_embeddings", "num_decoder_layers")
FREE_OURS = (
    *("init", "init_std", "bias_std", "fan_in", "shrink", "zero_init", "emit", "emit_qkv", "gradient", "penalty"),
    *("dropout", "attention_dropout", "hidden_dropout", "final_dropout", "layer_drop", "momentum"),
)
OWN = ("mask.vector",)  # of ours, that a published model may lack; it begins as it would without `init`
State = dict[str, Tensor]
Starts = dict[str, tuple[str, State]]  # part `noun.name`: where its weights come from, and they


def read(config: TrainConfig, wiring: Wiring, transform: Transform) -> Starts:
    """The weights that parts begin with; nothing where no encoder asks for any.

    Raises:
        Mismatch: there is no such model, or its configuration is another.
    """
    starts: Starts = {}
    for name, encoder in config.encoder.items():
        source = getattr(encoder, "init", None)
        if source is None:
            continue
        where = f"encoder.{name}.init='{source}'"
        embedder, ours = _around(config, wiring, transform, name)
        if ours.view.vocabulary is not None and ours.view.vocabulary.learned:
            raise Mismatch(
                f"{where}: its table has a row for each token of its own tokenizer, and this run trains another; give "
                "the file: transform.tokenizer=.../tokenizer.json"
            )
        found = _own(where, source, ours) or _published(where, source, ours)
        for noun, part in (("embedder", embedder), ("encoder", name)):
            prefix = f"{noun}.main."
            own = {key.removeprefix(prefix): value for key, value in found.items() if key.startswith(prefix)}
            starts[f"{noun}.{part}"] = (where, own)
    return starts


def load(starts: Starts, parts: Parts) -> None:
    """Give the parts their weights, and teachers what their students have.

    Raises:
        Mismatch: a weight is missing or of another shape.
    """
    for full, (where, state) in starts.items():
        part = parts.get(*full.split(".", 1))
        mine = part.state_dict()
        for name, value in mine.items():
            there = state.get(name)
            if there is None and not name.endswith(OWN):
                raise Mismatch(f"{where}: it has no weights for {full}.{name}")
            if there is not None and there.shape != value.shape:
                raise Mismatch(f"{where}: {full}.{name} is {tuple(there.shape)} there, {tuple(value.shape)} here")
        strange = [name for name in state if name not in mine and not name.endswith(OWN)]
        if strange:
            raise Mismatch(f"{where}: {full} has no place for its {strange[0]}")
        part.load_state_dict({name: value for name, value in state.items() if name in mine}, strict=False)
    if starts:
        for teacher in parts.teachers:
            parts.refresh_teacher(teacher)


def _around(config: TrainConfig, wiring: Wiring, transform: Transform, encoder: str) -> tuple[str, Ours]:
    """The embedder before an encoder on the first path that reads it, and what a family has to know of both."""
    path = next(path for path in wiring.paths.values() if path.encoder == encoder)
    decoder = next((d for d in config.decoder.values() if isinstance(d, Seq2SeqConfig)), None)
    ours = Ours(
        view=wiring.views[path.view],
        embedder=config.embedder[path.embedder],
        encoder=config.encoder[encoder],
        decoder=decoder,
        data=transform.of(path.view).data,
    )
    return path.embedder, ours


def _own(where: str, source: str, ours: Ours) -> State | None:
    """Of one of our runs, under `noun.main`; none where the folder is no such thing."""
    folder = next((f for f in (Path(source), Path(source) / "encoder") if (f / "preprocess.json").is_file()), None)
    if folder is None:
        return None
    described = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    for noun, mine in (("embedder", ours.embedder), ("encoder", ours.encoder)):
        theirs = configured(noun, described[noun]) if noun in described else None
        same_part(f"{where}: its {noun}", theirs, mine)
    weights = load_file(folder / "model.safetensors")
    return {
        f"{noun}.main.{rest}": value for (noun, _, rest), value in ((k.partition("."), v) for k, v in weights.items())
    }


def _published(where: str, source: str, ours: Ours) -> State:
    """Of a model that transformers reads, under `noun.main`."""
    library = need("transformers", "hf", where)
    hub.look_for(source)
    config = _fetch(where, lambda: library.AutoConfig.from_pretrained(source, trust_remote_code=False))
    family = _family(where, config.model_type, ours)
    try:
        arguments = family.arguments(ours)
        own = config if family.section is None else getattr(config, family.section)
        wanted = type(own)(**arguments).to_dict()
        theirs = own.to_dict()
        _same(where, {key: theirs.get(key) for key in arguments if not key.endswith(FREE)}, wanted)
        given = {"config": config, "use_safetensors": True, "output_loading_info": True, "dtype": torch.float32}
        read = library.AutoModel.from_pretrained
        model, report = _fetch(where, lambda: read(source, trust_remote_code=False, **given))
        lacking = [key for key in report["missing_keys"] if not any(name in key for name in MISSING)]
        if lacking:
            raise Mismatch(f"its weights lack {sorted(lacking)[0]}")
        return family.from_hf(ours, theirs, model.state_dict())
    except Mismatch as error:
        said = str(error)
        raise Mismatch(said if said.startswith(where) else f"{where}: {said}") from error


def _fetch(where: str, call: Callable[[], Any]) -> Any:
    """Whatever the library says of a folder that is none, a name that the hub does not know, no network."""
    try:
        return call()
    except Exception as error:
        raise Mismatch(f"{where}: it cannot be read or found ({line(error)})") from error


def _family(where: str, model_type: str, ours: Ours) -> Family:
    """The family of a published model, if the parts are of its kind."""
    families = [family for family in FAMILIES if model_type in family.model_types]
    if not families:
        known = ", ".join(dict.fromkeys(kind for family in FAMILIES for kind in family.model_types))
        raise Mismatch(f"{where}: a model of type '{model_type}' has no mapping to parts here; known: {known}")
    for family in families:
        strange = [
            part
            for part, kind in zip((ours.embedder, ours.encoder), family.parts, strict=True)
            if not isinstance(part, kind)
        ]
        if not strange:
            return family
    wanted = " and ".join(part.__name__.removesuffix("Config") for part in family.parts)
    raise Mismatch(f"{where}: {family.name} is an embedder and an encoder of {wanted}, not of {_kind(strange[0])}")


def _kind(config: Any) -> str:
    return type(config).__name__.removesuffix("Config")


def same_part(where: str, theirs: Any, mine: Any) -> None:
    """Raise `Mismatch` where a part of ours is configured in another way than here, as far as it changes outputs."""
    if type(theirs) is not type(mine):
        raise Mismatch(f"{where} is a {type(theirs).__name__}, here it is a {type(mine).__name__}")
    _same(where, {k: v for k, v in vars(theirs).items() if k not in FREE_OURS}, vars(mine))


def _same(where: str, there: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    """Raise `Mismatch` where a value there is another one here."""
    differ = [f"{key}={value}, here {here.get(key)}" for key, value in there.items() if here.get(key) != value]
    if differ:
        raise Mismatch(f"{where}: it has {'; '.join(differ)}")
