"""A folder as `from_pretrained` reads it, and the proof that what it reads gives the same outputs as ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing
from torch import Tensor

from encdec_train.data.example import Example, collate
from encdec_train.data.transform import Transform
from encdec_train.data.transforms.audio import WaveformTransform
from encdec_train.data.transforms.image import ImageTransform, picture, unpack
from encdec_train.data.transforms.text import Text
from encdec_train.export.held import Held
from encdec_train.export.hf.families import Family, holding
from encdec_train.library import need
from encdec_train.nn.lattice import rows
from encdec_train.rng import Rng
from encdec_train.step import Parts, Step
from encdec_train.types import Batch, Mismatch, Vocabulary

TOLERANCE = 1e-4  # of outputs that are of the order of one; relative where they are larger
MISSING = ("position_ids", "pooler.", "masked_spec_embed", "num_batches_tracked")  # that theirs may have besides


def save(folder: Path, kept: Held, parts: Parts, transform: Transform, tokenizer: Path | None) -> str:
    """Write the model and its preprocessing, load it back, compare. Returns the name of its class.

    Args:
        folder: exists, empty.
        kept: what of the run is handed over.
        parts: with their weights.
        transform: of the run, fitted.
        tokenizer: file of the evaluated view's tokenizer, if it has one.

    Raises:
        Mismatch: transformers has no model for these parts, or gives other outputs.
    """
    library = need("transformers", "hf", "export --to hf")
    ours = kept.ours
    family, arguments = holding(ours)
    name = family.whole if family.whole and ours.head is not None else family.base
    assert name is not None
    model = _model(library, name, arguments)
    assert family.to_hf is not None  # or it would not be among those that hold a run's parts
    _load(model, family, family.to_hf(ours, kept.state(parts)), base=name == family.base)
    model.save_pretrained(folder)
    view = transform.of(kept.path.view)
    _preprocessing(library, folder, view, tokenizer)
    compare(getattr(library, name).from_pretrained(folder).eval(), kept, parts, transform)
    if isinstance(view, Text):
        _compare_texts(library.AutoTokenizer.from_pretrained(folder), view)
    return name


def _model(library: Any, name: str, arguments: dict[str, Any]) -> Any:
    kind = getattr(library, name)
    model = kind(kind.config_class(**arguments))
    return model.eval()


def _load(model: Any, family: Family, state: dict[str, Tensor], *, base: bool) -> None:
    """All of ours must have a place, and all of theirs a weight but what ours do not have."""
    if base and family.prefix:
        state = {key.removeprefix(family.prefix): value for key, value in state.items()}
    missing, unknown = model.load_state_dict(state, strict=False)
    missing = [key for key in missing if not any(name in key for name in MISSING)]
    if missing or unknown:
        found = ", ".join([*missing, *unknown][:3])
        raise Mismatch(f"export to {family.name}: the weights do not match ({found})")


@torch.no_grad()
def compare(model: Any, kept: Held, parts: Parts, transform: Transform) -> None:
    """The same input through both.

    Raises:
        Mismatch: the outputs differ.
    """
    batch, given = sample(kept, transform)
    name = type(model).__name__
    if kept.objective is None:
        compare_states(name, kept, parts, batch, model(**given).last_hidden_state)
    else:
        equal(name, *_scores(model, kept, Step(batch, parts.eval(), Rng(0, 0))))


@torch.no_grad()
def compare_states(name: str, kept: Held, parts: Parts, batch: Batch, states: Tensor) -> None:
    """Their states of the same input, (B,prefix+N,D) or (B,D,h,w), against ours.

    Raises:
        Mismatch: they differ.
    """
    tokens = Step(batch, parts.eval(), Rng(0, 0)).encode(kept.path)
    if states.dim() == 4:
        states = rows(states)
    real = tokens.sites.real()
    equal(name, tokens.body[real], states[:, tokens.prefix :][real])


def equal(name: str, found: Tensor, expected: Tensor) -> None:
    """Raise `Mismatch` where outputs differ."""
    error = float((found - expected).abs().max() / expected.abs().max().clamp_min(1.0))
    if not error <= TOLERANCE:
        raise Mismatch(f"export: {name} gives other outputs than the run's parts (by {error:.2g})")


def _scores(model: Any, kept: Held, step: Step) -> tuple[Tensor, Tensor]:
    """(M,V) ours and theirs, of what the run's own corruption asks for."""
    objective = step.part("objective", str(kept.objective))
    prediction, plan, _ = objective.predict(step)
    memory = step.plan(objective.memory)
    given = {"input_ids": memory.inputs.values, "attention_mask": memory.sites.real().long()}
    if kept.ours.decoder is not None:
        given["decoder_input_ids"] = plan.inputs.values
    scores = model(**given).logits.flatten(0, 1)
    counted = plan.sites.real().flatten()
    if plan.where is not None:
        scores, counted = scores[plan.where], counted[plan.where]
    if plan.weight is not None:
        counted = counted & (plan.weight > 0)
    return prediction[counted], scores[counted]


