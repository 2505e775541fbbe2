"""What every data set says of itself in a configuration."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from encdec_train.types import Mismatch

# What follows a row that cannot be read: `raise` names it and stops; `skip` puts another one in its place.
OnError = Enum("OnError", {"raise": "raise", "skip": "skip"})


@dataclass(kw_only=True)
class DataConfig:
    path: str | None = None  # hub name, folder of images or audio, parquet, arrow, csv, json or text; none: embedded
    subset: str | None = None  # configuration name of a hub data set
    train: str = "train"  # split that is trained on
    test: str | None = "test"  # split that probes are scored on; none: part of the training split
    held_out: float = 0.1  # that part: a share of the rows, or from 1 on their number; the last ones of a long series
    column: str | None = None  # column that holds the content; none: the first that fits the transform
    label: str | None = "label"  # column with the class that probes read; none: no labels
    limit: int | None = None  # use only the first rows of the training split
    on_error: OnError = OnError["raise"]  # or skip: another row, always the same, takes the place of a broken one
    max_skipped: float = 0.01  # share of the rows read so far, of a thousand at least, that may be skipped
    streaming: bool = False  # rows of parquet, lines of json or tar shards stay in their files until they are needed
    buffer: int = 10_000  # of a stream: rows among which the order is drawn, held by every worker; whole row groups
    weight: float = 1.0  # in a mixture: share of the rows, relative to the other sets'

    def __post_init__(self) -> None:
        if self.buffer < 1:
            raise Mismatch(f"data.buffer: {self.buffer} is below 1")
        if self.held_out <= 0 or (self.held_out > 1 and self.held_out % 1):
            raise Mismatch(f"data.held_out: {self.held_out} is neither a share above 0 nor a number of rows")
        if not 0 <= self.max_skipped <= 1:
            raise Mismatch(f"data.max_skipped: {self.max_skipped} is not in [0, 1]")

    @property
    def ordered(self) -> bool:
        """Rows follow each other in time: where a test split is missing, the last ones are held out."""
        return False


@dataclass(kw_only=True)
class ImageDataConfig(DataConfig):
    size: int = 32  # height and width that pictures are brought to
    channels: int = 3
    patch: int = 4  # side of a patch that suits this size
    mean: list[float] = field(default_factory=lambda: [0.485, 0.456, 0.406])  # per channel, of values in [0, 1]
    std: list[float] = field(default_factory=lambda: [0.229, 0.224, 0.225])


@dataclass(kw_only=True)
class VideoDataConfig(DataConfig):
    column: str | None = "video"  # column that holds clips
    size: int = 224  # height and width that frames are brought to
    channels: int = 3
    patch: int = 16  # side of a patch that suits this size
    frames: int = 16  # of one example
    stride: int = 4  # frames of a clip from one that is used to the next
    mean: list[float] = field(default_factory=lambda: [0.485, 0.456, 0.406])  # per channel, of values in [0, 1]
    std: list[float] = field(default_factory=lambda: [0.229, 0.224, 0.225])


@dataclass(kw_only=True)
class AudioDataConfig(DataConfig):
    rate: int = 16000  # samples per second that sounds are brought to
    seconds: float = 1.0  # of one example: longer ones are cut, shorter ones padded


@dataclass(kw_only=True)
class GraphDataConfig(DataConfig):
    column: str | None = "features"  # column of node features, one list for each node
    edges: str = "edges"  # column of edges: two lists, sources and destinations
    features: int = 32  # numbers in the features of a node


@dataclass(kw_only=True)
class SeriesDataConfig(DataConfig):
    column: str | None = None  # column with a whole series in each row; none: a row is a step of one long series
    length: int = 336  # steps of one example: longer series are cut
    channels: int = 1  # numbers at each step
    patch: int = 12  # steps of a patch that suits these data

    @property
    def ordered(self) -> bool:
        return self.column is None


@dataclass(kw_only=True)
class PointsDataConfig(DataConfig):
    column: str | None = "points"  # column with the points of a cloud: lists of three numbers
    points: int = 1024  # of one example: a random choice where a cloud has more


@dataclass(kw_only=True)
class PairDataConfig(DataConfig):
    """Several views in one row. `views` says of each, by name, what its transform has to know of the data."""

    views: dict[str, Any] = field(default_factory=dict)  # of registered data configs; `column` holds the content
