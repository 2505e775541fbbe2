"""Any encoder of the library transformers, by its name on the Hugging Face hub or from a folder.

A model of texts reads vectors through `inputs_embeds`: its table of words is left out, the embedder has one of its
own, while its positions, token types and first norm stay. A model of pictures reads `pixel_values`. What a model is
given and gives back is found from its configuration alone, on the meta device. Code that comes with a model is never
run, and weights are read from safetensors only.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from encdec_train import hub
from encdec_train.nn.borrowed import (
    Look,
    check_channels,
    coarse_spec,
    coarse_tokens,
    finest_lattice,
    line,
    picture,
    picture_grid,
    retire,
    untrained,
)
from encdec_train.registry import did_you_mean, encoders
from encdec_train.types import Attend, Mismatch, Spec, Tokens

PART = "encoder 'hf'"


@dataclass(kw_only=True)
class HfConfig:
    model: str | None = None  # a name on the hub, or a folder with config.json; none: options.model_type says what
    pretrained: bool = False  # begin with the model's own weights
    options: dict[str, Any] = field(default_factory=dict)  # values of the model's configuration to change

    @property
    def key(self) -> tuple[str | None, str]:
        return self.model, json.dumps(self.options, sort_keys=True)

    @property
    def reads(self) -> int | None:
        """Width of the vectors that it reads; none: it reads pictures."""
        return _reads(*self.key)

    def spec(self, upstream: Spec) -> Spec:
        if self.pretrained and self.model is None:
            raise Mismatch(f"{PART}.pretrained: there are no weights without encoder.model")
        found = look(self, upstream)
        if found.grid is not None:
            return coarse_spec(upstream, found.width, found.prefix, found.grid)
        return replace(upstream, width=found.width, layers=())


def look(config: HfConfig, upstream: Spec) -> Look:
    """What the model makes of `upstream`; raise `Mismatch` where it cannot read that."""
    if config.reads is None:
        size = picture_grid(PART, upstream)
        check_channels(PART, upstream, getattr(settings(*config.key), "num_channels", 3))
        return _look_at_picture(*config.key, size, upstream.width)
    _check_rows(upstream, config.reads)
    found, bound = _look_at_vectors(*config.key), upstream.max_len or upstream.length
    if found.places is not None and bound > found.places:
        raise Mismatch(f"{PART}: the model has {found.places} places, the view's documents have {bound}")
    return found


def _check_rows(upstream: Spec, reads: int) -> None:
    """Whole rows of one document each, as wide as the model's table of words."""
    if upstream.kind != "vectors":
        raise Mismatch(f"{PART} needs vectors, it is given {upstream.kind}")
    if upstream.width != reads:
        raise Mismatch(f"{PART} reads vectors of width {reads}, it is given {upstream.width}")
    if upstream.docs:
        raise Mismatch(f"{PART} reads one document a row, the view packs several: set transform.layout=padded")
    if upstream.edges:
        raise Mismatch(f"{PART} does not read edges")
    if upstream.prefix:
        raise Mismatch(f"{PART} takes no prefix tokens, it is given {upstream.prefix}")
    if upstream.rows != "all":
        raise Mismatch(f"{PART} numbers the places of whole rows itself, it is given {upstream.rows} sites")


def transformers() -> Any:
    """The library."""
    try:
        import transformers
    except ModuleNotFoundError as error:
        raise Mismatch(f"{PART} needs the extra 'hf': pip install 'encdec-train[hf]'") from error
    return transformers


@lru_cache(maxsize=8)
def settings(model: str | None, options: str) -> Any:
    """The model's configuration, with the options in it."""
    library, changes = transformers(), json.loads(options)
    kind = changes.pop("model_type", None)
    if model is None and kind is None:
        raise Mismatch(f"{PART}.model: give a name on the hub or a folder, or options.model_type")
    wanted = named(model) if model is not None else f"model_type '{kind}'"
    try:
        if model is not None:
            hub.look_for(model)
            plain = library.AutoConfig.from_pretrained(model, trust_remote_code=False)
        else:
            plain = library.AutoConfig.for_model(kind)
    except Exception as error:
        raise Mismatch(f"{PART}.model: {wanted} cannot be read or found ({line(error)})") from error
    unknown = [name for name in changes if not hasattr(plain, name)]
    if unknown:
        hint = did_you_mean(unknown[0], plain.to_dict())
        raise Mismatch(f"{PART}.options: a {plain.model_type} has no '{unknown[0]}'{hint}")
    try:
        if model is None:
            return library.AutoConfig.for_model(kind, **changes)
        return library.AutoConfig.from_pretrained(model, trust_remote_code=False, **changes)
    except Exception as error:
        raise Mismatch(f"{PART}.options: they do not suit {wanted} ({line(error)})") from error


def named(model: str | None) -> str:
    """As a sentence calls it."""
    return "the model" if model is None else f"'{model}'"


def make(config: HfConfig, *, pretrained: bool = False) -> tuple[nn.Module, set[str]]:
    """The model's encoder as transformers makes it, on the default device, and parameters that have no weights.

    Raises:
        Mismatch: transformers cannot make it or find its weights.
    """
    library, chosen, missing = transformers(), settings(*config.key), set()
    try:
        if pretrained:
            given = {"config": chosen, "use_safetensors": True, "output_loading_info": True}
            found, report = library.AutoModel.from_pretrained(
                config.model, trust_remote_code=False, dtype=torch.float32, **given
            )
            missing = set(report["missing_keys"])
        else:
            found = library.AutoModel.from_config(chosen, trust_remote_code=False, dtype=torch.float32)
        if getattr(chosen, "is_encoder_decoder", False):
            whole, found = found, found.get_encoder()
            prefix = next(f"{name}." for name, module in whole.named_modules() if module is found)
            missing = {name.removeprefix(prefix) for name in missing if name.startswith(prefix)}
    except Exception as error:
        raise Mismatch(f"{PART}: {named(config.model)} cannot be made ({line(error)})") from error
    return found, missing


