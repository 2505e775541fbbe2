"""Augmentation of pictures, batched on the training device.

Chen et al. 2020 (SimCLR, arXiv:2002.05709), appendix A; solarization from Grill et al. 2020 (BYOL,
arXiv:2006.07733), appendix B. Every number is drawn from the run's keyed randomness, so a picture is cut and
coloured the same way in any batch, worker or world size. Each operation is computed for all rows and taken
where a row drew it: shapes never depend on data.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from encdec_train.rng import Rng
from encdec_train.types import Mismatch

TRIES = 10  # boxes drawn for a crop before the largest middle one is taken, as in torchvision


@dataclass(kw_only=True)
class AugmentConfig:
    crops: int = 1  # augmented versions of each picture
    size: int | None = None  # side of what comes back; none: the data set's size
    source: int | None = None  # side that pictures are brought to before they are cut; none: the data set's size
    scale_min: float = 0.08  # least area of a random crop, as a share of the picture; 1: no cropping
    scale_max: float = 1.0  # largest area
    ratio: float = 4 / 3  # aspect of a crop, log-uniform between 1 / ratio and ratio
    flip: bool = True  # left to right, for half of the pictures
    rotate: float = 0.0  # degrees to either side
    jitter: float = 0.0  # probability of the next four
    brightness: float = 0.0  # factor, uniform in 1 -+ this
    contrast: float = 0.0  # the same, about the mean grey
    saturation: float = 0.0  # the same, about each pixel's grey; pictures of three channels only
    hue: float = 0.0  # turns of the colour circle, uniform in -+ this; three channels only
    grayscale: float = 0.0  # probability; three channels only
    blur: float = 0.0  # probability
    blur_min: float = 0.1  # deviation in pixels
    blur_max: float = 2.0
    blur_kernel: float = 0.1  # side of the kernel, as a share of the picture's
    solarize: float = 0.0  # probability that values above a half are inverted
    noise: float = 0.0  # largest deviation of added normal noise, uniform from 0 for each picture

    def check(self) -> None:
        """Raise `Mismatch` for the first value out of its range."""
        if self.crops < 1:
            raise Mismatch(f"augment.crops: {self.crops} is below 1")
        if self.size is not None and self.size < 1:
            raise Mismatch(f"augment.size: {self.size} is below 1")
        if not 0 < self.scale_min <= self.scale_max <= 1:
            raise Mismatch(f"augment: scale from {self.scale_min} to {self.scale_max} is not within (0, 1]")
        if self.ratio < 1:
            raise Mismatch(f"augment.ratio: {self.ratio} is below 1")
        for name in ("jitter", "grayscale", "blur", "solarize", "brightness", "contrast", "saturation"):
            if not 0 <= getattr(self, name) <= 1:
                raise Mismatch(f"augment.{name}: {getattr(self, name)} is not in [0, 1]")
        if not 0 <= self.hue <= 0.5:
            raise Mismatch(f"augment.hue: {self.hue} is not in [0, 0.5]")
        if not 0 < self.blur_min <= self.blur_max:
            raise Mismatch(f"augment: blur from {self.blur_min} to {self.blur_max} is not a positive range")
        for name in ("rotate", "noise", "blur_kernel"):
            if getattr(self, name) < 0:
                raise Mismatch(f"augment.{name}: {getattr(self, name)} is below 0")


def augment(images: Tensor, keys: Tensor, rng: Rng, config: AugmentConfig, size: int) -> Tensor:
    """One augmented version of every picture.

    Args:
        images: (B,C,H,W) float in [0,1]; several crops of a picture are rows of their own.
        keys: (B,) int64 random key of each row, different for the crops of one picture.
        rng: keyed by the run's seed and the step.
        config: what is done, and how strongly.
        size: height and width of what comes back.

    Returns:
        (B,C,size,size) float in [0,1].
    """
    images = cut(images, keys, rng, config, size)
    if config.flip:
        images = _where(_chance(rng, "flip", keys, 0.5), images.flip(-1), images)
    if config.jitter:
        changed = jitter(images, keys, rng, config)
        images = _where(_chance(rng, "jitter", keys, config.jitter), changed, images)
    if config.grayscale and images.shape[1] == 3:
        changed = grey(images).expand_as(images)
        images = _where(_chance(rng, "grayscale", keys, config.grayscale), changed, images)
    if config.blur:
        changed = blur(images, keys, rng, config)
        images = _where(_chance(rng, "blur", keys, config.blur), changed, images)
    if config.solarize:
        changed = torch.where(images >= 0.5, 1 - images, images)
        images = _where(_chance(rng, "solarize", keys, config.solarize), changed, images)
    if config.noise:
        images = noise(images, keys, rng, config.noise)
    return images


def cut(images: Tensor, keys: Tensor, rng: Rng, config: AugmentConfig, size: int) -> Tensor:
    """A random crop, turned, resized to `size` by bilinear sampling: (B,C,H,W) -> (B,C,size,size).

    The box is that of torchvision's RandomResizedCrop without its rounding to whole pixels. Turning about the
    crop's middle may read beyond the picture, where its border is repeated.
    """
    rows, channels, height, width = images.shape
    if config.scale_min == 1 and not config.rotate:
        if (height, width) == (size, size):
            return images
        return F.interpolate(images, (size, size), mode="bilinear", antialias=True, align_corners=False)
    box = crop_box(keys, rng, config, height, width)
    angle = (2 * _uniform(rng, "rotate", keys) - 1) * math.radians(config.rotate)
    theta = _affine(box, angle, height, width)
    grid = F.affine_grid(theta, [rows, channels, size, size], align_corners=False)
    return F.grid_sample(images, grid.to(images.dtype), padding_mode="border", align_corners=False)


def crop_box(keys: Tensor, rng: Rng, config: AugmentConfig, height: int, width: int) -> Tensor:
    """(B,4) left, top, width and height in pixels of a crop that lies within the picture.

    Ten pairs of area and aspect are drawn and the first that fits is taken; if none does, the largest middle
    box of an allowed aspect (torchvision's RandomResizedCrop).
    """
    tries = torch.arange(TRIES, device=keys.device)
    area = _uniform(rng, "area", keys[:, None], tries)
    area = (config.scale_min + (config.scale_max - config.scale_min) * area) * (height * width)
    ratio = ((2 * _uniform(rng, "ratio", keys[:, None], tries) - 1) * math.log(config.ratio)).exp()
    w, h = (area * ratio).sqrt(), (area / ratio).sqrt()  # (B,TRIES)
    fits = (w <= width) & (h <= height)
    first = fits.int().argmax(1, keepdim=True)
    whole = min(max(width / height, 1 / config.ratio), config.ratio)
    found = fits.any(1)
    w = torch.where(found, w.gather(1, first)[:, 0], min(width, height * whole))
    h = torch.where(found, h.gather(1, first)[:, 0], min(height, width / whole))
    left = torch.where(found, _uniform(rng, "left", keys), 0.5) * (width - w)
    top = torch.where(found, _uniform(rng, "top", keys), 0.5) * (height - h)
    return torch.stack([left, top, w, h], 1)


def _affine(box: Tensor, angle: Tensor, height: int, width: int) -> Tensor:
    """(B,2,3) from the output's [-1,1] coordinates to the input's: scale to the box, turn, shift."""
    left, top, w, h = box.unbind(1)
    cos, sin = angle.cos(), angle.sin()
    x = torch.stack([cos * w / width, -sin * h / width, (2 * left + w) / width - 1], 1)
    y = torch.stack([sin * w / height, cos * h / height, (2 * top + h) / height - 1], 1)
    return torch.stack([x, y], 1)


def jitter(images: Tensor, keys: Tensor, rng: Rng, config: AugmentConfig) -> Tensor:
    """Brightness, contrast, saturation, hue, each clipped to [0,1], in this order for every picture.

    torchvision and SimCLR shuffle the order for each picture; batched, each operation would run four times.
    """
    from kornia.enhance import adjust_hue

    colour = images.shape[1] == 3
    images = _blend(images, images.new_zeros(()), _factor(rng, "brightness", keys, config.brightness))
    mean = (grey(images) if colour else images).mean((1, 2, 3), keepdim=True)
    images = _blend(images, mean, _factor(rng, "contrast", keys, config.contrast))
    if colour and config.saturation:
        images = _blend(images, grey(images), _factor(rng, "saturation", keys, config.saturation))
    if colour and config.hue:
        turn = (2 * _uniform(rng, "hue", keys) - 1) * config.hue
        images = adjust_hue(images, turn * (2 * math.pi))
    return images


def grey(images: Tensor) -> Tensor:
    """(B,3,H,W) -> (B,1,H,W) luma of ITU-R BT.601."""
    from kornia.color import rgb_to_grayscale

    return rgb_to_grayscale(images)


def blur(images: Tensor, keys: Tensor, rng: Rng, config: AugmentConfig) -> Tensor:
    """Gaussian blur, the deviation uniform for each picture."""
    from kornia.filters import gaussian_blur2d

    side = max(3, int(config.blur_kernel * images.shape[-1]) // 2 * 2 + 1)
    sigma = config.blur_min + (config.blur_max - config.blur_min) * _uniform(rng, "sigma", keys)
    return gaussian_blur2d(images, (side, side), sigma[:, None].expand(-1, 2))


def noise(images: Tensor, keys: Tensor, rng: Rng, largest: float) -> Tensor:
    """Normal noise of a deviation uniform in [0, largest] for each picture, clipped to [0,1]."""
    places = torch.arange(images[0].numel(), device=keys.device)
    drawn = rng.normal("augment.noise", keys[:, None], places).view(images.shape)
    sigma = largest * _uniform(rng, "deviation", keys)
    return (images + sigma[:, None, None, None] * drawn).clamp(0, 1)


def _uniform(rng: Rng, tag: str, *keys: Tensor) -> Tensor:
    return rng.uniform(f"augment.{tag}", *keys)


def _chance(rng: Rng, tag: str, keys: Tensor, probability: float) -> Tensor:
    """(B,) bool."""
    return _uniform(rng, f"{tag}.chance", keys) < probability


def _factor(rng: Rng, tag: str, keys: Tensor, strength: float) -> Tensor:
    """(B,) uniform in 1 -+ strength."""
    return 1 + strength * (2 * _uniform(rng, tag, keys) - 1)


def _blend(images: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    """`images` at factor 1, `other` at factor 0, beyond them above 1; clipped to [0,1]."""
    return torch.lerp(other, images, factor[:, None, None, None]).clamp(0, 1)


def _where(rows: Tensor, changed: Tensor, images: Tensor) -> Tensor:
    return torch.where(rows[:, None, None, None], changed, images)
