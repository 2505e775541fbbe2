"""Captioned scenes: a shape in a small picture, and a sentence of a grammar that says what stands where.

In the manner of ShapeWorld (Kuhnle and Copestake 2017, arXiv:1704.04517). Sentences name size, colour, shape, place and
ground in one of four orders. The class is the shape, whatever its size, colour and place.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np

from encdec_train.data.config import PairDataConfig
from encdec_train.data.sources.files import ImagesConfig, TextsConfig
from encdec_train.registry import sources
from encdec_train.rng import key_of
from encdec_train.types import Mismatch

if TYPE_CHECKING:
    from datasets import Dataset

SIDE = 24  # pixels
SHAPES = ("circle", "square", "triangle", "cross", "ring", "bar")
COLOURS = {
    "red": (220, 40, 40),
    "green": (40, 180, 60),
    "blue": (50, 70, 220),
    "yellow": (230, 210, 50),
    "purple": (150, 50, 180),
    "white": (240, 240, 240),
}
SIZES = {"small": 3.3, "large": 5.0}  # radius in pixels
GROUNDS = {"dark": 40, "light": 130}  # grey
PLACES = {
    f"{row} {column}".replace("middle middle", "middle"): (5 + 7 * x, 5 + 7 * y)
    for y, row in enumerate(("top", "middle", "bottom"))
    for x, column in enumerate(("left", "middle", "right"))
}


def _views() -> dict[str, Any]:
    image = ImagesConfig(size=SIDE, patch=6, column="image", mean=[0.33, 0.31, 0.32], std=[0.17, 0.15, 0.16])
    return {"image": image, "text": TextsConfig(column="caption")}


@dataclass(kw_only=True)
class ScenesConfig(PairDataConfig):
    rows: int = 3000  # of the training split; the test split has a tenth
    views: dict[str, Any] = field(default_factory=_views)

    def check(self) -> None:
        if self.rows < 10:
            raise Mismatch(f"data 'scenes'.rows: {self.rows} is below 10")


@sources.register("scenes", ScenesConfig)
class Scenes:
    """Rows {image: uint8 (24,24,3), caption, label: the shape}."""

    def __init__(self, config: ScenesConfig) -> None:
        config.check()
        self.config = config

    def __call__(self, split: str) -> Dataset:
        from datasets import ClassLabel, Dataset, Features, Image, Value

        count = self.config.rows if split == self.config.train else self.config.rows // 10
        rows = [scene(Random(key_of("scenes", split, i))) for i in range(count)]
        features = Features({"image": Image(), "caption": Value("string"), "label": ClassLabel(names=list(SHAPES))})
        return Dataset.from_list(rows, features=features)


def scene(random: Random) -> dict[str, Any]:
    """One row: every attribute is drawn on its own."""
    size, colour, shape, place, ground = (
        random.choice(list(names)) for names in (SIZES, COLOURS, SHAPES, PLACES, GROUNDS)
    )
    picture = np.full((SIDE, SIDE, 3), GROUNDS[ground] + random.uniform(-25, 25))
    picture += np.random.default_rng(random.getrandbits(32)).normal(0, 8, picture.shape)
    x, y = (at + random.uniform(-1, 1) for at in PLACES[place])
    paint = np.array(COLOURS[colour]) * random.uniform(0.8, 1.05)
    picture[inside(shape, x, y, SIZES[size] * random.uniform(0.9, 1.1))] = paint
    thing, at, on = f"a {size} {colour} {shape}", f"at the {place}", f"on {ground} ground"
    orders = (f"{thing} {at} {on}", f"{thing} {on} {at}", f"{at} {thing} {on}", f"{on} {thing} {at}")
    return {
        "image": picture.clip(0, 255).astype(np.uint8),
        "caption": random.choice(orders),
        "label": SHAPES.index(shape),
    }


def inside(shape: str, x: float, y: float, radius: float) -> np.ndarray:
    """(SIDE,SIDE) bool: the pixels of a shape about (x, y)."""
    v, u = np.mgrid[:SIDE, :SIDE] + 0.5
    u, v = (u - x) / radius, (v - y) / radius  # -1 to 1 within the shape
    far = np.hypot(u, v)
    if shape == "circle":
        return far <= 1
    if shape == "ring":
        return (far <= 1.05) & (far >= 0.55)
    if shape == "square":
        return np.maximum(abs(u), abs(v)) <= 0.85
    if shape == "triangle":
        return (abs(v) <= 0.9) & (abs(u) <= (v + 0.9) / 1.8)
    if shape == "cross":
        return (np.maximum(abs(u), abs(v)) <= 1) & (np.minimum(abs(u), abs(v)) <= 0.33)
    return (abs(u) <= 1) & (abs(v) <= 0.4)  # a bar