@lru_cache(maxsize=8)
def _reads(model: str | None, options: str) -> int | None:
    with torch.device("meta"):
        found: Any = make(HfConfig(model=model, options=json.loads(options)))[0]
    if found.main_input_name == "pixel_values":
        return None
    try:
        return int(found.get_input_embeddings().embedding_dim)
    except Exception as error:
        raise Mismatch(f"{PART}: {named(model)} encodes neither vectors nor pictures ({line(error)})") from error


@lru_cache(maxsize=8)
def _look_at_vectors(model: str | None, options: str) -> Look:
    width = _reads(model, options)
    assert width is not None
    found, x = _dry(model, options, "inputs_embeds", (2, 8, width))
    if x.dim() != 3 or x.shape[1] != 8:
        raise Mismatch(f"{PART}: {named(model)} does not keep the sites: 8 become {tuple(x.shape[1:-1])}")
    return Look(width=x.shape[-1], places=_places(found), unused=untrained(found, x))


def _places(model: Any) -> int | None:
    """Places that have a position; None: no bound is told. RoBERTa's learned ones begin behind its padding id."""
    for name, table in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(table, nn.Embedding):
            return table.num_embeddings - (0 if table.padding_idx is None else table.padding_idx + 1)
    bound: int | None = getattr(model.config, "max_position_embeddings", None)
    return bound


@lru_cache(maxsize=8)
def _look_at_picture(model: str | None, options: str, size: tuple[int, int], channels: int) -> Look:
    found, x = _dry(model, options, "pixel_values", (2, channels, *size))
    unused, grid = untrained(found, x), lattice(found.config, x, size)
    if x.dim() == 4:
        return Look(width=x.shape[1], grid=grid, unused=unused)
    return Look(width=x.shape[-1], prefix=x.shape[1] - math.prod(grid), grid=grid, unused=unused)


def _dry(model: str | None, options: str, name: str, shape: tuple[int, ...]) -> tuple[nn.Module, Tensor]:
    """The model on the meta device, and its last hidden state for an input of this shape."""
    with torch.device("meta"):
        found = make(HfConfig(model=model, options=json.loads(options)))[0]
        try:
            if name == "inputs_embeds":
                without_words(found)
            return found, found(**{name: torch.zeros(shape)}).last_hidden_state
        except Exception as error:
            given = "pictures" if name == "pixel_values" else "vectors"
            said = f"{PART}: {named(model)} does not read {given} of {tuple(shape[1:])}"
            raise Mismatch(f"{said} ({line(error)})") from error


def without_words(model: Any) -> None:
    """Take the table of words away."""
    model.set_input_embeddings(nn.Identity())


def lattice(settings: Any, x: Tensor, size: tuple[int, int]) -> tuple[int, int]:
    """Where the rows of a last hidden state (B,D,h,w) or (B,prefix+h*w,D) stand."""
    if x.dim() == 4:
        return x.shape[2], x.shape[3]
    patch = getattr(settings, "patch_size", None)
    if patch is None:
        raise Mismatch(f"{PART}: a {settings.model_type} does not say how large its patches are")
    sides = (patch, patch) if isinstance(patch, int) else (patch[0], patch[-1])
    return finest_lattice(PART, x.shape[1], size, sides)


@encoders.register("hf", HfConfig)
class Hf(nn.Module):
    """Vectors (B,N,C) -> (B,N,D), or pixels (B,H*W,C) -> (B,prefix+h*w,D), by a model of transformers."""

    def __init__(self, config: HfConfig, upstream: Spec) -> None:
        super().__init__()
        self.config, self.pictures = config, config.reads is None
        found = look(config, upstream)
        self.width, self.prefix = found.width, found.prefix
        weights = config.pretrained and torch.empty(0).device.type != "meta"  # the meta device has no room for any
        self.model, missing = make(config, pretrained=weights)
        if not self.pictures:
            without_words(self.model)
        retire(self.model, found.unused)
        lost = sorted(missing & {name for name, _ in self.model.named_parameters()})
        if lost:
            said = f"has no weights for {len(lost)} parameters: {lost[0]} ..."
            raise Mismatch(f"{PART}.pretrained: {named(config.model)} {said}")

    def portable(self) -> dict[str, Any]:
        """Values of the configuration that build this part where the folder or the hub is not at hand."""
        chosen: Any = self.model.config
        known = type(chosen)()
        values = json.loads(chosen.to_json_string(use_diff=True))
        options = {key: value for key, value in values.items() if key == "model_type" or hasattr(known, key)}
        return {"model": None, "pretrained": False, "options": options}

    def forward(self, tokens: Tokens, attend: Attend | None = None) -> Tokens:
        if attend is not None:
            raise Mismatch(f"{PART} reads all of a row: the corruption's attention pattern has no meaning here")
        if self.pictures:
            pixels = picture(PART, tokens)
            x = self.model(pixel_values=pixels).last_hidden_state
            size = (pixels.shape[2], pixels.shape[3])
            return coarse_tokens(tokens, x, self.prefix, lattice(self.model.config, x, size))
        valid = tokens.sites.valid
        mask = None if valid is None else valid.long()
        x = self.model(inputs_embeds=tokens.x, attention_mask=mask).last_hidden_state
        return replace(tokens, x=x, position=None)
