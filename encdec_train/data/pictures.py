"""Pictures for people: what was given, what was hidden of it, and what the model made of it."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from encdec_train.types import Plan, Units

GREY = 0.5  # of what is hidden
GAP = 0.06  # between pictures, as a share of their height
DARK = 0.15  # of what is hidden and not even to be predicted
COLUMNS = 2  # of samples: more would be too small on a phone
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


def panels_png(*panels: Any) -> bytes:
    """One PNG: for each sample its picture of every panel, such as original, seen and predicted, side by side.

    Args:
        panels: (B,H,W,C) each, in [0,1], C of 1 or 3; what is beyond that range is cut off.
    """
    sides = [np.asarray(pictures, dtype=np.float32) for pictures in panels]
    batch, height, width, channels = sides[0].shape
    scale = max(1, -(-LEAST // height))  # whole pixels stay whole
    gap = max(1, round(GAP * height * scale))
    columns = min(batch, COLUMNS)
    rows = -(-batch // columns)
    cell = (height * scale + 2 * gap, len(sides) * (width * scale + gap) + 3 * gap)
    sheet = Image.new("RGBA", (columns * cell[1] - 4 * gap, rows * cell[0] - 2 * gap), (0, 0, 0, 0))
    for sample in range(batch):
        row, column = divmod(sample, columns)
        for place, pictures in enumerate(sides):
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
    return panels_png(original, seen, result)


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


def hidden(plan: Plan) -> Tensor | None:
    """(B,N) bool on the CPU: sites that the encoder does not see; nothing where it sees all."""
    if plan.keep is not None:
        return torch.ones_like(plan.sites.sample, dtype=torch.bool).scatter(1, plan.keep, False).cpu()
    return None if plan.replace is None else plan.replace.cpu()


def shades(plan: Plan) -> Tensor | None:
    """(B,N,1): what is laid over hidden sites, darker where they are not to be predicted; nan over what is seen."""
    unseen = hidden(plan)
    if unseen is None:
        return None
    shade = torch.full(unseen.shape, torch.nan).masked_fill(unseen, DARK)
    asked = unseen if plan.mask is None else unseen & plan.mask.cpu()
    return shade.masked_fill(asked, GREY)[..., None]


def seen_png(units: Units, plan: Plan, layout: Callable[[Tensor], Tensor], colour: Callable[[Tensor], Tensor]) -> bytes:
    """For each sample every crop, and beside it what the encoder sees of it if that is less or other.

    Args:
        units: values (crops*B,N,C) as the model is given them.
        plan: what was decided about them.
        layout: values (B,N,C) to pictures (B,H,W,C).
        colour: pictures of values to pictures in [0,1].
    """
    values, shade = units.values.float().cpu(), shades(plan)
    given = plan.inputs.values.float().cpu()
    given = values if given.shape != values.shape else given
    original, seen = colour(layout(values)), colour(layout(given))
    if shade is not None and shade.shape[1] == values.shape[1]:
        over = layout(shade.expand_as(values))
        seen = torch.where(over.isnan(), seen, over)
    panels = []
    for whole, part in zip(original.chunk(units.crops), seen.chunk(units.crops), strict=True):
        panels += [whole] if torch.equal(whole, part) else [whole, part]
    return panels_png(*panels)


def _image(picture: np.ndarray, channels: int, scale: int) -> Image.Image:
    pixels = (np.nan_to_num(picture).clip(0, 1) * 255).round().astype(np.uint8)
    image = Image.fromarray(pixels[..., 0] if channels == 1 else pixels[..., :3])
    return image.convert("RGB").resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)
