"""The registry: a part is a class and the dataclass that configures it, under one noun and one name.

Registered means listed, composable from YAML and tested. This module knows neither Hydra nor torch.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Callable, Iterable
from dataclasses import is_dataclass
from typing import Any, ClassVar


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """' (did you mean 'x'?)' or nothing."""
    close = difflib.get_close_matches(given, list(known), n=1, cutoff=0.6)
    return f" (did you mean '{close[0]}'?)" if close else ""


class Registry:
    """The parts of one noun.

    Args:
        noun: singular, as in the configuration group and the YAML key.
        named: the noun is a dict keyed by name in a configuration (`encoder.main`), not a single node.
    """

    all: ClassVar[dict[str, Registry]] = {}

    def __init__(self, noun: str, *, named: bool = True) -> None:
        self.noun, self.named = noun, named
        self.parts: dict[str, tuple[type, type]] = {}  # name -> (config class, part class)
        Registry.all[noun] = self

    def register(self, name: str, config: type) -> Callable[[type], type]:
        """Class decorator. A name or a config that is already taken is an error."""
        if not is_dataclass(config):
            raise TypeError(f"{self.noun} '{name}': {config.__name__} is not a dataclass")

        def decorate(part: type) -> type:
            if name in self.parts:
                raise ValueError(f"{self.noun} '{name}' is registered twice")
            if any(config is known for known, _ in self.parts.values()):
                raise ValueError(f"{self.noun} '{name}': {config.__name__} already configures another part")
            self.parts[name] = (config, part)
            return part

        return decorate

    def part(self, config: Any) -> type:
        """The class that `config` configures."""
        for known, part in self.parts.values():
            if type(config) is known:
                return part
        raise TypeError(f"{self.noun}: {type(config).__name__} configures nothing; known: {', '.join(self.parts)}")

    def name(self, config: Any) -> str:
        """The registered name of a config instance."""
        return next(name for name, (known, _) in self.parts.items() if type(config) is known)


sources = Registry("data", named=False)
transforms = Registry("transform", named=False)
embedders = Registry("embedder")
corruptions = Registry("corruption")
encoders = Registry("encoder")
bottlenecks = Registry("bottleneck")
decoders = Registry("decoder")
heads = Registry("head")
targets = Registry("target")
losses = Registry("loss")
objectives = Registry("objective")
optimizers = Registry("optim", named=False)
probes = Registry("probe")

PACKAGES = (
    "data.sources",
    "data.transforms",
    "embedders",
    "corruptions",
    "encoders",
    "bottlenecks",
    "decoders",
    "heads",
    "targets",
    "losses",
    "objectives",
    "optim",
    "probes",
)


def discover() -> None:
    """Import every module that may register a part. A part needs no other mention to exist."""
    for package in PACKAGES:
        module = importlib.import_module(f"encdec_train.{package}")
        for found in pkgutil.iter_modules(module.__path__):
            importlib.import_module(f"{module.__name__}.{found.name}")
