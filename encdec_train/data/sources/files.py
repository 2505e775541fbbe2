"""Data of one's own: a hub name, a folder or a file in `data.path`, one plain configuration per modality."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from encdec_train import hub
from encdec_train.data.columns import COLUMN_KINDS, USUAL, column_kind, content_column, decoding, undecoded
from encdec_train.data.config import (
    AudioDataConfig,
    DataConfig,
    GraphDataConfig,
    ImageDataConfig,
    PairDataConfig,
    PointsDataConfig,
    SeriesDataConfig,
    VideoDataConfig,
)
from encdec_train.data.holdout import held_out
from encdec_train.data.local import ALLOWED, KINDS, Splits, files_of, open_path, reason
from encdec_train.data.shards import Shards, look
from encdec_train.registry import did_you_mean, sources

log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class ImagesConfig(ImageDataConfig):
    pass


@dataclass(kw_only=True)
class VideosConfig(VideoDataConfig):
    pass


@dataclass(kw_only=True)
class TextsConfig(DataConfig):
    pass


@dataclass(kw_only=True)
class SoundsConfig(AudioDataConfig):
    pass


@dataclass(kw_only=True)
class GraphsConfig(GraphDataConfig):
    pass


@dataclass(kw_only=True)
class SeriesConfig(SeriesDataConfig):
    pass


@dataclass(kw_only=True)
class CloudsConfig(PointsDataConfig):
    pass


@dataclass(kw_only=True)
class PairsConfig(PairDataConfig):
    label: str | None = None


class Files:
    """Opens `data.path`."""

    def __init__(self, config: DataConfig) -> None:
        self.config = config

    def __call__(self, split: str) -> Any:
        return open_files(self.config, split)


@sources.register("images", ImagesConfig)
class Images(Files):
    """Pictures from `data.path`: a folder of classes, parquet, arrow, or a hub name."""


@sources.register("videos", VideosConfig)
class Videos(Files):
    """Clips from `data.path`: parquet or arrow whose column `video` holds files, or a hub name."""


@sources.register("texts", TextsConfig)
class Texts(Files):
    """Text from `data.path`: text files, csv, json, parquet, arrow, or a hub name."""


@sources.register("sounds", SoundsConfig)
class Sounds(Files):
    """Sounds from `data.path`: a folder of classes, parquet, arrow, or a hub name."""


@sources.register("graphs", GraphsConfig)
class Graphs(Files):
    """Graphs from `data.path`: json, parquet, arrow, or a hub name."""


@sources.register("series", SeriesConfig)
class Series(Files):
    """Series from `data.path`: csv, json, parquet, arrow, or a hub name."""


@sources.register("clouds", CloudsConfig)
class Clouds(Files):
    """Clouds of points from `data.path`: json, parquet, arrow, or a hub name."""


@sources.register("pairs", PairsConfig)
class Pairs(Files):
    """Several views in each row of `data.path`, whatever they are: `data.views.NAME.column` says where."""


def open_files(config: DataConfig, split: str) -> Any:
    """The rows of one split; pictures and sounds are decoded only when they are read.

    They are a `datasets.Dataset`, with `config.streaming` `Shards`.

    Args:
        config: `path`, `subset`, `train`, `test` and `label` are read.
        split: "train" and "test" mean `config.train` and `config.test`; anything else is a split's own name.
            Names joined by `+` are joined rows. Where the default test split is missing, the validation split
            takes its place, or else `data.held_out` of the training rows, always the same, that are not trained on;
            of a table in time its end.

    Returns:
        Columns as they are, but for two: classes that are words are numbered, and without `config.column` the
        content is called image, audio or text.

    Raises:
        ValueError: one sentence that names what was given and what is allowed.
    """
    if config.path is None:
        raise ValueError("data.path: not given; allowed are a hub name, " + ALLOWED)
    with _quiet():
        splits = _splits(config)
        rows = _rows(config, split, splits)
        if isinstance(rows, Shards):
            return rows.through(partial(_prepared, config, {}))
        return _prepared(config, splits, rows)


def _prepared(config: DataConfig, splits: Splits, rows: Any) -> Any:
    """Rows as transforms read them; `splits` that know all classes, which a stream does not have."""
    assert config.path is not None
    return decoding(_content(config, _labelled(config, undecoded(rows), splits)), config.path)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the bars of `datasets`, and without its log of what is raised anyway."""
    from datasets.utils import logging as noise

    shown, level = noise.is_progress_bar_enabled(), noise.get_verbosity()
    noise.disable_progress_bar()
    noise.set_verbosity(logging.CRITICAL)
    try:
        yield
    finally:
        noise.set_verbosity(level)
        if shown:
            noise.enable_progress_bar()


def _splits(config: DataConfig) -> Splits:
    assert config.path is not None
    path = Path(config.path).expanduser()
    if path.exists() or not _is_hub_name(config.path):
        if config.subset is not None:
            raise ValueError(f"data.subset: '{config.subset}' is for hub data sets, {path} is a local path")
        return _shards(config, path) if config.streaming else open_path(path)
    return _hub_shards(config, config.path) if config.streaming else _open_hub(config.path, config.subset)


