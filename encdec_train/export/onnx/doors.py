"""What an exported graph is given, and how that becomes the units that a transform's `finish` reads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from encdec_train.data.transform import Transform
from encdec_train.data.transforms.audio import WaveformTransform
from encdec_train.data.transforms.image import ImageTransform
from encdec_train.types import Mismatch, Sites, Spec, Units

ROWS = 3  # of the examples; a number that no other axis is likely to have


@dataclass(frozen=True, kw_only=True)
class Door:
    """The inputs of a graph.

    Args:
        examples: by name, (B,...) with B = `ROWS`; of texts and sounds one is shorter than the others.
        said: by name, what a user puts there.
        long: axis 1 is a length, which may be another in every call.
        enter: the inputs, in their order, to units.
    """

    examples: dict[str, Tensor]
    said: dict[str, str]
    long: bool
    enter: Callable[..., Units]


def door(view: Transform, spec: Spec) -> Door:
    """For texts, pictures and sounds.

    Raises:
        Mismatch: the view is nothing of these.
    """
    if spec.kind == "ids":
        return _texts(spec)
    if isinstance(view, ImageTransform):
        return _pictures(view)
    if isinstance(view, WaveformTransform):
        return _sounds(view)
    kind = type(view).__name__.removesuffix("Transform").lower()
    raise Mismatch(f"export --to onnx: texts, pictures and sounds can be exported, not a view of kind '{kind}'")


def _texts(spec: Spec) -> Door:
    bound = spec.max_len or spec.length
    generator = torch.Generator().manual_seed(0)
    specials = spec.vocabulary.specials if spec.vocabulary else 0
    ids = torch.randint(specials, spec.width, (ROWS, bound), generator=generator)

    def enter(ids: Tensor, mask: Tensor) -> Units:
        return Units(values=ids, sites=_numbered(ids, mask, bound))

    return Door(
        examples={"input_ids": ids, "attention_mask": _mask(bound)},
        said={"input_ids": f"tokens, at most {bound} of them", "attention_mask": "1 at tokens, 0 at padding behind"},
        long=True,
        enter=enter,
    )


def _pictures(view: ImageTransform) -> Door:
    data = view.data
    shape = (ROWS, data.size, data.size, data.channels)
    pixels = torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)

    def enter(pixels: Tensor) -> Units:
        whole = pixels.flatten(1)[:, None]  # (B,1,H*W*C): as a worker hands them over
        place = torch.zeros(pixels.shape[0], 1, dtype=torch.int64, device=pixels.device)
        return Units(values=whole, sites=Sites(sample=place, place=place, grid=tuple(pixels.shape[1:])))

    said = "pictures of this size, 0 to 255; the graph normalises them"
    return Door(examples={"pixels": pixels}, said={"pixels": said}, long=False, enter=enter)


def _sounds(view: WaveformTransform) -> Door:
    samples = torch.randn(ROWS, view.length, generator=torch.Generator().manual_seed(0))

    def enter(samples: Tensor, mask: Tensor) -> Units:
        return Units(values=samples[..., None], sites=_numbered(samples, mask, 0))

    each = ", each sound of zero mean and unit variance" if view.config.normalize else ""
    said = f"samples at {view.data.rate} Hz, at most {view.length} of them{each}"
    return Door(
        examples={"input_values": samples, "attention_mask": _mask(view.length)},
        said={"input_values": said, "attention_mask": "1 at samples, 0 at padding behind"},
        long=True,
        enter=enter,
    )


def _mask(length: int) -> Tensor:
    """(ROWS,length) int64: the second row ends in its middle."""
    mask = torch.ones(ROWS, length, dtype=torch.int64)
    mask[1, length // 2 :] = 0
    return mask


def _numbered(like: Tensor, mask: Tensor, max_len: int) -> Sites:
    """Sites 0..N-1 of (B,N)."""
    place = torch.arange(like.shape[1], device=like.device).expand(like.shape[0], -1)
    return Sites(sample=torch.zeros_like(place), place=place, valid=mask > 0, max_len=max_len)
