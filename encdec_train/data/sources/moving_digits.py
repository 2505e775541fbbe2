"""Handwritten digits that drift over a field without an edge: video whose labels need motion and no download.

After Moving MNIST (Srivastava et al. 2015, arXiv:1502.04681), with one digit of the pictures that ship with
scikit-learn (see `digits`) and the direction of its motion as the label. What leaves the field on one side comes back
on the other and every start is equally likely, so that where a digit stands in a frame says nothing of where it goes.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

from encdec_train.data.config import VideoDataConfig
from encdec_train.registry import sources
from encdec_train.rng import Rng
from encdec_train.types import Mismatch

if TYPE_CHECKING:
    from datasets import Dataset

DIRECTIONS = {  # steps down and to the right
    "right": (0, 1),
    "down": (1, 0),
    "left": (0, -1),
    "up": (-1, 0),
}


@dataclass(kw_only=True)
class MovingDigitsConfig(VideoDataConfig):
    size: int = 16
    channels: int = 1
    patch: int = 4
    frames: int = 8
    stride: int = 1
    mean: list[float] = field(default_factory=lambda: [0.076])
    std: list[float] = field(default_factory=lambda: [0.229])
    seed: int = 0  # of the digits, their starts and speeds
    clips: int = 1600  # in the training split; a fourth of that in the test split, of other pictures
    zoom: int = 1  # pixels of the field for one of the 8 x 8 of a digit
    hold: int = 2  # frames for which a digit stands still before it moves on: tubelets of as many show no motion
    slowest: int = 2  # pixels of one move
    fastest: int = 2


@sources.register("moving_digits", MovingDigitsConfig)
class MovingDigits:
    """Rows {video: a .npy file of uint8 (frames,size,size,1), label: direction, digit}."""

    def __init__(self, config: MovingDigitsConfig) -> None:
        if 8 * config.zoom > config.size:
            raise Mismatch(f"data 'moving_digits': digits of {8 * config.zoom} do not fit frames of {config.size}")
        if not 1 <= config.slowest <= config.fastest < config.size / 2:
            raise Mismatch(
                f"data 'moving_digits': speeds from {config.slowest} to {config.fastest} are not within 1 and "
                f"half of the size {config.size}"
            )
        if config.channels != 1 or config.clips < 4 or config.hold < 1:
            raise Mismatch(
                f"data 'moving_digits': {config.clips} clips of {config.channels} channels, held for {config.hold} "
                "frames; at least 4 of 1 channel and 1 frame are needed"
            )
        self.config = config

    def __call__(self, split: str) -> Dataset:
        from datasets import ClassLabel, Dataset, Features, Value
        from sklearn.datasets import load_digits

        config, test = self.config, split == "test"
        count = config.clips // 4 if test else min(config.clips, config.limit or config.clips)
        found = load_digits()
        own = np.flatnonzero((np.arange(len(found.target)) % 5 == 4) == test)  # as `digits` splits them
        rng, clip = Rng(config.seed, int(test)), torch.arange(count)
        chosen = own[rng.integers("moving_digits.picture", len(own), clip).numpy()]
        label = rng.integers("moving_digits.direction", len(DIRECTIONS), clip).numpy()
        pictures = (found.images[chosen] * (255 / 16)).round().astype(np.uint8)
        clips = self.move(pictures, self.offsets(label, rng, clip))
        rows = {"video": [npy(c) for c in clips], "label": label, "digit": found.target[chosen]}
        features = {"video": Value("binary"), "label": ClassLabel(names=list(DIRECTIONS)), "digit": Value("int64")}
        return Dataset.from_dict(rows, features=Features(features))

    def offsets(self, label: np.ndarray, rng: Rng, clip: torch.Tensor) -> np.ndarray:
        """(clips,frames,2) int64: where the upper left corner of the digit stands, modulo the size."""
        config = self.config
        start = [rng.integers(f"moving_digits.start.{axis}", config.size, clip).numpy() for axis in range(2)]
        speed = config.slowest + rng.integers("moving_digits.speed", config.fastest - config.slowest + 1, clip).numpy()
        step = np.array(list(DIRECTIONS.values()))[label] * speed[:, None]  # (clips,2)
        time = np.arange(config.frames)[None, :, None] // config.hold
        return (np.stack(start, 1)[:, None] + step[:, None] * time) % config.size

    def move(self, pictures: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        """(clips,8,8) uint8 at (clips,frames,2) -> (clips,frames,size,size,1)."""
        size, zoom = self.config.size, self.config.zoom
        large = pictures.repeat(zoom, axis=1).repeat(zoom, axis=2)
        field = np.zeros((len(large), size, size), np.uint8)
        field[:, : large.shape[1], : large.shape[2]] = large
        place = (np.arange(size) - offsets[..., None]) % size  # (clips,frames,2,size): which pixel comes to stand there
        clip = np.arange(len(field))[:, None, None, None]
        return field[clip, place[:, :, 0, :, None], place[:, :, 1, None, :]][..., None]


def npy(array: np.ndarray) -> bytes:
    """An array as the bytes of a .npy file."""
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()
