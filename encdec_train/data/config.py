"""What every data set says of itself in a configuration."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(kw_only=True)
class DataConfig:
    path: str | None = None  # hub name, folder of images or audio, parquet, arrow, csv, json or text; none: embedded
    subset: str | None = None  # configuration name of a hub data set
    train: str = "train"  # split that is trained on
    test: str | None = "test"  # split that probes are scored on; none: a tenth of the training split
    column: str | None = None  # column that holds the content; none: the first that fits the transform
    label: str | None = "label"  # column with the class that probes read; none: no labels
    limit: int | None = None  # use only the first rows of the training split


@dataclass(kw_only=True)
class ImageDataConfig(DataConfig):
    size: int = 32  # height and width that pictures are brought to
    channels: int = 3
    patch: int = 4  # side of a patch that suits this size


@dataclass(kw_only=True)
class AudioDataConfig(DataConfig):
    rate: int = 16000  # samples per second that sounds are brought to
    seconds: float = 1.0  # of one example: longer ones are cut, shorter ones padded
