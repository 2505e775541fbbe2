"""Several views of one row, each made by a transform of its own: picture and caption, source and target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, is_dataclass
from itertools import chain
from pathlib import Path
from shutil import copyfile
from typing import Any

from encdec_train.data.config import DataConfig, PairDataConfig
from encdec_train.data.example import Row
from encdec_train.data.transform import Transform
from encdec_train.data.transforms.text import Text
from encdec_train.registry import did_you_mean, transforms
from encdec_train.rng import Rng
from encdec_train.types import Batch, Mismatch, Spec


@dataclass(kw_only=True)
class PairConfig:
    views: dict[str, Any] = field(default_factory=dict)  # a transform for each view of the data, by its name
    joint: bool = False  # one tokenizer for all views of text, learned from all of them


@transforms.register("pair", PairConfig)
class Pair(Transform):
    """Views by the names of `views`. They carry the same random keys: those of the row."""

    config: PairConfig
    data: PairDataConfig

    def __init__(self, config: PairConfig, data: DataConfig) -> None:
        if not isinstance(data, PairDataConfig):
            raise Mismatch(f"transform 'pair' needs several views in a row, data gives {type(data).__name__}")
        super().__init__(config, data)
        _check_typed("transform", config.views)
        _check_typed("data", data.views)
        strange = [name for name in config.views if name not in data.views]
        if strange or not config.views:
            name = strange[0] if strange else "none"
            have = ", ".join(data.views) or "none"
            raise Mismatch(f"transform 'pair'.views: {name}{did_you_mean(name, data.views)}; the data have {have}")
        self.parts = {name: _make(part, data.views[name]) for name, part in config.views.items()}
        self.inner = {name: _one_view(name, part) for name, part in self.parts.items()}  # what it calls its view
        texts = {name: part for name, part in self.parts.items() if isinstance(part, Text)}
        if config.joint and len({part.vocabulary for part in texts.values()}) > 1:
            raise Mismatch(f"transform 'pair'.joint: {', '.join(texts)} differ in vocabulary or kind of tokenizer")
        self.joint = texts if config.joint else {}

    def specs(self) -> dict[str, Spec]:
        return {name: part.specs()[self.inner[name]] for name, part in self.parts.items()}

    def of(self, view: str) -> Transform:
        return self.parts[view]

    def fit(self, rows: Sequence[dict[str, Any]], folder: Path) -> None:
        """Each view keeps what it learns in a folder of its name."""
        if self.joint:
            first, *others = self.joint
            sample = chain.from_iterable(text.sample(rows) for text in self.joint.values())
            self.joint[first].learn(sample, folder / first)
            for name in others:
                (folder / name).mkdir(exist_ok=True)
                copyfile(folder / first / "tokenizer.json", folder / name / "tokenizer.json")
        for name, part in self.parts.items():
            part.fit(rows, folder / name)

    def items(self, rows: Sequence[dict[str, Any]], *, clean: bool) -> Sequence[Any]:
        return Abreast({name: part.items(rows, clean=clean) for name, part in self.parts.items()})

    def __call__(self, item: dict[str, Any], sample: int, rng: Rng, *, clean: bool) -> Row:
        return {name: part(item[name], sample, rng, clean=clean)[self.inner[name]] for name, part in self.parts.items()}

    def finish(self, batch: Batch, rng: Rng, *, clean: bool) -> Batch:
        finished = dict(batch)
        for name, part in self.parts.items():
            inner = self.inner[name]
            finished[name] = part.finish({inner: batch[name]}, rng, clean=clean)[inner]
        return finished

    def preprocess(self) -> dict[str, Any]:
        """By view; files that a view names lie in the folder of its name."""
        return {"transform": "pair", "views": {name: part.preprocess() for name, part in self.parts.items()}}


@dataclass(frozen=True, eq=False)
class Abreast(Sequence):
    """Item i of every view; views that read the same sequence read it once."""

    parts: dict[str, Sequence[Any]]

    def __post_init__(self) -> None:
        lengths = {name: len(items) for name, items in self.parts.items()}
        assert len(set(lengths.values())) == 1, f"views of one row differ in number: {lengths}"

    def __len__(self) -> int:
        return len(next(iter(self.parts.values())))

    def __getitem__(self, i: int) -> dict[str, Any]:  # type: ignore[override]
        return self.__getitems__([i])[0]

    def __getitems__(self, ids: Sequence[int]) -> list[dict[str, Any]]:
        read = {id(items): _read(items, ids) for items in self.parts.values()}
        return [{name: read[id(items)][k] for name, items in self.parts.items()} for k in range(len(ids))]


def _read(items: Sequence[Any], ids: Sequence[int]) -> Sequence[Any]:
    together = getattr(items, "__getitems__", None)
    return together(list(ids)) if together is not None else [items[i] for i in ids]


def _make(config: Any, data: DataConfig) -> Transform:
    made: Transform = transforms.part(config)(config, data)
    return made


def _one_view(name: str, part: Transform) -> str:
    """What the transform of a view calls it.

    Raises:
        Mismatch: it does not give one view of every row.
    """
    views = list(part.specs())
    said = f"it gives {len(views)} views" if len(views) != 1 else ""
    if not part.by_row:
        said = "it does not make one item of each row; layout=row does"
    if said:
        raise Mismatch(f"transform '{transforms.name(part.config)}' for the view '{name}': {said}")
    return views[0]


def _check_typed(noun: str, views: dict[str, Any]) -> None:
    plain = [name for name, part in views.items() if not is_dataclass(part)]
    if plain:
        raise Mismatch(f"{noun}.views.{plain[0]} is not typed: its word must put a registered {noun} there")