def _shards(config: DataConfig, path: Path) -> Splits:
    if config.ordered:
        raise ValueError("data.streaming: the rows of one long series follow each other, a stream takes them by blocks")
    kind, _, files = files_of(path)
    return {split: look(kind, [str(file) for file in found], config.buffer) for split, found in files.items()}


def _hub_shards(config: DataConfig, name: str) -> Splits:
    """The files of a data set on the hub, which are read there."""
    import datasets

    log.info("looking for the files of '%s' on the hub", name)
    hub.reaches()
    try:
        builder = datasets.load_dataset_builder(name, config.subset)
    except (OSError, ValueError, RuntimeError) as error:
        raise _not_given(name, config.subset, error) from error
    files = builder.config.data_files
    if not files:
        raise ValueError(f"data.streaming: '{name}' is no data set of plain files on the hub")
    suffix = Path(next(iter(files.values()))[0]).suffix.lower()
    kind = KINDS.get(suffix, suffix)
    return {str(split): look(kind, list(found), config.buffer) for split, found in files.items()}


def _is_hub_name(name: str) -> bool:
    """'name' or 'owner/name'; a known suffix means that a file was meant."""
    return bool(re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", name)) and Path(name).suffix.lower() not in KINDS


def _open_hub(name: str, subset: str | None) -> Splits:
    import datasets

    log.info("opening '%s' from the hub or its cache", name)
    hub.reaches()
    try:
        return dict(datasets.load_dataset(name, subset))
    except (OSError, ValueError, RuntimeError) as error:  # not found, no network, no such subset, a script
        raise _not_given(name, subset, error) from error


def _not_given(name: str, subset: str | None, error: Exception) -> ValueError:
    called = f"'{name}'" if subset is None else f"'{name}' ({subset})"
    return ValueError(
        f"data.path: {called} is neither a path here nor a data set that the hub gives now: {_one_line(error)}"
    )


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()).rstrip(".") or reason(error)


def _rows(config: DataConfig, split: str, splits: Splits) -> Any:
    name = {"train": config.train, "test": config.test}.get(split, split)
    replaced = config.test == "test" and "test" not in splits  # the default, and there is none
    if replaced and "validation" in splits and config.train != "validation":
        replaced = False
        name = "validation" if split == "test" else name
    if split in ("train", "test") and (replaced or config.test is None):
        log.info("%s has no test split: part of '%s' is held out", config.path, config.train)
        rows = _named(config, config.train, "train", splits)
        return held_out(rows, config.path or "", config.held_out, ordered=config.ordered)[split == "test"]
    assert name is not None
    return _named(config, name, split, splits)


def _named(config: DataConfig, name: str, role: str, splits: Splits) -> Any:
    """The rows of a split, or of several joined by `+`."""
    import datasets

    parts = [part.strip() for part in name.split("+")]
    for part in parts:
        if part not in splits:
            key = f"data.{role}" if role in ("train", "test") else "split"
            known = ", ".join(splits)
            raise ValueError(f"{key}: {config.path} has no split '{part}'{did_you_mean(part, splits)}; it has {known}")
        if not len(splits[part]):
            raise ValueError(f"data.path: split '{part}' of {config.path} has no rows")
    first, *others = [splits[part] for part in parts]
    if not others:
        return first
    if isinstance(first, Shards):
        return first.of([block for rows in (first, *others) for block in rows.blocks])
    return datasets.concatenate_datasets([first, *others])


def _labelled(config: DataConfig, rows: Any, splits: Splits) -> Any:
    """Checks the label column, and turns classes that are words into numbers, the same in every split."""
    import datasets

    label = config.label
    if label is None or label not in rows.features:
        if label not in (None, "label"):
            guess = did_you_mean(str(label), rows.features)
            held = ", ".join(rows.features)
            raise ValueError(f"data.label: {config.path} has no column '{label}'{guess}; it has {held}")
        return rows
    if column_kind(rows.features[label]) != "text":
        return rows
    if not splits:
        raise ValueError(
            f"data.label: the classes in '{label}' are words, which only all rows together number; a stream has "
            "numbers or none (data.label=null)"
        )
    known = {value for part in splits.values() if label in part.features for value in part.unique(label)}
    return rows.cast_column(label, datasets.ClassLabel(names=sorted(value for value in known if value is not None)))


def _content(config: DataConfig, rows: Any) -> Any:
    """Without `data.column`, the content comes to be called image, audio or text, as in the embedded sets.

    Views name their columns, which may lie within one of dictionaries: `translation.de`.
    """
    if isinstance(config, PairDataConfig):
        columns = [view.column for view in config.views.values() if view.column is not None]
        within = any("." in column and column not in rows.features for column in columns)
        return rows.flatten() if within else rows
    kind = "image" if isinstance(config, ImageDataConfig) else "audio" if isinstance(config, AudioDataConfig) else None
    if config.column is not None:
        content_column(rows, config.column, [kind] if kind else COLUMN_KINDS)
        return rows
    if kind is None:  # text where a column is called so; else tables and graphs, whose columns keep their names
        texts = [name for name in rows.features if name.lower() in USUAL["text"]]
        kind = "text" if texts and "text" not in texts else None
    if kind is None:
        return rows
    found = content_column(rows, None, [kind])
    return rows if found == kind else rows.rename_column(found, kind)