def sample(kept: Held, transform: Transform) -> tuple[Batch, dict[str, Tensor]]:
    """Two random inputs as our parts and as theirs read them; of texts and sounds one is shorter than the other."""
    name, view = kept.path.view, transform.of(kept.path.view)
    generator = torch.Generator().manual_seed(0)
    if isinstance(view, ImageTransform):
        shape = (view.data.size, view.data.size, view.data.channels)
        pictures = [torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8).numpy() for _ in range(2)]
        raw = collate([{name: picture(pixels, i)} for i, pixels in enumerate(pictures)])
        return transform.finish(raw, Rng(0, 0), clean=True), {"pixel_values": view.normalize(unpack(raw[name]))}
    if isinstance(view, WaveformTransform):
        lengths = [min(view.length, 16_000), min(view.length, 16_000) * 3 // 4]
        sounds = [torch.randn(n, 1, generator=generator) for n in lengths]
        units = collate([{name: Example(values=sound, sample=i)} for i, sound in enumerate(sounds)])[name]
        mask = units.sites.real().long()
        return {name: units}, {"input_values": units.values[..., 0], "attention_mask": mask}
    words, bound = kept.ours.words, kept.ours.view.max_len or kept.ours.view.length
    last = words.size - (words.sentinels if words.sentinel >= words.specials else 0)
    longest = min(24, bound)
    texts = [torch.randint(words.specials, last, (n,), generator=generator) for n in (longest, longest * 3 // 4)]
    units = collate([{name: Example(values=text, sample=i)} for i, text in enumerate(texts)])[name]
    return {name: units}, {"input_ids": units.values, "attention_mask": units.sites.real().long()}


def _preprocessing(library: Any, folder: Path, view: Transform, tokenizer: Path | None) -> None:
    """What `AutoTokenizer`, `AutoImageProcessor` and `AutoFeatureExtractor` read."""
    if isinstance(view, Text):
        assert tokenizer is not None
        _tokenizer(library, folder, view, tokenizer)
    elif isinstance(view, ImageTransform):
        _write(folder, _pictures(view))
    elif isinstance(view, WaveformTransform):
        _write(folder, _sounds(view))


def _write(folder: Path, values: dict[str, Any]) -> None:
    (folder / "preprocessor_config.json").write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


def _pictures(view: ImageTransform) -> dict[str, Any]:
    """The shorter side to the size, its middle, pixels in [0, 1], mean and deviation."""
    data = view.data
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": data.size},
        "resample": 3,  # bicubic
        "do_center_crop": True,
        "crop_size": {"height": data.size, "width": data.size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(data.mean),
        "image_std": list(data.std),
        "do_convert_rgb": data.channels == 3,
    }


def _sounds(view: WaveformTransform) -> dict[str, Any]:
    return {
        "feature_extractor_type": "Wav2Vec2FeatureExtractor",
        "feature_size": 1,
        "sampling_rate": view.data.rate,
        "padding_value": 0.0,
        "do_normalize": view.config.normalize,
        "return_attention_mask": True,
    }


def _tokenizer(library: Any, folder: Path, view: Text, file: Path) -> None:
    """Ours, with the special tokens that the transform puts around a text."""
    found, words = Tokenizer.from_file(str(file)), view.vocabulary
    ids = [getattr(words, role) if getattr(view.config, role) else -1 for role in ("bos", "eos")]
    bos, eos = ([] if number < 0 else [_name(found, number)] for number in ids)
    specials = [(_name(found, number), number) for number in ids if number >= 0]
    found.post_processor = TemplateProcessing(single=[*bos, "$A", *eos], special_tokens=specials)
    wrapped = library.PreTrainedTokenizerFast(
        tokenizer_object=found, model_max_length=view.config.document, **_roles(found, words)
    )
    wrapped.save_pretrained(folder)


def _roles(found: Tokenizer, words: Vocabulary) -> dict[str, str]:
    """What transformers calls the special tokens."""
    ids = {
        "pad_token": words.pad,
        "mask_token": words.mask,
        "bos_token": words.bos,
        "cls_token": words.bos,
        "eos_token": words.eos,
        "sep_token": words.eos,
    }
    known = {role: _name(found, number) for role, number in ids.items() if number >= 0}
    for name in ("[UNK]", "<unk>"):
        if found.token_to_id(name) is not None:
            known["unk_token"] = name
    return known


def _name(tokenizer: Tokenizer, number: int) -> str:
    name = tokenizer.id_to_token(number)
    assert name is not None, number
    return name


def _compare_texts(theirs: Any, view: Text) -> None:
    """A text becomes the same ids.

    Raises:
        Mismatch: it does not.
    """
    text = "A text (with signs) becomes the same ids, 1 by 1."
    body = view.tokenizer.encode(text, add_special_tokens=False).ids[: view.config.document - view.config.extra]
    words, config = view.vocabulary, view.config
    ours = [*([words.bos] if config.bos else []), *body, *([words.eos] if config.eos else [])]
    found = theirs(text, truncation=True, max_length=view.config.document)["input_ids"]
    if found != ours:
        raise Mismatch("export: the tokenizer as transformers reads it gives other ids than the run's")
