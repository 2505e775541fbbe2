"""Pictures for people: what was given, what was hidden of it, and what the model made of it."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from encdec_train.types import Plan, Units

GREY = 0.5  # of what is hidden
GAP = 0.06  # between pictures, as a share of their height
COLUMNS = 2  # of triples: more would be too small on a phone
LEAST = 96  # height in pixels that small pictures are enlarged to


def unpatch(values: Any, grid: tuple[int, int], channels: int) -> np.ndarray:
    """Patches (B,N,p*p*C), rows before columns before channels, to pictures (B,H,W,C)."""
    patches = np.asarray(values, dtype=np.float32)
    height, width = grid
    batch, count, size = patches.shape
    side = round((size / channels) ** 0.5)
    if count != height * width or side * side * channels != size:
        raise ValueError(f"{count} patches of {size} values are no grid of {height} x {width} with {channels} channels")
    tiles = patches.reshape(batch, height, width, side, side, channels).transpose(0, 1, 3, 2, 4, 5)
    return tiles.reshape(batch, height * side, width * side, channels)


def reconstruction_png(original: Any, masked: Any, predicted: Any) -> bytes:
    """One PNG: for each sample the original, what the encoder saw of it, and the prediction, side by side.

    Args:
        original: (B,H,W,C) in [0,1], C of 1 or 3; what is beyond that range is cut off.
        masked: likewise, with something in the hidden places.
        predicted: likewise.
    """
    triples = [np.asarray(pictures, dtype=np.float32) for pictures in (original, masked, predicted)]
    batch, height, width, channels = triples[0].shape
    scale = max(1, -(-LEAST // height))  # whole pixels stay whole
    gap = max(1, round(GAP * height * scale))
    columns = min(batch, COLUMNS)
    rows = -(-batch // columns)
    cell = (height * scale + 2 * gap, 3 * (width * scale + gap) + 3 * gap)
    sheet = Image.new("RGBA", (columns * cell[1] - 4 * gap, rows * cell[0] - 2 * gap), (0, 0, 0, 0))
    for sample in range(batch):
        row, column = divmod(sample, columns)
        for place, pictures in enumerate(triples):
            x = column * cell[1] + place * (width * scale + gap)
            sheet.paste(_image(pictures[sample], channels, scale), (x, row * cell[0]))
    out = io.BytesIO()
    sheet.save(out, format="PNG", optimize=True)
    return out.getvalue()


def masked_patches_png(
    values: Any, predicted: Any, mask: Any, grid: tuple[int, int], mean: list[float], std: list[float]
) -> bytes:
    """The triples of patch units.

    Args:
        values: (B,N,p*p*C) normalised values, as the model is given them.
        predicted: (B,N,p*p*C) in the same units; only the masked patches are shown.
        mask: (B,N) bool, True = hidden and predicted.
        grid: patches along height and width.
        mean: of the C channels; was subtracted from the pixels in [0,1].
        std: of the C channels; what remained was divided by it.
    """
    channels = len(mean)
    hidden = np.asarray(mask, dtype=bool)[..., None]
    shown = np.asarray(values, dtype=np.float32)
    pasted = np.where(hidden, np.asarray(predicted, dtype=np.float32), shown)
    covered = np.broadcast_to(hidden, shown.shape)
    original, result = (
        unpatch(patches, grid, channels) * np.asarray(std, np.float32) + np.asarray(mean, np.float32)
        for patches in (shown, pasted)
    )
    seen = np.where(unpatch(covered, grid, channels) > 0.5, GREY, original)
    return reconstruction_png(original, seen, result)


def pasted(units: Units, plan: Plan, prediction: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What is drawn of a batch, on the CPU.

    Args:
        units: values (B,N,C) as the model is given them.
        plan: says what was hidden, and what of it is predicted.
        prediction: (M,C) at the plan's `where`.

    Returns:
        The values; the same with the predictions in their places (B,N,C), zero where something hidden is not
        predicted; and what is hidden, (B,N,1) bool.
    """
    assert plan.mask is not None
    hidden = plan.mask if plan.keep is None else torch.ones_like(plan.mask).scatter(1, plan.keep, False)
    shown, hidden = units.values.float().cpu(), hidden.cpu()[..., None]
    result = shown.masked_fill(hidden, 0.0).flatten(0, 1)
    result[slice(None) if plan.where is None else plan.where.cpu()] = prediction.float().cpu()
    return shown, result.view_as(shown), hidden


def _image(picture: np.ndarray, channels: int, scale: int) -> Image.Image:
    pixels = (np.nan_to_num(picture).clip(0, 1) * 255).round().astype(np.uint8)
    image = Image.fromarray(pixels[..., 0] if channels == 1 else pixels[..., :3])
    return image.convert("RGB").resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)
